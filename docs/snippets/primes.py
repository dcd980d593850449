"""What a server can do: find prime numbers."""

from asynqueue import WireWorkerUniverse


class Primes(WireWorkerUniverse):
    """Finds prime numbers."""

    def isPrime(self, n):
        """Tell whether a number is prime."""
        return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))

    def below(self, n):
        """Find all primes below a number."""
        yield from filter(self.isPrime, range(n))
