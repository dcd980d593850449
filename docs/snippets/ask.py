"""Has a server find prime numbers."""

import sys

from primes import Primes
from twisted.internet.task import react

from asynqueue import TaskQueue, WireWorker
from asynqueue.wire import TLS


async def main(reactor, place, file):
    """Ask for a few numbers."""
    q = TaskQueue(WireWorker(Primes, place, tls=TLS.fromFiles(file), reconnect=True))
    print(await q.map("isPrime", [7, 8, 1_000_003]))
    await q.shutdown()


if __name__ == "__main__":
    react(main, sys.argv[1:])
