"""
A worker that runs calls by an executor of the standard library.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import react
from zope.interface import implementer

from asynqueue import DeferredTracker, TaskQueue
from asynqueue.interfaces import ICancellingWorker, IWorker
from asynqueue.iteration import Deferator, IterationProducer, isIterator


@implementer(IWorker, ICancellingWorker)
class ExecutorWorker:
    """Runs as many tasks at once as its capacity."""

    cQualified = ["executor"]  # noqa: RUF012 - IWorker has it so

    def __init__(self, executor, capacity, reactor):
        self.iQualified, self.capacity = [], capacity
        self.executor, self.reactor = executor, reactor
        self.futures = {}  # Of the tasks that have no result.
        self.running = DeferredTracker(reactor=reactor)

    def setResignator(self, callableObject):
        """Is called with what the worker calls when it can't go on."""
        self.resign = callableObject

    def run(self, task):
        """Must not block. The Deferred fires when there's room for another task."""
        f, args, kw = task.callTuple
        options = {key: kw[key] for key in kw.keys() & {"raw", "consumer"}}
        kw = {key: value for key, value in kw.items() if key not in options}
        try:
            future = self.executor.submit(f, *args, **kw)
        except RuntimeError:  # Somebody has shut it down.
            self.resign()
            task.callback((b"d", None))
            return succeed(None)
        self.futures[task] = future
        ready = self.running.put(Deferred())
        done = partial(self.done, task, ready, **options)
        future.add_done_callback(partial(self.reactor.callFromThread, done))
        return ready

    def done(self, task, ready, future, raw=False, consumer=None):
        """Gives the task its result."""
        self.futures.pop(task, None)
        if not future.cancelled():
            if error := future.exception():
                task.errback(error)
            elif raw or not isIterator(future.result()):
                task.callback((b"r", future.result()))
            else:
                items = Deferator(future.result())
                items = IterationProducer(items, consumer) if consumer else items
                task.callback((b"i", items))
        ready.callback(None)

    def stop(self):
        """Fires when all tasks have their results."""
        return self.running.deferToAll()

    def crash(self):
        """Gives back the tasks without a result."""
        return list(self.futures)

    def cancelTask(self, task):
        """May do nothing if a task can't be stopped: its result is dropped."""
        if task in self.futures:
            self.futures[task].cancel()


async def main(reactor):
    """
    Have it run a few calls.
    """
    with ThreadPoolExecutor(2) as executor:
        q = TaskQueue(ExecutorWorker(executor, 2, reactor))
        print([await d for d in [q.call(pow, 2, n) for n in range(5)]])
        print([await d for d in await q.call(iter, [1, 2])])
        try:
            await q.call(int, "seven")
        except ValueError as error:
            print(error)
        print(await q.shutdown())


if __name__ == "__main__":
    react(main)
