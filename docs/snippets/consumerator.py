"""Has blocking code iterate over what arrives in the reactor."""

from twisted.internet.task import react
from twisted.protocols.basic import FileSender

from asynqueue import deferToThread
from asynqueue.threads import Consumerator


def count(pieces):
    """Iterate, in a thread."""
    return sum(piece.count(b"\n") for piece in pieces)


async def main(reactor):
    """Have what a producer of Twisted's writes counted."""
    pieces = Consumerator()
    with open("docs/snippets/consumerator.py", "rb") as file:
        FileSender().beginFileTransfer(file, pieces)
        print(await deferToThread(count, pieces) > 20)
    await deferToThread()


if __name__ == "__main__":
    react(main)
