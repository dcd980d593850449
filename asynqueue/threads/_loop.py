"""
One thread, what it's given to do, and the way of its results to the reactor.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

__all__ = ["Job", "Loop", "Message", "Outbox", "ThreadSystem", "realThreads"]

#: Seconds for which results are handed over at a stretch before the reactor gets its
#: turn.
_STRETCH = 0.004

#: After so many results the time is looked at.
_GLANCE = 16

#: Seconds that a thread may need to end after it has said that it does. It's at the end
#: of its code then.
_LAST_SECONDS = 1.0


class Message(Protocol):
    """
    What a thread has for the reactor.
    """

    def deliver(self) -> None:
        """
        Do what is to be done with it, in the reactor's thread.
        """


class Job(Message, Protocol):
    """
    Something to be done in a thread, and to be delivered to the reactor afterwards.
    """

    def work(self) -> None:
        """
        Do it, in the thread. Never raises anything.
        """


class IReactorThreaded(IReactorFromThreads, IReactorTime):
    """
    What is asked of a reactor here.
    """


class ThreadSystem:
    """
    Where threads and the queues that feed them come from. Tests have one of their own.
    """

    def newQueue(self) -> SimpleQueue[Any]:
        """
        Make a queue.

        @return: The queue.
        """
        return SimpleQueue()

    def start(self, target: Callable[[], object], name: str) -> Callable[[], object]:
        """
        Start a thread. It never keeps the interpreter from ending.

        @param target: What it does.

        @param name: What it's called.

        @return: A callable that waits until a thread has ended that is about to.

        @raise RuntimeError: If the system allows no more threads.
        """
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return lambda: thread.join(_LAST_SECONDS)


#: The threads of this interpreter.
realThreads = ThreadSystem()


class Outbox:
    """
    Messages of threads on their way to the reactor, which is woken up once for all
    that come together.

    Guarantees: each message is delivered once, after those posted before by the same
    thread. The flag is lowered before messages are taken, and looked at after one has
    been put in, so none is ever left behind.
    """

    def __init__(self, reactor: IReactorThreaded) -> None:
        """
        Make an outbox.

        @param reactor: The reactor.
        """
        self._messages: deque[Message] = deque()
        self._woken = False
        self._reactor = reactor
        self._callFromThread = reactor.callFromThread

    def post(self, message: Message) -> None:
        """
        Have a message delivered. Called in threads.

        @param message: The message.
        """
        self._messages.append(message)
        if not self._woken:
            self._woken = True
            self._callFromThread(self._deliver)

    def _deliver(self) -> None:
        """
        Deliver what there is, in the reactor's thread.
        """
        self._woken = False
        messages = self._messages
        count, end = 0, 0.0
        while messages:
            messages.popleft().deliver()
            count += 1
            if count % _GLANCE == 0:
                now = self._reactor.seconds()
                if not end:
                    end = now + _STRETCH
                elif now >= end:
                    self._woken = True
                    self._reactor.callLater(0, self._deliver)
                    return


class Loop:
    """
    A thread that does one job after the other.

    A job is either done by the thread or withdrawn, never both, whoever is faster:
    either takes it out of one dict first.

    @ivar running: Whether the thread is there. Only the reactor's thread sets it.
    """

    def __init__(
        self,
        outbox: Outbox,
        onEnd: Callable[[Loop], object],
        name: str,
        system: ThreadSystem = realThreads,
    ) -> None:
        """
        Start the thread.

        @param outbox: Where jobs go when they're done.

        @param onEnd: Called with this loop, in the reactor's thread, when the thread
            has ended.

        @param name: What the thread is called.

        @param system: Where threads come from.

        @raise RuntimeError: If no thread can be started.
        """
        self._waiting: dict[Job, None] = {}
        self._urgent: deque[Job] = deque()
        self._queue = system.newQueue()
        self._post = outbox.post
        self._onEnd = onEnd
        self.running = True
        self._join = system.start(self._run, name)

    def __len__(self) -> int:
        """
        The number of jobs that have not been begun. Any thread may ask.
        """
        return len(self._waiting)

    def put(self, job: Job, first: bool = False) -> None:
        """
        Give the thread a job.

        @param job: The job.

        @param first: C{True} to have it done before those that wait, though after
            others that were put so.
        """
        self._waiting[job] = None
        if first:
            self._urgent.append(job)
            self._queue.put(None)
        else:
            self._queue.put(job)

    def withdraw(self, job: Job) -> bool:
        """
        Take a job back.

        @param job: The job.

        @return: Whether it has not been begun, and never will be.
        """
        return self._waiting.pop(job, self) is None

    def withdrawAll(self) -> list[Job]:
        """
        Take back all jobs that have not been begun.

        @return: The jobs, in the order in which they would have been done.
        """
        waiting = self._waiting.copy()
        urgent = [job for job in self._urgent.copy() if job in waiting]
        rest = [job for job in waiting if job not in urgent]
        return [job for job in (*urgent, *rest) if self.withdraw(job)]

    def end(self) -> None:
        """
        Have the thread end when it has done what it was given. It isn't to be given
        anything more.
        """
        self._queue.put(self)

    def deliver(self) -> None:
        """
        Implement L{Message.deliver}: the thread has said that it ends.
        """
        self._join()
        self.running = False
        self._onEnd(self)

    def _run(self) -> None:
        """
        Do jobs, in the thread.
        """
        get, post = self._queue.get, self._post
        begin, urgent = self._waiting.pop, self._urgent
        while True:
            # It keeps no job while it waits for one.
            job = None
            job = get()
            while urgent:
                first = urgent.popleft()
                if begin(first, self) is None:
                    first.work()
                    post(first)
                del first
            if job is self:
                break
            if job is not None and begin(job, self) is None:
                job.work()
                post(job)
        post(self)
