"""Sees what children print and log."""

import logging
import sys

from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from asynqueue import ProcessQueue


def work(n):
    """Print and log something."""
    print("printed", n)
    logging.getLogger("work").info("logged %s", n)
    return n


def setUp(level):
    """Set up logging in each new child, which writes to its stderr."""
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


async def main(reactor):
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    async with ProcessQueue(1, initializer=(setUp, ("INFO",))) as q:
        await q.call(work, 7)


if __name__ == "__main__":
    react(main)
