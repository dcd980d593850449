"""
What runs in the cluster: on its workers, and unpickled by its scheduler.

Imports nothing of Twisted's, since it's imported there. Everything that calls code of
the user's catches whatever that raises: what gets out would fail others' calls, or end
the process.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from uuid import uuid4

from attrs import define, field
from distributed import WorkerPlugin, get_worker

from .._child import parcels
from .._child.exceptions import dumpsException
from .._child.parcels import Parcel
from .._child.pickling import PROTOCOL, describeError
from .._child.protocol import Kind

#: So many items may be made before they're asked for,
_MAX_ITEMS = 1_000

#: and none after so many bytes of them.
_MAX_BYTES = 1 << 24

#: The kind of an answer, and the answer.
Answer: TypeAlias = tuple[int, bytes | Parcel]

#: The iterations that go on in this process, by ID.
_held: dict[str, _HeldIterator] = {}

#: What updates have come to in this process, by the names of their plugins.
_updated: dict[str, Answer] = {}


# Without repr: Dask logs that of arguments when a task fails, and data are large.
@define(eq=False, repr=False)
class RemoteCalls:
    """
    Calls that one Dask task makes, one after the other. Dask looks for its keys in
    lists and tuples, but not in this.
    """

    #: The calls, pickled.
    payloads: list[bytes | Parcel]
    #: Where in the buffers of the only call those belong that come as further arguments
    #: of the Dask task, and whether they're to be copied.
    places: tuple[tuple[int, bool], ...] = ()
    #: Dask's topic for telling that the calls have begun, C{None} if nobody needs to
    #: know.
    topic: str | None = None


@define(eq=False, repr=False)
class Answers:
    """What the calls of a Dask task have come to, where that isn't just C{bytes}."""

    #: That of each call.
    answers: list[Answer]
    #: The iterators that calls have returned. They're held here as long as Dask keeps
    #: this, which is until the client doesn't want it any longer, or is no more.
    held: list[_HeldIterator] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        for each in self.held:
            weakref.finalize(self, each.stop)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.answers,)

    def __sizeof__(self) -> int:
        return sum(sys.getsizeof(answer) for _, answer in self.answers)


@define(eq=False, repr=False)
class RemoteItems:
    """Items of an iteration."""

    #: Each pickled.
    items: list[bytes | Parcel]
    #: C{None} if more may come; how it has failed, pickled; or empty.
    end: bytes | None


def execute(key: str, calls: RemoteCalls, *scattered: Parcel) -> bytes | Answers:
    """
    Make calls, with buffers of the only one that were brought here before. Nothing gets
    out of them but C{bytes}, or L{Answers} if there's more.
    """
    if calls.topic is not None:
        get_worker().log_event(calls.topic, key)
    payloads = calls.payloads
    if scattered:
        payloads = [_completed(calls, scattered)]
    held: list[_HeldIterator] = []

    def keep(iterator: Iterator[object]) -> bytes:
        held.append(_HeldIterator(iterator))
        return pickle.dumps((held[-1].ID, get_worker().address), PROTOCOL)

    answers = [parcels.execute(payload, keep) for payload in payloads]
    if held or any(type(answer) is Parcel for _, answer in answers):
        return Answers(answers, held)
    return pickle.dumps(answers, PROTOCOL)


def _completed(calls: RemoteCalls, scattered: tuple[Parcel, ...]) -> Parcel:
    """Put the buffers of the only call where they belong."""
    payload: Any = calls.payloads[0]
    buffers = list(payload.buffers)
    for (place, toCopy), parcel in zip(calls.places, scattered, strict=True):
        (buffer,) = parcel.buffers
        buffers.insert(place, bytearray(buffer) if toCopy else buffer)
    return Parcel(payload.pickle, buffers)


class _HeldIterator:
    """
    An iterator that a call has returned. A thread makes its items, as far as they're
    taken.
    """

    # _ready has items that were made, of _size bytes; _end is set when there are no
    # more. _wake is there while take() waits. They're guarded by the condition.

    def __init__(self, iterator: Iterator[object]) -> None:
        self.ID = uuid4().hex
        self._iterator = iterator
        self._ready: deque[bytes | Parcel] = deque()
        self._size = 0
        self._end: bytes | None = None
        self._stopped = False
        self._wake: Callable[[], object] | None = None
        self._condition = threading.Condition()
        _held[self.ID] = self
        threading.Thread(
            target=self._make, name=f"asynqueue {self.ID[:8]}", daemon=True
        ).start()

    def stop(self) -> None:
        """End the iteration. Any thread may."""
        _held.pop(self.ID, None)
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    async def take(self) -> RemoteItems:
        """Wait until there's an item or the end, and take all that is there."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._condition:
            self._wake = partial(loop.call_soon_threadsafe, event.set)
            if self._ready or self._end is not None:
                self._notify()
        await event.wait()
        with self._condition:
            items = list(self._ready)
            self._ready.clear()
            self._size = 0
            self._condition.notify_all()
            return RemoteItems(items, self._end)

    def _make(self) -> None:
        iterator, end = self._iterator, b""
        try:
            for item in iterator:
                if not self._put(parcels.pack(item)):
                    break
        except BaseException as error:  # noqa: BLE001 - the iterator is the user's
            text = f"The iteration has failed: {describeError(error)}"
            end = dumpsException(error, text)
        close = getattr(iterator, "close", None)
        if close is not None:
            with suppress(BaseException):
                close()
        with self._condition:
            self._end = end
            self._notify()

    def _put(self, payload: bytes | Parcel) -> bool:
        """Add an item, and wait until another is wanted. Returns whether one is."""
        with self._condition:
            self._ready.append(payload)
            self._size += sys.getsizeof(payload)
            self._notify()
            while not self._stopped and (
                len(self._ready) >= _MAX_ITEMS or self._size >= _MAX_BYTES
            ):
                self._condition.wait()
            return not self._stopped

    def _notify(self) -> None:
        """Have L{take} go on, if it waits."""
        wake, self._wake = self._wake, None
        if wake is not None:
            with suppress(RuntimeError):  # the worker has stopped
                wake()


async def take(ID: str) -> RemoteItems:
    """Take items of an iteration that goes on in this process."""
    held = _held.get(ID)
    if held is None:
        raise LookupError("The iterator isn't there any longer")
    return await held.take()


async def update(payload: bytes | Parcel) -> Answer:
    """Make a call outside of Dask's tasks."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, parcels.execute, payload)


class RemoteUpdate(WorkerPlugin):
    """An update, which each worker makes that there is, and that comes later."""

    def __init__(self, name: str, payload: bytes | Parcel) -> None:
        self._name = name
        self._payload = payload

    async def setup(self, worker: object) -> None:
        """Make the call, before the worker gets tasks."""
        kind, answer = _updated[self._name] = await update(self._payload)
        if kind == Kind.ERROR:
            assert isinstance(answer, bytes)
            text = pickle.loads(answer)[1]
            raise RuntimeError(f"An update has failed: {text}")


async def updated(name: str) -> Answer:
    """Tell what an update has come to in this process."""
    return _updated.pop(name)
