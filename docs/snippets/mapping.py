"""Maps a function over items, in child interpreters."""

from twisted.internet.task import react

from asynqueue import ProcessQueue


def square(n):
    """Square a number."""
    return n * n


async def main(reactor):
    """All results at once, and one after the other of a large input."""
    async with ProcessQueue(2) as q:
        print(await q.map(square, range(5)))
        async for n in q.imap(square, range(10**9)):
            if n > 50:
                print("the first above 50 is", n)
                break


if __name__ == "__main__":
    react(main)
