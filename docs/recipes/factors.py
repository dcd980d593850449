"""Work for the recipes: nothing but computing."""


def factors(n):
    """Find the prime factors of a number, smallest first."""
    found, divisor = [], 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1
    return [*found, n] if n > 1 else found
