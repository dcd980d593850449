"""Tests of L{Allocator}."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.memfd import PAGE, Allocator


class AllocatorTests(SynchronousTestCase):
    """Tests of L{Allocator}."""

    def setUp(self) -> None:
        """Make one for a file whose first page isn't to be used."""
        self.allocator = Allocator(PAGE)

    def allocate(self, *pages: int) -> list[int]:
        """Allocate regions of so many pages. Returns their offsets, in pages."""
        return [self.allocator.allocate(n * PAGE) // PAGE for n in pages]

    def free(self, *pages: int) -> None:
        """Free regions."""
        for page in pages:
            self.allocator.free(page * PAGE)

    def test_oneAfterTheOther(self) -> None:
        """Regions don't overlap, and the first isn't before the start."""
        self.assertEqual(self.allocate(1, 2, 1), [1, 2, 4])
        self.assertEqual(sum(self.allocator._lengths.values()), 4 * PAGE)

    def test_wholePages(self) -> None:
        """They are as long as whole pages, and one at least."""
        offsets = [self.allocator.allocate(length) for length in (0, 1, PAGE + 1, 1)]
        self.assertEqual(offsets, [PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE])

    def test_usedAgain(self) -> None:
        """
        The first gap that is large enough is used again, before new memory is; gaps
        that adjoin are one.
        """
        self.allocate(2, 1, 3, 1)
        self.free(1, 4)
        self.assertEqual(self.allocate(3, 1, 2), [4, 1, 8])
        self.free(3, 4)
        self.assertEqual(self.allocator.spare, 5 * PAGE)
        self.assertEqual(self.allocate(5), [2])
        self.assertEqual(self.allocator.spare, 0)

    def test_freedTwice(self) -> None:
        """What isn't in use can't be freed."""
        self.allocate(1)
        self.free(1)
        self.assertRaises(KeyError, self.free, 1)

    def test_spareBetween(self) -> None:
        """
        Memory is given back also from between regions in use, but for what is kept,
        which is at the beginning.
        """
        self.allocate(10, 1, 10, 1)
        self.free(1, 12)
        self.assertEqual(self.allocator.takeSpare(5 * PAGE), (12 * PAGE, 10 * PAGE))
        self.assertEqual(self.allocator.takeSpare(5 * PAGE), (6 * PAGE, 5 * PAGE))
        self.assertIsNone(self.allocator.takeSpare(5 * PAGE))
        self.assertEqual(self.allocator.spare, 5 * PAGE)
        # Nobody gets what is being given back.
        self.assertEqual(self.allocate(10), [23])
        self.allocator.clean(12 * PAGE, 10 * PAGE)
        self.assertEqual(self.allocate(10, 5), [12, 1])

    def test_anyOrder(self) -> None:
        """
        Whatever is allocated, freed and given back, no region overlaps another, and
        all is free at the end.
        """
        rng = random.Random(1)
        regions: dict[int, int] = {}
        for _ in range(3000):
            if regions and rng.random() < 0.5:
                offset = rng.choice(list(regions))
                del regions[offset]
                self.allocator.free(offset)
            else:
                length = rng.randrange(1, 20) * PAGE
                offset = self.allocator.allocate(length)
                end = offset + length
                for start, size in regions.items():
                    self.assertFalse(start < end and offset < start + size)
                regions[offset] = length
            if rng.random() < 0.1:
                region = self.allocator.takeSpare(8 * PAGE)
                if region is not None:
                    self.allocator.clean(*region)
            self.assertEqual(
                sum(self.allocator._lengths.values()), sum(regions.values())
            )
        for offset in regions:
            self.allocator.free(offset)
        while (region := self.allocator.takeSpare(0)) is not None:
            self.allocator.clean(*region)
        self.assertEqual(
            (sum(self.allocator._lengths.values()), self.allocator.spare), (0, 0)
        )
        self.assertEqual(self.allocate(1000), [1])
