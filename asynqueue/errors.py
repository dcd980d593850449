"""
Exceptions of the package, all but one below L{AsynQueueError}.

They are in a module of their own, at the bottom of the package, so that every
other module can raise them.
"""

from __future__ import annotations

import builtins

from zope.interface import Invalid

__all__ = [
    "AsynQueueError",
    "AuthenticationError",
    "ImplementationError",
    "InvariantError",
    "NotReadyError",
    "ProcessError",
    "QueueFull",
    "QueueRunError",
    "QueueStopped",
    "RemoteTraceback",
    "SerializationError",
    "ThreadError",
    "TimeoutError",
    "WorkerError",
    "WorkerLost",
    "WorkerStartError",
]


class AsynQueueError(Exception):
    """The root of all errors of this package: catch it to catch them all."""


class QueueRunError(AsynQueueError):
    """
    A call was made on a queue that isn't running.

    Raised at the call itself. Make the call before the queue's C{shutdown}, or
    make a new queue: a queue that has been shut down isn't started again.
    """


class QueueStopped(QueueRunError):
    """
    The queue was shut down before the task could run.

    The Deferred of a call that was still queued fails with it. The task has
    certainly not been started. Use C{shutdown(drain=True)} to run what is queued.
    """


class QueueFull(QueueRunError):
    """
    As many tasks are queued as C{maxQueued} allows.

    Raised at the call itself. Wait for the Deferred of C{ready()} and call again.
    """


class ImplementationError(AsynQueueError):
    """
    An object doesn't provide the interface that it needs for its purpose.

    Raised where a worker is hired that doesn't provide
    L{IWorker<asynqueue.interfaces.IWorker>}, or a consumer is given that doesn't
    provide L{IConsumer<twisted.internet.interfaces.IConsumer>}. Mostly a decorator
    C{@implementer(...)} is missing from its class.
    """


class NotReadyError(ImplementationError):
    """
    The next item of an iteration was asked for before the last one had arrived.

    Wait for each Deferred that a
    L{Deferator<asynqueue.iteration.Deferator>} yields before asking for the next.
    """


class InvariantError(Invalid):
    """
    A worker lacks an attribute of
    L{IWorker<asynqueue.interfaces.IWorker>}, or it has the wrong type.

    Raised when the worker is hired. As in zope.interface all failed invariants
    are of class C{Invalid}, this one isn't an L{AsynQueueError}.
    """


class TimeoutError(AsynQueueError, builtins.TimeoutError):  # noqa: A001 - the API's name
    """
    A task ran longer than its C{timeout} allowed, in all its attempts.

    The Deferred of the call fails with it. The work has been stopped where the
    kind of worker allows that; a thread can't be stopped and is abandoned.
    """


class WorkerError(AsynQueueError):
    """
    A task failed, and only text about its failure is known; or its worker failed.

    The Deferred of the call fails with it under the policy I{wrap}
    (C{returnFailure=True}), for workers that report plain text, and for exceptions
    that can't be brought over from where the task ran. If the exception itself is
    at hand, it's the C{__cause__}.
    """


class SerializationError(WorkerError):
    """
    A call, or what it returned, can't be pickled.

    The Deferred of the call fails with it at once; nothing was sent. The message
    names the part that is to blame. Functions must be importable by name in the
    child; the extra C{asynqueue[cloudpickle]} lifts that for lambdas and closures.
    """


class ThreadError(AsynQueueError):
    """
    A call in a thread failed, or the thread can't take it.

    The Deferred of the call fails with it; the exception is the C{__cause__}.
    """


class ProcessError(AsynQueueError):
    """A child process can't be reached, or isn't what it should be."""


class WorkerStartError(ProcessError):
    """
    A worker's child process could not be started, or ended before it was ready.

    The message has what the system or the child's error output said. Look at the
    C{initializer}, the environment, and the stored updates of the queue.
    """


class WorkerLost(ProcessError):
    """
    A worker went away while it may have been running a task.

    The Deferred of that call fails with it; the task may have had its effects, or
    some of them. Give the call C{retries} if it may safely be run again.

    @ivar workerID: The ID of the worker, or C{None} if it had none.

    @ivar pid: The process ID of the child, or C{None}.

    @ivar exitCode: The exit code of the child, C{None} if there isn't one.

    @ivar signal: The number of the signal that ended the child, C{None} if it
        wasn't one.

    @ivar task: The task, or C{None}.
    """

    def __init__(
        self,
        message: str,
        *,
        workerID: int | None = None,
        pid: int | None = None,
        exitCode: int | None = None,
        signal: int | None = None,
        task: object = None,
    ) -> None:
        super().__init__(message)
        self.workerID = workerID
        self.pid = pid
        self.exitCode = exitCode
        self.signal = signal
        self.task = task


class AuthenticationError(AsynQueueError):
    """
    One end of a connection doesn't accept the identity of the other.

    A L{WireWorker<asynqueue.wire.WireWorker>} or
    L{WireServer<asynqueue.wire.WireServer>} that is to connect or listen where others
    could, without key or certificates, raises it when it's made; so do files with
    secrets that others may read when they're read. The message says what helps. A
    worker fails with it when one end doesn't accept what the other has proved: have
    both use keys or certificates that go together.
    """


class RemoteTraceback(AsynQueueError):
    """
    The traceback of an exception, as text, from where its task ran.

    Never raised: it's the C{__cause__} of an exception that came from elsewhere, so
    that the usual tools show it. What was the cause there is its own C{__cause__}.
    """

    def __str__(self) -> str:
        """The remote traceback on lines of its own."""
        return f"\n{self.args[0]}" if self.args else ""
