"""Counts primes in child interpreters."""

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from asynqueue import ProcessQueue


def countPrimes(low, high):
    """Count the primes from C{low} to below C{high}."""
    return sum(
        n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))
        for n in range(low, high)
    )


async def main(reactor):
    """Share the work out."""
    q = ProcessQueue(2)
    try:
        counts = await gatherResults(
            [q.call(countPrimes, n, n + 1000) for n in range(0, 5000, 1000)]
        )
    finally:
        await q.shutdown()
    print(sum(counts), "primes")


if __name__ == "__main__":
    react(main)
