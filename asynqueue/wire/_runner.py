"""What a server has to offer, and what runs it."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.protocols.amp import MAX_VALUE_LENGTH
from twisted.python.failure import Failure

from .._child.calls import CallRunner, isIteration, o2p
from .._child.describe import callText, errorText
from .._child.status import ErrorText, Status, StatusResult
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import WorkerError
from ..iteration import Deferator
from ..threads._looper import ThreadLooper
from ..util._sync import DeferredTracker
from ._commands import ChunkyString
from ._iterations import EncodedItems

_Encode: TypeAlias = Callable[[Any], object]


class WireWorkerUniverse:
    """
    Subclass it, and its public methods can be called from where a
    L{WireWorker<asynqueue.wire.WireWorker>} is.

    Public are functions that the subclass, or another between it and this class,
    defines under a name without a leading underscore. Nothing else can be reached from
    there. A method may return a Deferred, or be a coroutine function; iterators that
    methods return, also asynchronous ones of Deferreds, are iterated over as their
    items are taken.

    A result is sent as it was when the method returned, whatever is done to it later.

    @cvar allowed: Classes of which instances may be sent, both ways, without pickles.
        They come as new objects with the same attributes; no code of theirs is run.

    @cvar exceptions: Classes of exceptions that come as what they are, besides those of
        Python itself.

    @ivar ws: The L{WireServer<asynqueue.wire.WireServer>}, C{None} elsewhere.
    """

    allowed: Iterable[type] = ()
    exceptions: Iterable[type[Exception]] = ()

    def __init__(self, wireServer: Any = None) -> None:
        """@param wireServer: The server."""
        self.ws = wireServer

    @classmethod
    def check(cls, instance: object) -> bool:
        """
        Check that something is a universe.

        @return: C{True}.

        @raise TypeError: If it isn't.
        """
        if not isinstance(instance, WireWorkerUniverse):
            raise TypeError(f"{instance!r} is no WireWorkerUniverse")
        return True


def classOf(wwu: object) -> type[WireWorkerUniverse]:
    """Get the class of a universe, raising TypeError if it's none."""
    kind = wwu if isinstance(wwu, type) else type(wwu)
    if not issubclass(kind, WireWorkerUniverse):
        raise TypeError(
            f"A universe is needed, an instance of a subclass of WireWorkerUniverse or"
            f" the subclass itself, not {wwu!r}"
        )
    return kind


def namesOf(wwu: object) -> frozenset[str]:
    """List the public methods of a universe, or of its class."""
    kind = classOf(wwu)
    names = set()
    for base in kind.__mro__[: kind.__mro__.index(WireWorkerUniverse)]:
        for name, value in vars(base).items():
            if name.startswith("_") or name in vars(WireWorkerUniverse):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            if inspect.isfunction(value):
                names.add(name)
    # What a subclass puts in the place of a method isn't one.
    return frozenset(name for name in names if callable(getattr(kind, name, None)))


class WireRunner:
    """
    Runs the methods of a universe, in the reactor's thread or in threads of their own.

    @ivar wwu: The universe.

    @ivar table: Its public methods, by name.

    @ivar iterators: The iterators from which L{getNext} gets items, by ID.

    @ivar stuck: How many threads have been left alone with a call that nobody waits
        for any longer, and are still busy with it.
    """

    def __init__(
        self,
        wwu: WireWorkerUniverse | None = None,
        *,
        maxStuck: int = 16,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        @param wwu: The universe. By default, one without methods.

        @param maxStuck: How many threads may be stuck before their places aren't given
            to others.

        @param reactor: The reactor. By default, the global one.

        @raise TypeError: If that's no universe.
        """
        self.wwu = WireWorkerUniverse() if wwu is None else wwu
        self.table: dict[str, Callable[..., Any]] = {
            name: getattr(self.wwu, name) for name in namesOf(self.wwu)
        }
        self.iterators: dict[bytes, Any] = {}
        self.stuck = 0
        self._maxStuck = maxStuck
        # What waits for a stuck thread to end.
        self._overdue: deque[Callable[[], object]] = deque()
        self._reactor = orGlobalReactor(reactor)
        self._calls = DeferredTracker(reactor=self._reactor)
        self._idle: list[_Thread] = []
        self._busy: set[_Thread] = set()
        self._numbers = count(1)
        self._run = CallRunner(False, reactor=self._reactor)
        self._runRaw = CallRunner(True, reactor=self._reactor)

    def call(
        self, f: str | Callable[..., object], /, *args: object, **kw: Any
    ) -> Deferred[dict[str, Any]]:
        """
        Run a method, or anything else that can be called, and describe its result as
        AsynQueue 0.9.9 does. Servers don't: what they send has no pickles.

        The keywords C{thread}, true to run it in a thread, and C{raw}, true for a
        result to be given as it is, even an iterator, don't reach it.

        @param f: The method's name, or a callable.

        @return: A Deferred that fires with a dict of C{status} and C{result}: C{b'r'}
            with what it has returned, pickled (L{o2p}); C{b'n'} for C{None}; C{b'c'}
            if the pickle is too large for a box, or C{b'i'} for an iterator, with an ID
            to give to L{getNext}; C{b'e'} with text about what was raised, or about a
            result that can't be pickled.
        """
        thread, raw = kw.pop("thread", False), kw.pop("raw", False)
        if isinstance(f, str):
            if f not in self.table:
                return succeed({"status": b"e", "result": self.unknown(f)})
            f = self.table[f]
        # In a thread, the iterator stays in its hands.
        isRaw = raw or not thread
        d: Deferred[Any] = maybeDeferred(self.run, f, args, kw, thread, isRaw)
        return self._calls.put(d.addCallback(self._described, raw))

    def getNext(self, ID: bytes) -> Deferred[dict[str, Any]]:
        """
        Get the next item of an iteration, or chunk of a result.

        @param ID: The ID that L{call} has given, or another key of L{iterators}.

        @return: A Deferred that fires with a dict of C{isValid}, whether there was one;
            C{value}, it; and C{isRaw}, whether that's C{bytes} as they are, and no
            pickle. It fails with what the iterator has raised, or with L{WorkerError}
            if there's no such iteration.
        """
        if ID not in self.iterators:
            return fail(WorkerError(f"There's no iteration {ID!r}, or it has ended"))
        iterator = self.iterators[ID]

        def got(value: object) -> dict[str, object]:
            isRaw = isinstance(value, bytes)
            value = value if isRaw else o2p(value)
            return {"value": value, "isValid": True, "isRaw": isRaw}

        def ended(failure: Failure) -> dict[str, object]:
            self.iterators.pop(ID, None)
            failure.trap(StopIteration, StopAsyncIteration)
            return {"value": b"", "isValid": False, "isRaw": True}

        isDeferator = isinstance(iterator, Deferator)
        step = iterator.__anext__ if isDeferator else iterator.__next__
        d: Deferred[object] = maybeDeferred(step)
        return d.addCallback(got).addErrback(ended)

    def shutdown(self) -> Deferred[None]:
        """
        End all iterations, and let the threads end.

        @return: A Deferred that fires with C{None} when what was given to L{call} has
            been done, and the idle threads have ended.
        """
        return Deferred.fromCoroutine(self._shutDown())

    def unknown(self, name: object) -> str:
        """Say that there's no such method, and which there are."""
        names = ", ".join(sorted(self.table)) or "none"
        return f"There's no method {name!r} to be called; there are: {names}"

    def run(
        self,
        f: Callable[..., object],
        args: Sequence[object],
        kw: dict[str, object],
        thread: bool,
        raw: bool,
        encode: _Encode | None = None,
    ) -> StatusResult | Deferred[StatusResult]:
        """
        Run something: give its status and result, or a Deferred that fires with them.
        Cancelling that stops the work, or leaves its thread alone with it.

        @param encode: Encodes a result in the thread where it has been made, and items
            as soon as they have been yielded: later, they may have been changed.
        """
        if thread:
            return self._runInThread(f, args, kw, raw, encode)
        pair = (self._runRaw if raw else self._run)((f, args, kw))
        if isinstance(pair, Deferred):
            return pair.addCallback(_iterating, encode)
        return _iterating(pair, encode)

    def whenPlaced(self, release: Callable[[], object]) -> None:
        """Call something when not too many threads are stuck."""
        if self.stuck <= self._maxStuck:
            release()
        else:
            self._overdue.append(release)

    def _runInThread(
        self,
        f: Callable[..., object],
        args: Sequence[object],
        kw: dict[str, object],
        raw: bool,
        encode: _Encode | None,
    ) -> Deferred[StatusResult]:
        thread = self._idle.pop() if self._idle else _Thread(self._freed, self._reactor)
        self._busy.add(thread)
        isCancelled = False

        def cancel(_: object) -> None:
            nonlocal isCancelled
            isCancelled = True
            self._abandon(thread, callText(f, args, kw))

        def called(pair: StatusResult) -> StatusResult:
            status, result = pair
            if status == Status.ITERATOR and isinstance(result, Deferator):
                result.addBoth(lambda _: self._release(thread))
            else:
                self._release(thread)
            if status == Status.ERROR and result.exception is not None:
                text = errorText(result.exception, callText(f, args, kw))
                pair = status, ErrorText(text, result.exception)
            return _iterating(pair, None)

        def deliver(result: StatusResult | Failure) -> None:
            if not isCancelled:
                d.callback(result)

        d: Deferred[StatusResult] = Deferred(cancel)
        call = partial(f, *args, **kw)
        inner = thread.looper.call(thread.run, call, raw, encode, raw=raw)
        inner.addCallback(called).addBoth(deliver)
        return d

    def _release(self, thread: _Thread) -> None:
        """Have a thread be there for another call."""
        if thread.running:
            # Its iteration has been ended while it's at an item.
            self._abandon(thread, "An iteration")
        elif thread in self._busy:
            self._busy.discard(thread)
            self._idle.append(thread)

    def _abandon(self, thread: _Thread, call: str) -> None:
        """Leave a thread alone with what it's at."""
        if thread not in self._busy:
            return
        self._busy.discard(thread)
        if thread.abandon():
            self.stuck += 1
            log.warn("{call} was stopped, and its thread is left alone", call=call)
        thread.looper.crash()

    def _freed(self) -> None:
        """A thread that was stuck has ended."""
        self.stuck -= 1
        if self._overdue:
            self._overdue.popleft()()

    async def _shutDown(self) -> None:
        await self._calls.deferToAll()
        iterators, self.iterators = list(self.iterators.values()), {}
        for iterator in iterators:
            if isinstance(iterator, Deferator):
                iterator.stop()
            elif hasattr(iterator, "close"):
                iterator.close()
        while self._busy:
            self._busy.pop().looper.crash()
        while self._idle:
            await self._idle.pop().looper.stop()

    def _described(self, pair: StatusResult, raw: bool) -> dict[str, object]:
        status, result = bytes(pair[0]), pair[1]
        if status == Status.ERROR:
            return {"status": status, "result": str(result)}
        if raw:
            return {"status": status, "result": result}
        if result is None:
            return {"status": bytes(Status.NONE), "result": b""}
        if status == Status.ITERATOR or isIteration(result):
            return self._kept(Status.ITERATOR, result)
        try:
            pickle = o2p(result)
        except Exception as error:  # noqa: BLE001 - what is pickled is the user's
            return {"status": bytes(Status.ERROR), "result": errorText(error, "")}
        if len(pickle) > MAX_VALUE_LENGTH:
            return self._kept(Status.CHUNKS, ChunkyString(pickle))
        return {"status": status, "result": pickle}

    def _kept(self, status: Status, iterator: object) -> dict[str, object]:
        """Keep what L{getNext} is to go through."""
        ID = str(next(self._numbers)).encode()
        self.iterators[ID] = iterator
        return {"status": bytes(status), "result": ID}


class _Thread:
    """
    A thread for one call at a time, or the iteration that has come of it. It's entered
    for each step, in the thread.
    """

    def __init__(self, freed: Callable[[], object], reactor: Any) -> None:
        self.looper = ThreadLooper(reactor=reactor)
        self._freed = freed  # called when it's free after it was abandoned
        self._reactor = reactor
        # Has one element while the thread is at a step. Taking it out is atomic, so
        # either the thread does it when the step is over, or who abandons it.
        self.running: list[None] = []

    def run(self, f: Callable[[], Any], raw: bool, encode: _Encode | None) -> object:
        with self:
            result = f()
            if not raw and isIteration(result):
                return EncodedItems(result, encode, self)
            return result if encode is None or result is None else encode(result)

    def abandon(self) -> bool:
        """Note that nobody waits for the thread, and tell whether it's at a step."""
        try:
            self.running.pop()
        except IndexError:
            return False
        return True

    def __enter__(self) -> None:
        self.running.append(None)

    def __exit__(self, *_: object) -> None:
        if not self.abandon():
            self._reactor.callFromThread(self._freed)


def _iterating(pair: StatusResult, encode: _Encode | None) -> StatusResult:
    """Have an iterator be iterated over in the reactor's thread."""
    status, result = pair
    if status != Status.ITERATOR or isinstance(result, Deferator):
        return pair
    if encode is not None:
        result = EncodedItems(result, encode, nullcontext())
    return status, Deferator(result)
