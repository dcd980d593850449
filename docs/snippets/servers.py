"""Servers on this machine."""

import os

from twisted.internet.task import react

from asynqueue import TaskQueue, WireWorker, WireWorkerUniverse
from asynqueue.errors import WorkerLost
from asynqueue.wire import ServerManager


class Words(WireWorkerUniverse):
    """What the servers have to offer."""

    def count(self, text):
        """Count words."""
        return len(text.split())

    def leave(self):
        """End the server, as a defect might."""
        os._exit(1)


async def main(reactor):
    """Start two servers, and have one end."""
    manager = ServerManager(Words)
    q = TaskQueue()
    for _ in range(2):
        place = manager.newSocket()
        await manager.spawn(place, niceness=5)
        await q.attachWorker(WireWorker(Words, place, reconnect=True))
    print(await q.call("count", "as many as there are"))
    try:
        await q.call("leave")
    except WorkerLost:
        print("lost")
    print(await q.call("count", "the other one does this"))
    await q.shutdown()
    await manager.shutdown()


if __name__ == "__main__":
    react(main)
