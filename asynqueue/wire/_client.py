"""
The worker at the other end of a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from enum import Enum, auto
from typing import Any, cast

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from .._child.status import ErrorText, Status
from .._support.checks import checkCallable, checkSeconds, seriesList
from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import AuthenticationError, WorkerError, WorkerLost, WorkerStartError
from ..interfaces import ICancellingWorker, IReplaceableWorker, ITask, IWorker
from ..tasks._task import forWorker
from ._clientgate import ClientGate
from ._credentials import TLS, Key
from ._endpoints import clientEndpoint, mayPickle, requirements
from ._link import Job, Link, Stage
from ._universe import WireWorkerUniverse, classOf, namesOf
from ._values import Codec

__all__ = ["State", "WireWorker"]


class State(Enum):
    """
    The life of a worker, in order.
    """

    #: There's no connection yet, and it's being tried.
    CONNECTING = auto()

    #: There's a connection, and the other end has proved who it is.
    READY = auto()

    #: The server is about to go, and takes no more tasks.
    LEAVING = auto()

    #: The worker has been told to stop, and will when it has done what it has accepted.
    STOPPING = auto()

    #: There's no connection any longer, nor will there be.
    DEAD = auto()


@implementer(IWorker, ICancellingWorker, IReplaceableWorker)
class WireWorker:
    """
    Has methods of a universe run by a server, on this machine or another.

    Tasks name a method: C{q.call('add', 1, 2)}. The worker gets tasks of a queue once
    it's connected. When the connection is lost, it resigns; tasks that the server may
    have been running fail with L{WorkerLost}, others go to other workers.

    A keyword C{thread=True} of a call has the method be run in a thread of the server.

    @ivar cQualified: The series C{'wire'} and C{'remote'}.

    @ivar iQualified: Further series.

    @ivar raw: Whether iterators come back as they are.

    @ivar thread: Whether methods are run in threads of the server.

    @ivar capacity: How many tasks it wants to have been given.

    @ivar description: Where the server is.

    @ivar state: A L{State}.
    """

    cQualified: list[Hashable] = ["wire", "remote"]  # noqa: RUF012 - IWorker has it so

    def __init__(
        self,
        wwu: WireWorkerUniverse | type[WireWorkerUniverse],
        description: str,
        series: Iterable[Hashable] = (),
        raw: bool = False,
        thread: bool = False,
        N_concurrent: int = 1,
        *,
        key: Key | None = None,
        tls: TLS | None = None,
        pickle: bool | None = None,
        insecure: bool = False,
        reconnect: bool = False,
        heartbeat: float | None = 10.0,
        connectTimeout: float = 10.0,
        backoff: Callable[[int], float] | None = None,
        largest: int = 512 << 20,
        reactor: Any = None,
        _attempts: int = 0,
    ) -> None:
        """
        Begin to connect.

        @param wwu: The universe that the server has, an instance of it or its class.

        @param description: Where the server is: C{unix:PATH}; C{tls:HOST:PORT} with
            C{tls}; or C{tcp:HOST:PORT}, on this machine unless there's C{tls}.

        @param series: Series that it's qualified for besides those of its class.

        @param raw: C{True} for iterators to come back as they are, which needs pickles,
            and few can be pickled.

        @param thread: C{True} for methods to be run in threads of the server.

        @param N_concurrent: How many tasks the server may be running at once for this
            worker.

        @param key: A key that the server must have, too: what
            L{Key.fromFile<asynqueue.wire.Key.fromFile>} gives. By itself it's enough on
            this machine only, as it doesn't encrypt anything.

        @param tls: Certificates: what L{TLS.fromFiles<asynqueue.wire.TLS.fromFiles>}
            gives. The server must have one that's accepted.

        @param pickle: Whether pickles are sent and accepted, if the server wants them,
            too. By default, only on Unix sockets, where both ends are the same user's.

        @param insecure: C{True} for TCP without identities, on this machine only.

        @param reconnect: C{True} to connect again after a while when the connection is
            lost, and to go on trying when it can't be made.

        @param heartbeat: Seconds between signs of life. The connection is lost when
            three are missed. C{None} for none.

        @param connectTimeout: Seconds for the connection to be made.

        @param backoff: Called with how many attempts have failed; gives the seconds
            until the next. By default, that's from one second to a minute.

        @param largest: How many bytes a value may have on its way.

        @param reactor: The reactor. By default, the global one.

        @param _attempts: How often in a row it has been tried before.

        @raise TypeError: If the first argument isn't a universe, the description no
            text, C{backoff} not callable, or something else no key, or none of C{TLS}.

        @raise ValueError: If a number is out of range, the description can't be
            understood, or something doesn't go with it.

        @raise AuthenticationError: If the description needs an identity that isn't
            given.
        """
        kind = classOf(wwu)
        if isinstance(N_concurrent, bool) or not isinstance(N_concurrent, int):
            raise ValueError(f"N_concurrent must be an integer, not {N_concurrent!r}")
        if N_concurrent < 1:
            raise ValueError(f"N_concurrent must be at least 1, not {N_concurrent}")
        if heartbeat is not None:
            checkSeconds("heartbeat", heartbeat)
        checkSeconds("connectTimeout", connectTimeout)
        if backoff is not None:
            checkCallable("backoff", backoff)
        self.iQualified = seriesList(series)
        self.raw = raw
        self.thread = thread
        self.capacity = N_concurrent
        self.description = description
        self.ID: int | None = None
        self.hired = False
        self.assignments: dict[Hashable, list[Deferred[Any]]] = {}
        self.state = State.CONNECTING
        self._wwu = wwu
        self._names = namesOf(kind)
        self._options: dict[str, Any] = {
            "key": key,
            "tls": tls,
            "pickle": pickle,
            "insecure": insecure,
            "reconnect": reconnect,
            "heartbeat": heartbeat,
            "connectTimeout": connectTimeout,
            "backoff": backoff,
            "largest": largest,
        }
        self._reactor: Any = orGlobalReactor(reactor)
        self._codec = Codec(kind.allowed, mayPickle(description, pickle, tls))
        self._exceptions = tuple(kind.exceptions)
        self._reconnect = reconnect
        self._backoff = backoff or backoffPolicy()
        self._attempts = _attempts
        self._link: Link | None = None
        self._waiting: list[Job] = []
        # Updates, of which the first has been sent: the server runs at once what it
        # gets, and they're to be run in order.
        self._updates: deque[Job] = deque()
        self._connecting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._lateness: IDelayedCall | None = None
        self._failure: Failure | None = None
        self._readyWaiters: list[Deferred[None]] = []
        self._goneWaiters: list[Deferred[None]] = []
        self._resign: Callable[[], object] | None = None
        self._renew: Callable[[], object] | None = None
        self._required = requirements(
            description, False, key=key, tls=tls, insecure=insecure
        )
        self._endpoint = clientEndpoint(self._required, self._reactor)
        self._connector = self._open
        self._connectLater()

    def __repr__(self) -> str:
        """
        Name the worker by ID and server.
        """
        return f"<WireWorker {self.ID}, {self.description}, {self.state.name.lower()}>"

    def setResignator(self, callableObject: Callable[[], object]) -> None:
        """
        Implement L{IWorker.setResignator}. It's called when the connection is lost.

        @param callableObject: The callable.
        """
        self._resign = callableObject

    def deferUntilReady(self) -> Deferred[None]:
        """
        Implement L{IReplaceableWorker.deferUntilReady}.

        @return: A Deferred that fires with C{None} when the worker is connected. It
            fails with L{AuthenticationError} if one end doesn't accept the other's
            identity, and with L{WorkerStartError} if there's no connection for another
            reason.
        """
        if self.state is State.CONNECTING:
            d: Deferred[None] = Deferred()
            self._readyWaiters.append(d)
            return d
        return succeed(None) if self._failure is None else fail(self._failure)

    def run(self, task: ITask) -> Deferred[None]:
        """
        Implement L{IWorker.run}.

        @param task: The task. It fails with
            L{SerializationError<asynqueue.errors.SerializationError>} if it can't be
            sent.

        @return: A Deferred that fires with C{None} when the worker is ready for another
            task.
        """
        if self.state is State.DEAD:
            task.callback((Status.DISCONNECTED, None))
            return succeed(None)
        f, args, kw, raw, consumer = forWorker(task.callTuple, self.raw)
        thread = self.thread
        if "thread" in kw:
            kw = dict(kw)
            thread = kw.pop("thread")
        if not isinstance(f, str) or f not in self._names:
            error = self._unknown(f)
            task.callback((Status.ERROR, ErrorText(str(error), error)))
            return succeed(None)
        job = Job(task, f, args, kw, bool(thread), bool(raw), consumer)
        if self._link is None:
            self._waiting.append(job)
        else:
            self._submit(job, self._link)
        return job.done

    def stop(self) -> Deferred[None]:
        """
        Implement L{IWorker.stop}. Iterations that go on are waited for, too.

        @return: A Deferred that fires with C{None} when the connection has ended.
        """
        if self.state is State.DEAD:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._goneWaiters.append(d)
        if self.state is State.CONNECTING:
            self._giveUp(WorkerStartError(f"{self!r} was stopped before"))
        elif self.state is not State.STOPPING:
            self.state = State.STOPPING
            self._maybeStop()
        return d

    def crash(self) -> list[ITask]:
        """
        Implement L{IWorker.crash}: end the connection.

        @return: The tasks that have no result.
        """
        link = self._link
        waiting, self._waiting = [*self._waiting, *self._unsentUpdates()], []
        tasks = [job.task for job in waiting]
        if self.state is State.CONNECTING:
            self._giveUp(WorkerStartError(f"{self!r} was crashed before"))
        elif link is not None:
            jobs, link.jobs = list(link.jobs.values()), {}
            for job in jobs:
                job.stage = Stage.OVER
                iteration = job.iteration
                task = job.task if iteration is None else iteration.release()
                if task is not None:
                    tasks.append(task)
                elif iteration is not None:
                    iteration.lose(Failure(self._lost(job.task, "It was crashed")))
                if not job.done.called:
                    job.done.callback(None)
            if self.state is not State.DEAD:
                self.state = State.STOPPING
                link.abort()
        return tasks

    def cancelTask(self, task: ITask) -> None:
        """
        Implement L{ICancellingWorker.cancelTask}: the server stops the work on it.

        @param task: The task.
        """
        for job in self._waiting:
            if job.task is task:
                self._waiting.remove(job)
                job.done.callback(None)
                return
        for job in list(self._updates)[1:]:
            if job.task is task:
                self._updates.remove(job)
                job.done.callback(None)
                return
        if self._link is not None:
            self._link.drop(task)

    def deferUntilGone(self) -> Deferred[None]:
        """
        Implement L{IReplaceableWorker.deferUntilGone
        <asynqueue.interfaces.IReplaceableWorker.deferUntilGone>}.

        @return: A Deferred that fires with C{None} when the connection has ended.
        """
        if self.state is State.DEAD:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._goneWaiters.append(d)
        return d

    def replacement(self) -> WireWorker | None:
        """
        Implement L{IReplaceableWorker.replacement
        <asynqueue.interfaces.IReplaceableWorker.replacement>}.

        @return: A worker like this one, which connects after a while. C{None} without
            C{reconnect=True}.
        """
        return self._another(max(1, self._attempts)) if self._reconnect else None

    def retryReplacement(self) -> WireWorker:
        """
        Implement L{IReplaceableWorker.retryReplacement}.

        @return: A worker like this one.
        """
        return self._another(self._attempts)

    def setRecycler(self, callableObject: Callable[[], object]) -> None:
        """
        It's called when the server is about to go.

        @param callableObject: The callable.
        """
        self._renew = callableObject

    def updatesApplied(self, text: str | None) -> None:
        """
        The worker works all the same if an
        update has failed.

        @param text: Of no interest.
        """

    def linked(self, link: Link) -> None:
        """
        Implement L{LinkOwner.linked<asynqueue.wire._link.LinkOwner.linked>}.

        @param link: The connection.
        """
        if self.state is not State.CONNECTING:
            link.abort()
            return
        self._link = link
        self._attempts = 0
        self._cancelTimers()
        self.state = State.READY
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._submit(job, link)
        self._fireReady()

    def serverLeaves(self) -> None:
        """
        Implement L{LinkOwner.serverLeaves
        <asynqueue.wire._link.LinkOwner.serverLeaves>}.
        """
        if self.state is not State.READY:
            return
        self.state = State.LEAVING
        if self._renew is not None and self.hired:
            self._renew()
        else:
            self.state = State.STOPPING
            self._maybeStop()

    def jobOver(self) -> None:
        """
        Implement L{LinkOwner.jobOver<asynqueue.wire._link.LinkOwner.jobOver>}.
        """
        if self.state is State.STOPPING:
            self._maybeStop()

    def unlinked(self, link: Link, reason: BaseException) -> None:
        """
        Implement L{LinkOwner.unlinked<asynqueue.wire._link.LinkOwner.unlinked>}.

        @param link: The connection.

        @param reason: Why it has ended.
        """
        if link is not self._link:
            return
        state, self.state = self.state, State.DEAD
        why = str(reason) or type(reason).__name__
        perhaps = [
            job
            for job in link.jobs.values()
            if job.stage in (Stage.SENT, Stage.ARRIVING, Stage.ITERATING)
        ]
        for job in perhaps:
            del link.jobs[job.ID]
        unsent = self._unsentUpdates()
        if state in (State.READY, State.LEAVING) or link.jobs:
            log.warn("{worker} is lost: {why}", worker=self, why=why)
            if self._resign is not None:
                # First of all, so that a call that is made because of the failures
                # isn't given to this worker.
                self._resign()
        for job in perhaps:
            job.stage = Stage.OVER
            failure = Failure(self._lost(job.task, why))
            if job.iteration is not None:
                job.iteration.lose(failure)
            else:
                job.task.errback(failure)
        for job in [*perhaps, *link.jobs.values(), *unsent]:
            job.task.callback((Status.DISCONNECTED, None))
            if not job.done.called:
                job.done.callback(None)
        self._fireGone()

    def _submit(self, job: Job, link: Link) -> None:
        """
        Have a job be sent, an update when those before it have been run.

        @param job: The job.

        @param link: The connection.
        """
        if not getattr(job.task, "direct", False):
            link.submit(job)
            return
        self._updates.append(job)
        job.done.addCallback(self._updated, job)
        if len(self._updates) == 1:
            link.submit(job)

    def _updated(self, _: None, job: Job) -> None:
        """
        Send the next update, if the first has been run.

        @param _: Nothing.

        @param job: The update that has been run, or won't be.
        """
        if self._updates and self._updates[0] is job:
            self._updates.popleft()
            if self._updates and self._link is not None:
                self._link.submit(self._updates[0])

    def _unsentUpdates(self) -> list[Job]:
        """
        Get the updates that haven't been sent, and forget them.

        @return: They.
        """
        unsent = list(self._updates)[1:]
        self._updates.clear()
        return unsent

    def _another(self, attempts: int) -> WireWorker:
        """
        Make a worker like this one.

        @param attempts: How often in a row it has been tried to connect.

        @return: The worker.
        """
        return self.__class__(
            self._wwu,
            self.description,
            self.iQualified,
            self.raw,
            self.thread,
            self.capacity,
            reactor=self._reactor,
            _attempts=attempts,
            **self._options,
        )

    def _unknown(self, f: object) -> Exception:
        """
        Make the error of a call of what isn't served.

        @param f: What was to be called.

        @return: The error.
        """
        names = ", ".join(sorted(self._names)) or "none"
        return WorkerError(
            f"Remote workers call methods by name, and there's no method {f!r} in"
            f" {classOf(self._wwu).__name__}; there are: {names}"
        )

    def _makeLink(self) -> Link:
        """
        Make the client's end of a connection.

        @return: It.
        """
        return Link(
            self,
            self._codec,
            self._exceptions,
            self._options["largest"],
            self._options["heartbeat"],
            self._inThread,
            self._reactor,
        )

    def _inThread(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """
        Call something in a thread.

        @param f: The callable.

        @param args: Its arguments.

        @return: A Deferred that fires with what it returns.
        """
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, f, *args)

    def _connectLater(self) -> None:
        """
        Connect, after a while if it has been tried before.
        """
        delay = self._backoff(self._attempts) if self._attempts else 0
        self._timer = self._reactor.callLater(delay, self._connect)

    def _connect(self) -> None:
        """
        Try to connect.
        """
        self._timer = None
        self._attempts += 1
        d = self._connecting = self._connector()
        self._lateness = self._reactor.callLater(
            self._options["connectTimeout"], d.cancel
        )
        d.addCallbacks(lambda _: None, self._failed)

    def _open(self) -> Deferred[None]:
        """
        Open a connection, and fire when both ends have proved who they are.
        """
        factory: Any = Factory.forProtocol(
            lambda: ClientGate(self._makeLink, self._required, self._codec.pickles)
        )
        factory.noisy = False
        d: Deferred[Any] = self._endpoint.connect(factory)
        return d.addCallback(lambda gate: gate.opened)

    def _failed(self, failure: Failure) -> None:
        """
        Note that an attempt to connect has failed.

        @param failure: How.
        """
        self._connecting = None
        self._cancelTimers()
        if self.state is not State.CONNECTING:
            return
        if failure.check(AuthenticationError):
            self._giveUp(cast(Exception, failure.value))
            return
        if failure.check(CancelledError):
            limit = self._options["connectTimeout"]
            why = f"there was no answer within {limit:g} seconds"
        else:
            why = failure.getErrorMessage() or type(failure.value).__name__
        if self._reconnect:
            log.info(
                "{worker} can't connect, and tries again: {why}", worker=self, why=why
            )
            self._connectLater()
            return
        error = WorkerStartError(f"{self!r} can't connect: {why}")
        error.__cause__ = failure.value
        self._giveUp(error)

    def _giveUp(self, error: BaseException) -> None:
        """
        Don't try to connect any longer.

        @param error: Why.
        """
        self.state = State.DEAD
        self._failure = Failure(error)
        self._cancelTimers()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            job.task.errback(self._failure)
            job.done.callback(None)
        self._fireReady()
        self._fireGone()

    def _cancelTimers(self) -> None:
        """
        Cancel what is to be called later because there's no connection.
        """
        timers = (self._timer, self._lateness)
        self._timer = self._lateness = None
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()

    def _fireReady(self) -> None:
        """
        Tell those who wait for the connection that there's one, or none.
        """
        waiters, self._readyWaiters = self._readyWaiters, []
        for d in waiters:
            if self._failure is None:
                d.callback(None)
            else:
                d.errback(self._failure)

    def _fireGone(self) -> None:
        """
        Tell those who wait for the worker to be gone that it is.
        """
        waiters, self._goneWaiters = self._goneWaiters, []
        for d in waiters:
            d.callback(None)

    def _maybeStop(self) -> None:
        """
        End the connection if there's nothing left to do.
        """
        link = self._link
        if self.state is not State.STOPPING or link is None:
            return
        if not link.jobs and not self._updates:
            link.close()

    def _lost(self, task: ITask, why: str) -> WorkerLost:
        """
        Make the error of a task whose worker was lost.

        @param task: The task.

        @param why: Why the connection has ended.

        @return: The error.
        """
        return WorkerLost(
            f"Worker {self.ID} was lost while {self.description} may have been running"
            f" {task!r}: {why}",
            workerID=self.ID,
            task=task,
        )
