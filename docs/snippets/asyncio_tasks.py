"""
Has a task of asyncio wait for calls.
"""

import asyncio

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)

from twisted.internet.defer import Deferred  # noqa: E402 - the reactor comes first
from twisted.internet.task import react  # noqa: E402

from asynqueue import ProcessQueue  # noqa: E402


async def work():
    """
    Gather results as asyncio does.
    """
    async with ProcessQueue(2) as q:
        print(await asyncio.gather(*[q.call(pow, 2, n) for n in range(5)]))
        async for n in q.imap(abs, range(-3, 0)):
            print(n)


def main(reactor):
    """
    Run the task.
    """
    return Deferred.fromFuture(loop.create_task(work()))


if __name__ == "__main__":
    react(main)
