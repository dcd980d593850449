"""Shows the error of a call whose child has ended."""

import os

from twisted.internet.task import react

from asynqueue import ProcessQueue
from asynqueue.errors import WorkerLost


async def main(reactor):
    """End a child in the middle of a call."""
    q = ProcessQueue(1)
    try:
        await q.call(os._exit, 7)
    except WorkerLost as error:
        print(f"exit code {error.exitCode}, signal {error.signal}")
    await q.shutdown()


if __name__ == "__main__":
    react(main)
