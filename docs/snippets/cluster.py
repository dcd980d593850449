"""The same lines, from the reactor to a cluster."""

from math import factorial

from twisted.internet.task import react

from asynqueue import ProcessQueue, ThreadQueue
from asynqueue.dask import DaskQueue
from asynqueue.null import NullQueue


def digits(n):
    """Count the digits of a factorial."""
    return len(str(factorial(n)))


def squares(n):
    """Make squares, one after the other."""
    for i in range(n):
        yield i * i


async def work(q):
    """Have any queue do some work."""
    first = q.call(digits, 300, niceness=-10)
    others = q.map(digits, range(100, 200, 20))
    try:
        await q.call(digits, -1)
    except ValueError as error:
        print(error)
    print(await first, await others)
    print([n async for n in await q.call(squares, 5)])
    await q.shutdown()


async def main(reactor):
    """Have one do so after the other."""
    for makeQueue in (NullQueue, ThreadQueue, ProcessQueue, DaskQueue):
        print(makeQueue.__name__)
        await work(makeQueue())


if __name__ == "__main__":
    react(main)
