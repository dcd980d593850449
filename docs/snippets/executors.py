"""Calls in threads and in processes of executors."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from asynqueue.errors import SerializationError
from asynqueue.executor import ExecutorQueue


def squares(n):
    """Make squares, one after the other."""
    for i in range(n):
        yield i * i


def makeProcesses():
    """Make an executor."""
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


async def main(reactor):
    """Have both kinds run a few calls."""
    async with ExecutorQueue(makeProcesses) as q:
        print(await gatherResults([q.call(pow, 2, n) for n in range(8)]))
        try:
            await q.call(squares, 5)
        except SerializationError as error:
            print("squares is a generator function" in str(error))

    with ThreadPoolExecutor(4) as threads:
        async with ExecutorQueue(threads) as q:
            print([item async for item in await q.call(squares, 5)])
        print(threads.submit(pow, 2, 10).result())


if __name__ == "__main__":
    react(main)
