"""Has a blocking reader iterate over what a blocking writer writes."""

import shutil

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from asynqueue.threads import Filerator


def write(file):
    """Write to a file that knows nothing of the reader."""
    with file, open("docs/snippets/files.py") as source:
        shutil.copyfileobj(source, file, 100)


def read(pieces):
    """Iterate over what is written, in whatever pieces that is."""
    return sum(map(len, pieces))


async def main(reactor):
    """Do both at the same time."""
    file = Filerator(maxThreads=2)
    writing = file.deferToThreadInPool(write, file)
    reading = file.deferToThreadInPool(read, file)
    print((await gatherResults([writing, reading]))[1] > 500)


if __name__ == "__main__":
    react(main)
