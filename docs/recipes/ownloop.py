"""A program of asyncio that starts Twisted's reactor in its own loop."""

import asyncio

from twisted.internet import asyncioreactor


async def main():
    asyncioreactor.install(asyncio.get_running_loop())
    from twisted.internet import reactor

    from asynqueue import ProcessQueue

    reactor.startRunning(installSignalHandlers=False)
    async with ProcessQueue(2) as q:
        print(await asyncio.gather(q.call(pow, 2, 3), q.call(pow, 2, 4)))
        try:
            await asyncio.wait_for(q.call(pow, 7, 10**9), 0.5)
        except asyncio.TimeoutError:
            print("too slow, and stopped")
        print(await q.call(pow, 2, 5))


if __name__ == "__main__":
    asyncio.run(main())
