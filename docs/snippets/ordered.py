"""Hands items that are made in children, at the same time, to a blocking writer."""

import io
import zipfile

from twisted.internet.task import react

from asynqueue import ProcessQueue
from asynqueue.threads import OrderedItemProducer


def chapter(number):
    """Make an item, in a child."""
    return f"{number}.txt", f"Chapter {number}\n" * 1000


def writeBook(chapters, file):
    """Write items as they come, in a thread."""
    with zipfile.ZipFile(file, "w") as book:
        for name, text in chapters:
            book.writestr(name, text)
        return book.namelist()


async def main(reactor):
    """Write a book of 5 chapters."""
    q = ProcessQueue(2)
    p = OrderedItemProducer()
    p.start(writeBook, io.BytesIO())
    for number in range(1, 6):
        if not await p.ready():
            break
        p.produceItem(q.call, chapter, number)
    print(await p.stop())
    await q.shutdown()


if __name__ == "__main__":
    react(main)
