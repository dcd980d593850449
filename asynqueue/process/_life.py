"""The life of a worker's child process."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from .._child.mainmodule import checkNotImporting, isImporting
from .._child.protocol import Kind
from .._support.awaitable import OneShot
from .._support.childprocess import ExitStatus, interpreterCommand
from .._support.reactor import hasGlobalReactor, orGlobalReactor
from ..errors import WorkerStartError
from ._options import ChildOptions, RestartPolicy
from ._transport import IReactorChild, Transport

#: Seconds that a call or an iteration has to end after an exception was raised in it,
#: and between attempts: one may come when nothing may be raised.
_GRACE_SECONDS = 0.5
_REPEAT_SECONDS = 0.05
#: Modules of reactors that children may have. Others are those of a GUI.
_REACTORS = {
    f"twisted.internet.{kind}reactor"
    for kind in ("asyncio", "epoll", "kq", "poll", "select")
}


class ChildState(Enum):
    """The life of a worker, in order."""

    #: There's no word from the child yet. What is sent to it, it hasn't run.
    STARTING = auto()
    #: The child is there.
    READY = auto()
    #: The worker has been told to stop, and will when it has done what it has accepted.
    STOPPING = auto()
    #: The worker takes no tasks any longer, but its child has not ended yet.
    DYING = auto()
    #: The child has ended.
    DEAD = auto()


#: States in which no task is taken.
OVER = (ChildState.DYING, ChildState.DEAD)


@define(eq=False, repr=False)
class ChildLife:
    """A child process from before its start until nothing is left of it."""

    # The child's start has begun when it _hasBegun: the transport is there, _startCall
    # is going to start it, or the reactor will when it runs. _timer limits the time
    # until the child is ready. It has succeeded when it's _isGreeted and _isUpToDate.

    _options: ChildOptions
    _policy: RestartPolicy
    _givenReactor: IReactorChild | None
    _useReactor: bool = field(kw_only=True)
    _started: Callable[[Transport], object] = field(kw_only=True)
    _received: Callable[[], object] = field(kw_only=True)
    _unsent: Callable[[int, Exception], object] = field(kw_only=True)
    _ended: Callable[[ChildState, ExitStatus], object] = field(kw_only=True)
    state: ChildState = field(default=ChildState.STARTING, init=False)
    transport: Transport | None = field(default=None, init=False)
    status: ExitStatus | None = field(default=None, init=False)
    pid: int | None = field(default=None, init=False)
    failure: str | None = field(default=None, init=False)
    gone: OneShot[None] = field(factory=OneShot, init=False)
    _startCall: IDelayedCall | None = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _hasBegun: bool = field(default=False, init=False)
    _isGreeted: bool = field(default=False, init=False)
    _isUpToDate: bool = field(default=False, init=False)

    @property
    def reactor(self) -> IReactorChild:
        """The reactor. One is installed if there's none yet."""
        return orGlobalReactor(self._givenReactor)

    def start(self, *, isReplacement: bool) -> None:
        """
        Start the child if there's a reactor, after a while if others have failed to
        start. That a replacement can't be started is told like the end of any child, as
        nobody would hear an exception.
        """
        interpreterCommand()  # it's said now if there's none
        if self._policy.delay:
            self._hasBegun = True
            self._startCall = self.reactor.callLater(self._policy.delay, self._startNow)
        elif (self._givenReactor or hasGlobalReactor()) and not isImporting():
            self.ensureStarted(isReplacement=isReplacement)

    def ensureStarted(self, *, isReplacement: bool = True) -> None:
        """
        Start the child, if that hasn't begun, when the reactor runs: the process that
        has made the worker may not be the one in which it does.
        """
        if self._hasBegun:
            return
        checkNotImporting("A child process was to be started")
        self._hasBegun = True
        if not self.reactor.running:
            self.reactor.callWhenRunning(self._startNow)
            return
        try:
            self._start()
        except OSError as error:
            if not isReplacement:
                raise WorkerStartError(
                    f"A child process can't be started: {error}"
                ) from error
            # There's nobody yet to resign to.
            self._startCall = self.reactor.callLater(0, self._startNow)

    def greeted(self) -> None:
        self._isGreeted = True
        _cancel(self._timer)
        self._maybeSucceeded()
        if self.state is ChildState.STARTING:
            self.state = ChildState.READY

    def updatesApplied(self, text: str | None) -> bool:
        """Note how the stored updates went, and tell if the child is of no use."""
        if self._isUpToDate or self.state in OVER:
            return False
        if text is None:
            self._isUpToDate = True
            self._maybeSucceeded()
            return False
        self.failure = f"a stored update failed in it: {text}"
        self._policy.failed(None)
        return True

    def end(self, *, kill: bool) -> None:
        if self.state is ChildState.DEAD:
            return
        self.state = ChildState.DYING
        if self.transport is None:
            # It hasn't been started yet.
            self._childEnded(ExitStatus())
        elif kill:
            self.transport.kill()
        else:
            self.transport.terminate()

    def send(self, kind: int, number: int, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.sender.send(kind, number, payload)

    def stop(self) -> None:
        """Have the child end by itself when it has done what was sent."""
        if self.transport is not None:
            self.send(Kind.STOP, 0, b"")
        else:
            self.end(kill=True)

    def _start(self) -> None:
        setup = self._options.setup()
        options: tuple[str, ...] = ()
        if self._useReactor:
            name = type(self.reactor).__module__
            options = (name if name in _REACTORS else "twisted.internet.default",)
        transport = Transport(
            self._received,
            self._unsent,
            self._childEnded,
            options=options,
            env=self._options.env,
            reactor=self.reactor,
        )
        self.transport = transport
        self.pid = transport.pid
        transport.gone.wait().addCallback(self.gone.fire)
        transport.sender.send(Kind.SETUP, 0, setup)
        if self._options.startTimeout is not None:
            self._timer = self.reactor.callLater(
                self._options.startTimeout, self._startTimedOut
            )
        self._started(transport)

    def _startNow(self) -> None:
        self._startCall = None
        if self.state is ChildState.DEAD:
            return  # it has been stopped before it was time
        try:
            self._start()
        except (OSError, WorkerStartError) as error:
            self.failure = f"it could not be started: {error}"
            self._childEnded(ExitStatus())

    def _startTimedOut(self) -> None:
        self._timer = None
        self.failure = f"it wasn't ready within {self._options.startTimeout} seconds"
        if self.transport is not None:
            self.transport.kill()

    def _maybeSucceeded(self) -> None:
        if self._isGreeted and self._isUpToDate:
            self._policy.succeeded()

    def _childEnded(self, status: ExitStatus) -> None:
        before, self.state = self.state, ChildState.DEAD
        self.status = status
        _cancel(self._timer, self._startCall)
        hasStarted = self._isGreeted and self._isUpToDate
        if before is not ChildState.DYING and not hasStarted:
            self._policy.failed(None if self.failure else status.signal)
        self._ended(before, status)
        if self.transport is None:
            self.gone.fire(None)


class Interruption:
    """
    An exception that is raised in a call or an iteration, again and again until that is
    over, or it's given up.
    """

    def __init__(
        self,
        life: ChildLife,
        number: int,
        giveUp: Callable[[], object],
        *,
        delay: float = 0.0,
    ) -> None:
        self._life = life
        self._number = number
        self._giveUp = giveUp
        self._deadline = life.reactor.seconds() + delay + _GRACE_SECONDS
        self._timer: IDelayedCall | None = None
        if delay:
            self._timer = life.reactor.callLater(delay, self._attempt)
        else:
            self._attempt()

    def over(self) -> None:
        _cancel(self._timer)

    def _attempt(self) -> None:
        reactor, transport = self._life.reactor, self._life.transport
        if reactor.seconds() >= self._deadline:
            self._giveUp()
            return
        if transport is not None:
            transport.interrupt(self._number)
        self._timer = reactor.callLater(_REPEAT_SECONDS, self._attempt)


class ChildHandle:
    """The child process as users see it."""

    def __init__(self, life: ChildLife) -> None:
        self._life = life

    @property
    def pid(self) -> int | None:
        """The process ID, also after the end; C{None} if it wasn't started."""
        return self._life.pid

    @property
    def exitcode(self) -> int | None:
        """
        The exit code, the number of a signal that has ended it as a negative number,
        C{None} while it's running.
        """
        status = self._life.status
        if status is None:
            return None
        return status.exitCode if status.signal is None else -status.signal

    def is_alive(self) -> bool:
        """Tell whether the process is running."""
        transport = self._life.transport
        return transport is not None and transport.pid is not None

    def terminate(self) -> None:
        """End the process. The worker is lost."""
        if self._life.transport is not None:
            self._life.transport.terminate()

    def kill(self) -> None:
        """Kill the process. The worker is lost."""
        if self._life.transport is not None:
            self._life.transport.kill()


def _cancel(*calls: IDelayedCall | None) -> None:
    for call in calls:
        if call is not None and call.active():
            call.cancel()
