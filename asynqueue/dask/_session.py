"""
The thread that a worker has for its client of Dask's, and what goes on in its loop
there: the client's life, and what it's asked for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from queue import SimpleQueue
from typing import Any, Protocol
from uuid import uuid4

from distributed import KilledWorker
from distributed.client import FutureCancelledError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .._child.parcels import Parcel
from .._child.status import Status
from .._support.log import log
from .._support.reactor import Handover, IReactorAll
from ..errors import WorkerLost, WorkerStartError
from ._bundles import Bundle, ClusterCall
from ._connection import ClusterOptions, SchedulerConnection, quietly
from ._iterations import ClusterIteration, ClusterStream, HeldItems
from ._remote import Answer, RemoteUpdate, update, updated
from ._runner import DISCONNECTED, BundleRunner, Outcome, outcomeOf

#: Seconds that what goes on has to end by itself.
_CANCEL_SECONDS = 1.0


class SessionOwner(Protocol):
    """Is told, in the reactor's thread, what becomes of the connection."""

    def connected(self) -> None:
        """The cluster is there."""

    def lost(self, error: BaseException) -> None:
        """There's no working with it, or no longer."""


class CallOwner(Protocol):
    """Is told, in the reactor's thread, what becomes of calls."""

    def resized(self, threads: int) -> None:
        """The cluster has so many threads. It's told before it's connected, too."""

    def held(self, call: ClusterCall) -> None:
        """The large buffers of a call have been copied, so that it can be sent."""

    def begun(self, key: str) -> None:
        """A worker has begun a bundle that was to tell that."""

    def answered(self, bundle: Bundle, outcomes: list[tuple[float, Outcome]]) -> None:
        """The calls of a bundle have been made."""

    def killed(self, bundle: Bundle, error: BaseException) -> None:
        """One of the calls seems to end the processes that make it."""

    def failed(self, bundle: Bundle, error: BaseException) -> None:
        """They couldn't be made."""


class ClusterSession:
    """A client, from when it connects until it's closed."""

    # _running has a coroutine for each bundle, update and iteration, and each call
    # whose buffers are being copied. _runner is there when there's a connection.

    def __init__(
        self,
        options: ClusterOptions,
        owner: SessionOwner,
        calls: CallOwner,
        tell: Callable[[list[Callable[[], object]]], object],
    ) -> None:
        self._options = options
        self._owner = owner
        self._calls = calls
        # Has callables be called in the reactor's thread,
        self._handOver = tell
        # and what is to be handed over in this turn of the loop.
        self._told: list[Callable[[], object]] = []
        self._connection = SchedulerConnection(options)
        self._runner: Any = None
        self._running: dict[object, asyncio.Task[None]] = {}
        self._streams: dict[ClusterIteration, ClusterStream] = {}
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
        self._closing.set()

    def hold(self, call: ClusterCall) -> None:
        """Copy the large buffers of a call."""
        self._start(call, self._hold(call))

    def drop(self, call: ClusterCall) -> None:
        """Forget a call that wasn't sent, and its large buffers."""
        self.cancel(call)
        if self._runner is not None:
            self._runner.drop(call)

    def submit(self, bundles: list[Bundle]) -> None:
        """Have bundles of calls be made."""
        for bundle in bundles:
            self._start(bundle, self._submit(bundle))

    def update(self, bundle: Bundle, isLasting: bool) -> None:
        """Have a call be made by each worker, and perhaps by each that comes later."""
        self._start(bundle, self._update(bundle, isLasting))

    def iterate(self, iteration: ClusterIteration, held: HeldItems) -> None:
        """Get the items of an iteration."""
        stream = self._streams[iteration] = ClusterStream(held, iteration, self._tell)
        self._start(iteration, self._iterate(iteration, stream))

    def taken(self, iteration: ClusterIteration, count: int) -> None:
        """Note that items of it have been taken."""
        if iteration in self._streams:
            self._streams[iteration].taken(count)

    def cancel(self, what: object) -> None:
        """Have nothing more be told of any of these, and not be made, if it can be."""
        task = self._running.get(what)
        future = None if self._runner is None else self._runner.sent.get(what)
        if future is not None:
            # The coroutine ends by that. Dask's own would be left over otherwise.
            self._start(future, self._connection.client.cancel([future]))
        elif task is not None:
            task.cancel()

    def release(self, bundle: Bundle) -> None:
        """End the iterations that the calls of a bundle have led to."""
        self._runner.release(bundle)

    # The connection.

    async def _work(self) -> None:
        """Connect, and see that the cluster is there until it isn't."""
        connection, options = self._connection, self._options
        try:
            await connection.open()
            client, topic = connection.client, f"asynqueue-{uuid4().hex}"
            client.subscribe_topic(topic, self._hasBegun)
            self._runner = BundleRunner(client, options, topic)
            await self._look()
        except (OSError, asyncio.TimeoutError, ImportError) as error:
            why = str(error) or type(error).__name__
            raise WorkerStartError(f"There's no connection: {why}") from error
        self._tell(self._owner.connected)
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
            warning = partial(log.warn, worker=self._owner, text=text)
            self._tell(warning, "{worker}: versions differ: {text}")
        if connection.threads != before:
            self._tell(self._calls.resized, connection.threads)
        for iteration, stream in list(self._streams.items()):
            if stream.held.address not in connection.workers:
                lost = WorkerLost("The worker that had it is gone")
                self._tell(iteration.failed, lost)
                self.cancel(iteration)

    # Calls.

    def _hasBegun(self, event: tuple[float, str]) -> None:
        self._tell(self._calls.begun, event[1])

    async def _hold(self, call: ClusterCall) -> None:
        try:
            await self._runner.hold(call)
        except MemoryError as error:
            self._tell(self._calls.failed, Bundle([call]), error)
        else:
            self._tell(self._calls.held, call)

    async def _submit(self, bundle: Bundle) -> None:
        try:
            outcomes = await self._runner.run(bundle)
        except FutureCancelledError as error:
            if error.reason == DISCONNECTED:
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

    async def _update(self, bundle: Bundle, isLasting: bool) -> None:
        call, client = bundle.calls[0], self._connection.client
        try:
            async with self._updating:
                if isLasting:
                    answers = await self._store(call.payload)
                else:
                    answers = await client.run(update, call.payload)
            outcomes = [outcomeOf(answer, call.task) for answer in answers.values()]
        except Exception as error:  # noqa: BLE001 - Dask's are many
            self._tell(self._calls.failed, bundle, error)
            return
        # One that has failed says more than others.
        outcomes.sort(key=lambda outcome: _hasRun(outcome[1]))
        none = [(0.0, (Status.RAN, None))]  # there are no workers
        self._tell(self._calls.answered, bundle, outcomes[:1] or none)

    async def _store(self, payload: bytes | Parcel) -> dict[str, Answer]:
        """Have a call be made by all workers, and those to come."""
        data = payload if isinstance(payload, bytes) else payload.pickle
        # After the connection was lost, it replaces the one that is stored.
        name = f"asynqueue-{blake2b(data, digest_size=8).hexdigest()}"
        self._connection.updates.append(name)
        with suppress(RuntimeError):  # which the answers tell
            await self._connection.client.register_plugin(
                RemoteUpdate(name, payload), name
            )
        found: dict[str, Answer] = await self._connection.client.run(updated, name)
        return found

    async def _iterate(
        self, iteration: ClusterIteration, stream: ClusterStream
    ) -> None:
        try:
            await stream.run(self._connection.client)
        finally:
            del self._streams[iteration]

    # Others.

    def _start(self, what: object, coroutine: Coroutine[object, object, None]) -> None:
        task = self._running[what] = asyncio.create_task(coroutine)
        task.add_done_callback(lambda _: self._running.pop(what, None))

    def _tell(self, f: Callable[..., object], *args: object) -> None:
        # Together, or the two threads would take turns with each.
        if not self._told:
            asyncio.get_running_loop().call_soon(self._handOverTold)
        self._told.append(partial(f, *args))

    def _handOverTold(self) -> None:
        told, self._told = self._told, []
        self._handOver(told)


def _hasRun(outcome: Outcome) -> bool:
    return isinstance(outcome, tuple) and outcome[0] == Status.RAN


class SessionThread:
    """
    A thread with a loop of asyncio's, in which there's one session. Such a thread goes
    with any reactor.

    @ivar ended: Fires with C{None} when the thread has ended.
    """

    def __init__(
        self,
        options: ClusterOptions,
        owner: SessionOwner,
        calls: CallOwner,
        reactor: IReactorAll,
    ) -> None:
        self.ended: Deferred[None] = Deferred()
        self._owner = owner
        self._told: Handover[Callable[[], object]] = Handover(lambda f: f(), reactor)
        self._session = ClusterSession(options, owner, calls, self._told.putAll)
        found: SimpleQueue[asyncio.AbstractEventLoop | None] = SimpleQueue()
        # A daemon: where the reactor was stopped without more ado, it holds nobody up.
        self._thread = threading.Thread(
            target=self._run, args=(found,), name="asynqueue dask", daemon=True
        )
        self._thread.start()
        self._loop = found.get()

    def ask(self, method: Callable[..., object], *args: object) -> None:
        """Call a method of the session."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has just ended, and that is being told
                self._loop.call_soon_threadsafe(method, self._session, *args)

    def _run(self, found: SimpleQueue[asyncio.AbstractEventLoop | None]) -> None:
        """Run in the thread."""

        async def main() -> None:
            found.put(asyncio.get_running_loop())
            await self._session.main()

        failure: Failure | None = None
        try:
            asyncio.run(main())
        except BaseException:  # noqa: BLE001 - nobody else would hear
            failure = Failure()
        found.put(None)
        self._told.put(partial(self._over, failure))

    def _over(self, failure: Failure | None) -> None:
        # Telling so was the last that it had to do.
        self._thread.join()
        if failure is not None:
            log.failure("{worker}: its thread has failed", failure, worker=self._owner)
            self._owner.lost(failure.value or RuntimeError())
        self.ended.callback(None)
