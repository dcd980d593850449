"""What a worker has accepted: calls without a result, and iterations that go on."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ..errors import WorkerError, WorkerLost
from ..interfaces import ITask
from ._bundles import Bundle, CallQueue, ClusterCall
from ._iterations import ClusterIteration, HeldItems
from ._runner import Outcome
from ._session import ClusterSession


class Accepted:
    """
    The tasks that a worker has accepted, from when they're accepted until nothing more
    comes of them.
    """

    # _calls has a call for each task that has no result, in the order in which they
    # were accepted. When it's open, those that wait or were sent are in the queue, too;
    # not updates, nor those whose buffers are being copied. _iterations has the bundle
    # by which each iterator has come. Its first task has a result when the first item
    # has come.

    def __init__(
        self,
        seconds: float,
        ask: Callable[..., object],
        finished: Callable[[], object],
        lostError: Callable[[ITask, str], WorkerLost],
        reactor: IReactorTime,
    ) -> None:
        """
        C{ask} calls a method of the session's with arguments, C{finished} is called
        when nothing more comes of a task, and C{lostError} makes the error of one that
        may have been run. See L{CallQueue} for the seconds.
        """
        self.queue = CallQueue(seconds)
        # Whether any calls may be sent.
        self._isOpen = False
        self._calls: dict[ITask, ClusterCall] = {}
        self._iterations: dict[ClusterIteration, Bundle] = {}
        self._filling: IDelayedCall | None = None
        self._ask = ask
        self._finished = finished
        self._lostError = lostError
        self._reactor = reactor

    @property
    def tasks(self) -> list[ITask]:
        """Those that have no result."""
        return list(self._calls)

    @property
    def sent(self) -> list[ClusterCall]:
        """The calls that were sent and have no result."""
        return [call for call in self._calls.values() if call.bundle is not None]

    @property
    def isIterating(self) -> bool:
        return bool(self._iterations)

    @property
    def isEmpty(self) -> bool:
        return not (self._calls or self._iterations)

    def add(self, call: ClusterCall) -> None:
        """Accept a call, and have it be sent when it's its turn."""
        self._calls[call.task] = call
        if call.task.timeout is not None:
            call.task.stopTimer()
        if self._isOpen:
            self._send(call)

    def open(self) -> None:
        """Begin to send: there's a connection."""
        self._isOpen = True
        for call in self._calls.values():
            self._send(call)

    def drop(self, task: ITask) -> None:
        """Forget a task whose result nobody wants."""
        call = self._calls.pop(task, None)
        if call is None:
            for iteration in list(self._iterations):
                if iteration.task is task and iteration.release() is task:
                    iteration.finish()
            return
        call.isDropped = True
        bundle = call.bundle
        if bundle is None:
            self._ask(ClusterSession.drop, call)
        elif not bundle.isWanted:
            self._ask(ClusterSession.cancel, bundle)
            self._over(bundle)
        call.fireReady()
        self._finished()

    def lose(self, why: str, resign: Callable[[], object]) -> None:
        """Fail what may have been run."""
        iterations, sent = list(self._iterations), self.sent
        self._iterations.clear()
        for call in sent:
            del self._calls[call.task]
            call.isDropped = True
        # First of all, so that a call that is made because of the failures isn't given
        # to the same worker.
        resign()
        for call in sent:
            call.task.errback(Failure(self._lostError(call.task, why)))
            call.fireReady()
        for iteration in iterations:
            iteration.failed(self._lostError(iteration.task, why))

    def takeCalls(self) -> list[ClusterCall]:
        """Take out all calls without a result."""
        calls = list(self._calls.values())
        self._calls.clear()
        self.queue.clear()
        for call in calls:
            call.isDropped = True
        return calls

    def releaseIterations(self, why: str) -> list[ITask]:
        """End all iterations. The tasks that have no result yet are given back."""
        iterations = list(self._iterations)
        self._iterations.clear()
        tasks = [iteration.release() for iteration in iterations]
        for iteration in iterations:
            iteration.failed(self._lostError(iteration.task, why))
        return [task for task in tasks if task is not None]

    def close(self) -> None:
        """Send nothing any longer."""
        self._isOpen = False
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.cancel()

    # What the session tells.

    def resized(self, threads: int) -> None:
        self.queue.threads = threads
        self._fillLater()

    def held(self, call: ClusterCall) -> None:
        if call.isDropped:
            return
        if call.task.direct:
            call.bundle = Bundle([call])
            self._ask(ClusterSession.update, call.bundle, call.task.isLasting)
        else:
            self.queue.put(call)
            self._fillLater()

    def begun(self, key: str) -> None:
        bundle = self.queue.bundles.get(key)
        if bundle is not None and bundle.isWanted:
            bundle.calls[0].task.startTimer()

    def answered(self, bundle: Bundle, outcomes: list[tuple[float, Outcome]]) -> None:
        self._over(bundle)
        for call, (seconds, outcome) in zip(bundle.calls, outcomes, strict=True):
            self.queue.note(call.name, seconds)
            if self._calls.pop(call.task, None) is None:
                continue
            if call.task.watch is not None:
                call.task.watch.seconds = seconds
            if type(outcome) is HeldItems:
                self._iterate(call, bundle, outcome)
            elif isinstance(outcome, Failure):
                call.task.errback(outcome)
            else:
                call.task.callback(outcome)
            call.fireReady()
        if any(type(outcome) is HeldItems for _, outcome in outcomes):
            self._releaseUnused(bundle)
        self._finished()

    def killed(self, bundle: Bundle, error: BaseException) -> None:
        if len(bundle.calls) == 1:
            text = f"{bundle.calls[0].task!r} has ended each process that ran it"
            self.failed(bundle, WorkerError(f"{text}: {error}"))
            return
        # One of them is to blame, and must not take others along again.
        self._over(bundle)
        for call in bundle.calls:
            if not call.isDropped:
                call.isAlone, call.bundle = True, None
                self.queue.put(call)

    def failed(self, bundle: Bundle, error: BaseException) -> None:
        self._over(bundle)
        for call in bundle.calls:
            if self._calls.pop(call.task, None) is not None:
                call.task.errback(Failure(self._errorOf(call.task, error)))
                call.fireReady()
        self._finished()

    # Calls.

    def _send(self, call: ClusterCall) -> None:
        if call.isLarge:
            self._ask(ClusterSession.hold, call)
        else:
            self.held(call)

    def _fillLater(self) -> None:
        """Send what may be sent, when all has come that comes now."""
        if self._filling is None and self._isOpen:
            self._filling = self._reactor.callLater(0, self._fill)

    def _over(self, bundle: Bundle) -> None:
        """Make room for another bundle."""
        self.queue.bundles.pop(bundle.key, None)
        self._fillLater()

    def _errorOf(self, task: ITask, error: BaseException) -> BaseException:
        if isinstance(error, WorkerLost):
            return self._lostError(task, str(error))
        if isinstance(error, WorkerError):
            return error
        failed = WorkerError(f"Dask can't run {task!r}: {error}")
        failed.__cause__ = error
        return failed

    def _fill(self) -> None:
        self._filling = None
        bundles = list(iter(self.queue.take, None))
        if bundles:
            # Together, or the two threads would take turns with each.
            self._ask(ClusterSession.submit, bundles)

    # Iterations.

    def _iterate(self, call: ClusterCall, bundle: Bundle, held: HeldItems) -> None:
        """Take the items of an iterator that a call has returned."""
        iteration = ClusterIteration(
            call.task,
            lambda it, count: self._ask(ClusterSession.taken, it, count),
            self._iterationEnded,
        )
        self._iterations[iteration] = bundle
        if call.consumer is not None:
            iteration.feed(call.consumer)
        if iteration in self._iterations:
            self._ask(ClusterSession.iterate, iteration, held)

    def _iterationEnded(self, iteration: ClusterIteration) -> None:
        bundle = self._iterations.pop(iteration, None)
        if bundle is not None:
            self._ask(ClusterSession.cancel, iteration)
            self._releaseUnused(bundle)
            self._finished()

    def _releaseUnused(self, bundle: Bundle) -> None:
        """Have the cluster forget iterators if nobody wants more of them."""
        if bundle not in self._iterations.values():
            self._ask(ClusterSession.release, bundle)
