"""Streams from a generator in a child interpreter."""

from twisted.internet.task import react

from asynqueue import ProcessQueue


def cubes(limit):
    """Make one item after the other."""
    for n in range(1, limit):
        yield n, n**3


async def main(reactor):
    """Print the items as they come."""
    q = ProcessQueue(1)
    async for n, cube in await q.call(cubes, 4):
        print(n, cube)
    await q.shutdown()


if __name__ == "__main__":
    react(main)
