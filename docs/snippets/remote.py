"""A server, and a worker that has its methods run, in one program."""

import tempfile

from twisted.internet.task import react

from asynqueue import TaskQueue, WireWorker, WireWorkerUniverse
from asynqueue.wire import WireServer


class Numbers(WireWorkerUniverse):
    """What the server can do."""

    def cube(self, x):
        """Compute the third power of a number."""
        return x**3

    def below(self, n):
        """Count."""
        yield from range(n)


async def main(reactor):
    """Serve on a Unix socket, and have two methods run over it."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"unix:{folder}/socket"
        server = WireServer(place, Numbers())
        await server.start()
        q = TaskQueue(WireWorker(Numbers, place))
        print(await q.call("cube", 3))
        print([n async for n in await q.call("below", 4)])
        await q.shutdown()
        await server.stop()


if __name__ == "__main__":
    react(main)
