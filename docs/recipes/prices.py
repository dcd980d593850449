"""A part of a program, to be tested."""

from asynqueue.errors import TimeoutError


def lookUp(item):
    """Look up a price, somewhere slow."""
    raise NotImplementedError


class Shop:
    """Knows prices, if they can be had within a second."""

    def __init__(self, q):
        self.q = q

    async def price(self, item):
        try:
            return await self.q.call(lookUp, item, timeout=1, retries=1)
        except TimeoutError:
            return None
