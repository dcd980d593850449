"""
What goes on in the thread of a worker: a client of Dask's, and what it's asked for.

All of it runs in the loop of that thread.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol
from uuid import uuid4

from distributed import KilledWorker
from distributed.client import FutureCancelledError

from .._child.parcels import Parcel, unpack
from .._child.protocol import Kind
from .._child.status import Status
from .._support.answers import loadsAnswer
from ..errors import WorkerLost, WorkerStartError
from ._buffers import MIN_SCATTERED, Scattering
from ._bundles import Bundle, ClusterCall
from ._connection import ClusterOptions, SchedulerConnection, quietly
from ._fetching import Fetching
from ._iterations import ClusterStream, HeldItems, ItemTaker
from ._remote import RemoteCalls, RemoteUpdate, execute, update, updated

#: Seconds that what goes on has to end by itself.
_CANCEL_SECONDS = 1.0

#: A call whose arguments were lost with the worker that had them is sent so often.
_MAX_ATTEMPTS = 3

#: Dask's reason for giving up all calls.
_DISCONNECTED = "scheduler-connection-lost"


class SessionOwner(Protocol):
    """Is told, in the reactor's thread, what goes on."""

    def connected(self, threads: int) -> None:
        """The cluster is there, and has so many threads."""

    def resized(self, threads: int) -> None:
        """It has another number of threads."""

    def differs(self, text: str) -> None:
        """Versions differ that may do no harm, or those of a worker that has come."""

    def lost(self, error: BaseException) -> None:
        """There's no working with it, or no longer."""


class CallOwner(Protocol):
    """Is told, in the reactor's thread, what becomes of calls."""

    def held(self, call: ClusterCall) -> None:
        """The large buffers of a call have been copied, so that it can be sent."""

    def begun(self, key: str) -> None:
        """A worker has begun a bundle that was to tell that."""

    def answered(self, bundle: Bundle, outcomes: list[tuple[float, Any]]) -> None:
        """
        The calls of a bundle have been made. For each there's how many seconds it took,
        and what is the result of the task, a Failure, or L{HeldItems}.
        """

    def killed(self, bundle: Bundle, error: BaseException) -> None:
        """One of the calls seems to end the processes that make it."""

    def failed(self, bundle: Bundle, error: BaseException) -> None:
        """They couldn't be made."""


class ClusterSession:
    """A client, from when it connects until it's closed."""

    # _running has a coroutine for each bundle, update and iteration, and each call
    # whose buffers are being copied. _sent has Dask's future of a bundle that has no
    # answer. _futures has that of a bundle whose calls have returned iterators, which
    # are held in the cluster as long as it's there.

    def __init__(
        self,
        options: ClusterOptions,
        owner: SessionOwner,
        calls: CallOwner,
        tell: Callable[[list[Callable[[], object]]], object],
    ) -> None:
        """@param tell: Has callables be called in the reactor's thread."""
        self._options = options
        self._owner = owner
        self._calls = calls
        self._handOver = tell
        # What is to be handed over in this turn of the loop.
        self._told: list[Callable[[], object]] = []
        self._connection = SchedulerConnection(options)
        self._scattering: Any = None
        self._fetching: Any = None
        # Dask's topic by which bundles tell that they have begun.
        self._topic = ""
        self._running: dict[object, asyncio.Task[None]] = {}
        self._sent: dict[object, Any] = {}
        self._futures: dict[str, Any] = {}
        # Functions whose results have been large.
        self._large: set[str] = set()
        self._streams: dict[ItemTaker, ClusterStream] = {}
        # Updates are made in their order.
        self._updating = asyncio.Lock()
        self._closing = asyncio.Event()
        self._disconnected = asyncio.Event()

    async def main(self) -> None:
        """Connect, do what is asked for, and close when told to, or when it's lost."""
        closing = asyncio.create_task(self._closing.wait())
        working = asyncio.create_task(self._work())
        await asyncio.wait([closing, working], return_when=asyncio.FIRST_COMPLETED)
        with quietly():
            if working.done():
                self._tell(self._owner.lost, working.exception())
            for what in list(self._running):
                self.cancel(what)
            for task in (closing, working):
                task.cancel()
            tasks = [closing, working, *self._running.values()]
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
            await self._connection.close()
            await asyncio.sleep(0)  # for what is to be handed over

    # What is asked for.

    def close(self) -> None:
        """End it."""
        self._closing.set()

    def hold(self, call: ClusterCall) -> None:
        """Copy the large buffers of a call."""
        self._start(call, self._hold(call))

    def submit(self, bundles: list[Bundle]) -> None:
        """Have bundles of calls be made."""
        for bundle in bundles:
            self._start(bundle, self._submit(bundle))

    def update(self, bundle: Bundle, isLasting: bool) -> None:
        """Have a call be made by each worker, and perhaps by each that comes later."""
        self._start(bundle, self._update(bundle, isLasting))

    def iterate(self, taker: ItemTaker, held: HeldItems) -> None:
        """Get the items of an iteration."""
        stream = self._streams[taker] = ClusterStream(held, taker, self._tell)
        self._start(taker, self._iterate(taker, stream))

    def taken(self, taker: ItemTaker, count: int) -> None:
        """Note that items of it have been taken."""
        if taker in self._streams:
            self._streams[taker].taken(count)

    def cancel(self, what: object) -> None:
        """Have nothing more be told of any of these, and not be made, if it can be."""
        task, future = self._running.get(what), self._sent.get(what)
        if future is not None:
            # The coroutine ends by that. Dask's own would be left over otherwise.
            self._start(future, self._connection.client.cancel([future]))
        elif task is not None:
            task.cancel()

    def release(self, bundle: Bundle) -> None:
        """End the iterations that the calls of a bundle have led to."""
        future = self._futures.pop(bundle.key, None)
        if future is not None:
            future.release()

    # The connection.

    async def _work(self) -> None:
        """Connect, and see that the cluster is there until it isn't."""
        connection, options = self._connection, self._options
        try:
            await connection.open()
            self._topic = f"asynqueue-{uuid4().hex}"
            connection.client.subscribe_topic(self._topic, self._hasBegun)
            self._scattering = Scattering(connection.client)
            self._fetching = Fetching(connection.client)
            await self._look()
        except (OSError, asyncio.TimeoutError, ImportError) as error:
            why = str(error) or type(error).__name__
            raise WorkerStartError(f"There's no connection: {why}") from error
        self._tell(self._owner.connected, connection.threads)
        missing = 0.0
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._disconnected.wait(), options.heartbeat)
                raise WorkerLost("The connection to the scheduler is lost")
            try:
                await self._look()
            except (OSError, asyncio.TimeoutError) as error:
                raise WorkerLost("The scheduler doesn't answer") from error
            missing = 0.0 if connection.threads else missing + options.heartbeat
            limit = options.noWorkersTimeout
            if limit is not None and missing >= limit:
                raise WorkerLost(f"The cluster has had no workers for {missing:g} s")

    async def _look(self) -> None:
        """See that the cluster is there, and which workers it has."""
        connection, before = self._connection, self._connection.threads
        text = await connection.look()
        if text:
            self._tell(self._owner.differs, text)
        if connection.threads != before:
            self._tell(self._owner.resized, connection.threads)
        for taker, stream in list(self._streams.items()):
            if stream.held.address not in connection.workers:
                self._tell(taker.failed, WorkerLost("The worker that had it is gone"))
                self.cancel(taker)

    # Calls.

    async def _hold(self, call: ClusterCall) -> None:
        payload: Any = call.payload
        try:
            call.payload, call.large = await self._scattering.hold(payload)
        except MemoryError as error:
            self._tell(self._calls.failed, Bundle([call]), error)
        else:
            self._tell(self._calls.held, call)

    async def _submit(self, bundle: Bundle) -> None:
        try:
            outcomes = await self._run(bundle)
        except FutureCancelledError as error:
            if error.reason == _DISCONNECTED:
                self._disconnected.set()
                return
            lost = WorkerLost(f"Dask has given up the call: {error}")
            self._tell(self._calls.failed, bundle, lost)
        except KilledWorker as error:
            self._tell(self._calls.killed, bundle, error)
        except Exception as error:  # noqa: BLE001 - Dask's are many
            self._tell(self._calls.failed, bundle, error)
        else:
            self._tell(self._calls.answered, bundle, outcomes)
        finally:
            self._scattering.release(bundle.calls[0].large)

    async def _run(self, bundle: Bundle) -> list[tuple[float, Any]]:
        """Have calls be made, and get what they have come to."""
        large = bundle.calls[0].large
        calls = RemoteCalls(
            [call.payload for call in bundle.calls],
            self._scattering.places(large),
            self._topic if bundle.isTimed else None,
        )
        for attempt in range(_MAX_ATTEMPTS):
            pieces = [await self._scattering.scatter(copy) for copy in large.values()]
            key = f"{bundle.key}-{attempt}" if attempt else bundle.key
            future = self._connection.client.submit(
                execute,
                bundle.key,
                calls,
                *pieces,
                key=key,
                pure=False,
                priority=bundle.priority,
                **self._options.placement(bundle.series),
            )
            self._sent[bundle] = future
            try:
                return await self._result(bundle, future)
            except FutureCancelledError as error:
                # The worker may have gone that had the buffers.
                if error.reason == _DISCONNECTED or not (large and bundle.isWanted):
                    raise
                for copy in large.values():
                    self._scattering.renew(copy)
            finally:
                del self._sent[bundle]
        raise WorkerLost(f"Its arguments were lost {_MAX_ATTEMPTS} times")

    async def _result(self, bundle: Bundle, future: Any) -> list[tuple[float, Any]]:
        # What is large comes from the worker itself. That takes a question more, so
        # it's done where it's likely.
        call = bundle.calls[0]
        isLarge = bool(call.large) or call.name in self._large
        if isLarge and await self._scattering.isDirect():
            answers = await self._connection.client.gather(future, direct=True)
        else:
            answers = await self._fetching.fetch(future)
        if isinstance(answers, bytes):
            found = pickle.loads(answers)
        else:
            found = answers.answers
            if sys.getsizeof(answers) >= MIN_SCATTERED:
                self._large.add(call.name)
        outcomes = [
            _outcome(answer, call.task)
            for call, answer in zip(bundle.calls, found, strict=True)
        ]
        if any(type(outcome) is HeldItems for _, outcome in outcomes):
            self._futures[bundle.key] = future
        return outcomes

    def _hasBegun(self, event: tuple[float, str]) -> None:
        self._tell(self._calls.begun, event[1])

    # Updates.

    async def _update(self, bundle: Bundle, isLasting: bool) -> None:
        call, client = bundle.calls[0], self._connection.client
        try:
            async with self._updating:
                if isLasting:
                    answers = await self._store(call.payload)
                else:
                    answers = await client.run(update, call.payload)
            outcomes = [_outcome(answer, call.task) for answer in answers.values()]
        except Exception as error:  # noqa: BLE001 - Dask's are many
            self._tell(self._calls.failed, bundle, error)
            return
        # One that has failed says more than others.
        outcomes.sort(key=lambda outcome: _hasRun(outcome[1]))
        none = [(0.0, (Status.RAN, None))]  # there are no workers
        self._tell(self._calls.answered, bundle, outcomes[:1] or none)

    async def _store(self, payload: bytes | Parcel) -> dict[str, Any]:
        """Have a call be made by all workers, and those to come."""
        data = payload if isinstance(payload, bytes) else payload.pickle
        # After the connection was lost, it replaces the one that is stored.
        name = f"asynqueue-{blake2b(data, digest_size=8).hexdigest()}"
        self._connection.updates.append(name)
        with suppress(RuntimeError):  # which the answers tell
            await self._connection.client.register_plugin(
                RemoteUpdate(name, payload), name
            )
        found: dict[str, Any] = await self._connection.client.run(updated, name)
        return found

    # Iterations.

    async def _iterate(self, taker: ItemTaker, stream: ClusterStream) -> None:
        try:
            await stream.run(self._connection.client)
        finally:
            del self._streams[taker]

    # Others.

    def _start(self, what: object, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._running[what] = asyncio.create_task(coroutine)
        task.add_done_callback(lambda _: self._running.pop(what, None))

    def _tell(self, f: Callable[..., object], *args: Any) -> None:
        # Together, or the two threads would take turns with each.
        if not self._told:
            asyncio.get_running_loop().call_soon(self._handOverTold)
        self._told.append(partial(f, *args))

    def _handOverTold(self) -> None:
        told, self._told = self._told, []
        self._handOver(told)


def _outcome(found: tuple[int, bytes | Parcel], task: object) -> tuple[float, Any]:
    kind, answer = found
    if kind == Kind.ITERATOR:
        return 0.0, HeldItems(*pickle.loads(answer))  # type: ignore[arg-type]  # it's small
    outcome: tuple[float, Any] = loadsAnswer(kind, unpack(answer), task)
    return outcome


def _hasRun(outcome: Any) -> bool:
    return isinstance(outcome, tuple) and outcome[0] == Status.RAN
