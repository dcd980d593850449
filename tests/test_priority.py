"""Tests of the asynchronous heap."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.base import Priority
from asynqueue.errors import QueueRunError


class Item:
    """An item that is only compared by C{<}, with its rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __lt__(self, other: Item) -> bool:
        """Compare ranks."""
        return self.rank < other.rank


class PriorityTests(SynchronousTestCase):
    """Tests of L{Priority}."""

    def setUp(self) -> None:
        """Make a heap."""
        self.heap = Priority()

    def test_get(self) -> None:
        """The lowest item comes first, at once."""
        for item in (3, 1, 2):
            self.heap.put(item)
        self.assertEqual(len(self.heap), 3)
        self.assertEqual(
            [self.successResultOf(self.heap.get()) for _ in range(3)], [1, 2, 3]
        )

    def test_wait(self) -> None:
        """Who asks an empty heap gets the next item that is put in."""
        d = self.heap.get()
        self.assertNoResult(d)
        self.heap.put(5)
        self.assertEqual(self.successResultOf(d), 5)
        self.assertEqual(len(self.heap), 0)

    def test_inTurn(self) -> None:
        """Those who wait are served in order."""
        waiting = [self.heap.get() for _ in range(3)]
        for item in "cab":
            self.heap.put(item)
        self.assertEqual([self.successResultOf(d) for d in waiting], ["c", "a", "b"])

    def test_equalItems(self) -> None:
        """Items that compare equal come out in the order in which they were put in."""
        items = [Item(n % 2) for n in range(20)]
        for item in items:
            self.heap.put(item)
        got = [self.successResultOf(self.heap.get()) for _ in items]
        self.assertEqual(got, items[::2] + items[1::2])

    def test_cancel(self) -> None:
        """
        Every pending item that is selected is removed, though they stand side by side.
        """
        for item in range(10):
            self.heap.put(item)
        self.assertEqual(self.heap.cancel(lambda item: item < 8), list(range(8)))
        self.assertEqual(self.successResultOf(self.heap.get()), 8)
        self.assertEqual(self.heap.cancel(lambda item: True), [9])
        self.assertEqual(len(self.heap), 0)

    def test_cancelNone(self) -> None:
        """Nothing happens if no item is selected; the order stays."""
        for item in (2, 1, 3):
            self.heap.put(item)
        self.assertEqual(self.heap.cancel(lambda item: False), [])
        self.assertEqual(
            [self.successResultOf(self.heap.get()) for _ in range(3)], [1, 2, 3]
        )

    def test_shutdown(self) -> None:
        """
        All who wait are told that there won't be an item, as are those who ask later.
        """
        waiting = [self.heap.get() for _ in range(2)]
        self.heap.shutdown()
        for d in (*waiting, self.heap.get()):
            self.failureResultOf(d, QueueRunError)

    def test_shutdownLeavesItems(self) -> None:
        """Items that are there can be had after the shutdown."""
        self.heap.put(1)
        self.heap.shutdown()
        self.assertEqual(self.successResultOf(self.heap.get()), 1)

    def test_cancelWaiting(self) -> None:
        """Who has cancelled the waiting gets no item, which isn't lost."""
        first, second = self.heap.get(), self.heap.get()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.heap.put(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_incomparable(self) -> None:
        """
        An item that can't be compared with the others is refused, and the others stay
        as they are.
        """
        for item in (3, 1, 2):
            self.heap.put(item)
        self.assertRaises(TypeError, self.heap.put, "x")
        self.assertEqual(
            [self.successResultOf(self.heap.get()) for _ in range(3)], [1, 2, 3]
        )
