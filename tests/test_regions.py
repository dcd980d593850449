"""
Tests of L{asynqueue._child.regions}.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.regions import PAGE, Regions


class RegionsTests(SynchronousTestCase):
    """
    Tests of L{Regions}.
    """

    def setUp(self) -> None:
        """
        Make a file of which nothing is in use.
        """
        self.regions = Regions()

    def take(self, *pages: int) -> list[int]:
        """
        Have regions handed out.

        @param pages: How many pages each has.

        @return: The pages they begin at.
        """
        return [self.regions.allocate(n * PAGE) // PAGE for n in pages]

    def give(self, *pages: int) -> None:
        """
        Give regions back.

        @param pages: The pages they begin at.
        """
        for page in pages:
            self.regions.free(page * PAGE)

    def pages(self) -> tuple[int, int, int]:
        """
        Tell how things are.

        @return: How many pages are in use, the page after the last of them, and after
            the last that has been.
        """
        regions = self.regions
        return regions.used // PAGE, regions.end // PAGE, regions.written // PAGE

    def test_oneAfterTheOther(self) -> None:
        """
        Regions don't overlap.
        """
        self.assertEqual(self.take(1, 2, 3), [0, 1, 3])
        self.assertEqual(self.pages(), (6, 6, 6))

    def test_wholePages(self) -> None:
        """
        They begin where pages do, and have at least one.
        """
        starts = [self.regions.allocate(n) for n in (0, 1, PAGE, PAGE + 1, 0)]
        self.assertEqual(starts, [0, PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE])
        self.assertEqual(self.pages(), (6, 6, 6))

    def test_lastFreed(self) -> None:
        """
        The end of what is in use goes back when the last region is freed, also over
        those that were freed before.
        """
        self.take(1, 1, 1)
        self.give(1)
        self.assertEqual(self.pages(), (2, 3, 3))
        self.give(2)
        self.assertEqual(self.pages(), (1, 1, 3))
        self.give(0)
        self.assertEqual(self.pages(), (0, 0, 3))

    def test_firstThatIsLargeEnough(self) -> None:
        """
        Regions are put into the first gap that has room for them.
        """
        self.take(1, 1, 1, 3, 1)
        self.give(1, 3)
        self.assertEqual(self.take(2, 1, 1, 1), [3, 1, 5, 7])

    def test_gapsGrow(self) -> None:
        """
        Gaps side by side are one.
        """
        self.take(*[1] * 6)
        self.give(1, 3, 2)
        self.assertEqual(self.take(3, 1), [1, 6])

    def test_freedTwice(self) -> None:
        """
        What isn't in use can't be freed.
        """
        self.take(1, 1)
        self.give(0)
        self.assertRaises(KeyError, self.give, 0)
        self.assertRaises(KeyError, self.give, 5)

    def test_trim(self) -> None:
        """
        What has been in use at the end is taken out but for what is kept. Nobody else
        gets it until it's freed.
        """
        self.take(1, 9)
        self.give(1)
        self.assertEqual(self.regions.trim(2 * PAGE), (3 * PAGE, 7 * PAGE))
        self.assertEqual(self.take(2, 1), [1, 10])
        self.give(3)
        self.assertEqual(self.pages(), (4, 11, 11))
        self.assertEqual(self.take(7), [3])

    def test_trimmedIsNotWritten(self) -> None:
        """
        What has been trimmed counts as never written to.
        """
        self.take(9)
        self.give(0)
        self.assertEqual(self.regions.trim(PAGE), (PAGE, 8 * PAGE))
        self.give(1)
        self.assertEqual(self.pages(), (0, 0, 1))
        self.assertIsNone(self.regions.trim(PAGE))

    def test_trimAll(self) -> None:
        """
        It's possible to keep nothing.
        """
        self.take(1, 4)
        self.give(1)
        self.assertEqual(self.regions.trim(0), (PAGE, 4 * PAGE))
        self.give(1)
        self.assertEqual(self.pages(), (1, 1, 1))

    def test_trimLittle(self) -> None:
        """
        There's nothing to be trimmed if it's no more than what is kept.
        """
        self.assertIsNone(self.regions.trim(0))
        self.take(1, 2)
        self.give(1)
        self.assertIsNone(self.regions.trim(2 * PAGE))
        self.assertEqual(self.pages(), (1, 1, 3))

    def test_anyOrder(self) -> None:
        """
        In whatever order regions are handed out, freed and trimmed, no two overlap,
        and what is told of them is true.
        """
        chance = random.Random(5)
        held: dict[int, int] = {}
        trimmed: set[int] = set()
        for _ in range(3000):
            what = chance.random()
            if what < 0.5:
                n = chance.randrange(1, 9)
                [start] = self.take(n)
                held[start] = n
            elif what < 0.97 and held:
                start = chance.choice(list(held))
                del held[start]
                trimmed.discard(start)
                self.give(start)
            else:
                region = self.regions.trim(3 * PAGE)
                if region is not None:
                    trimmed.add(region[0] // PAGE)
                    held[region[0] // PAGE] = region[1] // PAGE
            ends = [0, *(start + n for start, n in held.items())]
            for end, start in zip(sorted(ends), [*sorted(held), 1 << 60], strict=True):
                self.assertLessEqual(end, start)
            used, end, written = self.pages()
            self.assertEqual((used, end), (sum(held.values()), max(ends)))
            inUse = [start + n for start, n in held.items() if start not in trimmed]
            self.assertGreaterEqual(written, max(inUse, default=0))
        self.give(*held)
        self.assertEqual(self.pages()[:2], (0, 0))
