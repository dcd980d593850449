"""A program of asyncio that has calls made by child interpreters."""

import asyncio

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)

from twisted.internet.defer import Deferred  # noqa: E402 - the reactor comes first
from twisted.internet.task import react  # noqa: E402

from asynqueue import ProcessQueue  # noqa: E402


def squares(n):
    """Generate squares."""
    for i in range(n):
        yield i * i


async def work():
    """Run as a task of asyncio."""
    async with ProcessQueue(2) as q:
        print(await asyncio.gather(*[q.call(pow, 2, n) for n in range(5)]))
        async for n in await q.call(squares, 3):
            print(n)
        try:
            await asyncio.wait_for(q.call(pow, 7, 10**9, timeout=60), 0.5)
        except asyncio.TimeoutError:
            print("too slow, and stopped")


def main(reactor):
    return Deferred.fromFuture(loop.create_task(work()))


if __name__ == "__main__":
    react(main)
