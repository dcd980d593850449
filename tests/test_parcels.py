"""Tests of how calls are brought to another process by somebody else's engine."""

from __future__ import annotations

import pickle
from typing import Any

import numpy
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.parcels import Parcel, execute, pack, unpack
from asynqueue._support.answers import loadsAnswer
from asynqueue.errors import SerializationError, WorkerError

from . import _jobs as jobs


def bring(payload: Any, protocol: int) -> Any:
    """Bring something over as an engine does whose pickler is of a certain protocol."""
    return pickle.loads(pickle.dumps(payload, protocol))


def bringOutOfBand(payload: Any) -> Any:
    """
    Bring something over as an engine does that sends buffers by themselves, and has
    views of them on the other side.
    """
    buffers: list[Any] = []
    pickled = pickle.dumps(payload, 5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[b.raw() for b in buffers])


def outcome(f: Any, *args: Any, raw: bool = False, bring: Any = lambda x: x) -> Any:
    """Get what a call comes to: what the near side makes of the answer."""
    kind, answer = bring(execute(bring(pack((f, args, {}, raw)))))
    return loadsAnswer(kind, unpack(answer), "the task")[1]


class ParcelTests(SynchronousTestCase):
    """Tests of L{Parcel}."""

    def test_small(self) -> None:
        """What has no large buffers is a plain pickle."""
        self.assertIs(type(pack((1, "two", b"3"))), bytes)

    def test_buffers(self) -> None:
        """
        Large things arrive as what they were, by picklers of any protocol, and can be
        changed if they could before.
        """
        size = 100_000
        fixed: Any = numpy.arange(size, dtype=numpy.uint8)
        fixed.flags.writeable = False
        things = [bytes(size), bytearray(size), numpy.zeros(size), fixed]
        for name, way in {
            "4": lambda x: bring(x, 4),
            "5": lambda x: bring(x, 5),
            "out of band": bringOutOfBand,
        }.items():
            with self.subTest(way=name):
                parcel = pack(things)
                self.assertIsInstance(parcel, Parcel)
                arrived: Any = unpack(way(parcel))
                same = arrived.loads()
                self.assertEqual([type(x) for x in same], [type(x) for x in things])
                for x, y in zip(same, things, strict=True):
                    self.assertTrue(numpy.array_equal(x, y))
                self.assertFalse(same[3].flags.writeable)
                if name != "out of band":  # there, the engine has the say
                    self.assertTrue(same[2].flags.writeable)

    def test_outOfBand(self) -> None:
        """A pickler that can take buffers out of band gets them without a copy."""
        array = numpy.zeros(100_000)
        buffers: list[Any] = []
        pickle.dumps(pack(array), 5, buffer_callback=buffers.append)
        self.assertTrue(numpy.shares_memory(numpy.frombuffer(buffers[0]), array))


class ExecuteTests(SynchronousTestCase):
    """Tests of L{execute}."""

    def test_result(self) -> None:
        """A result comes back, also a large one."""
        self.assertEqual(outcome(pow, 2, 5), (b"r", 32))
        for protocol in (4, 5):
            result = outcome(bytes, 1 << 20, bring=lambda x: bring(x, protocol))  # noqa: B023
            self.assertEqual(result, (b"r", bytes(1 << 20)))

    def test_raised(self) -> None:
        """An exception comes back with its cause, C{SystemExit} as text."""
        status, text = outcome(jobs.fail, 7)
        self.assertEqual(status, b"e")
        self.assertEqual(text.exception.code, 7)
        self.assertIsInstance(text.exception.__cause__.__cause__, KeyError)
        status, text = outcome(jobs.raiseThat, SystemExit, 3)
        self.assertIsInstance(text.exception, WorkerError)
        self.assertIn("SystemExit", str(text.exception))

    def test_notPicklable(self) -> None:
        """A result that can't be pickled is an error that says so."""
        failure = outcome(jobs.givesLock)
        failure.trap(SerializationError)
        self.assertIn("The result can't be pickled", str(failure.value))

    def test_iterator(self) -> None:
        """So is an iterator, unless it's wanted as it is and can be pickled."""
        failure = outcome(jobs.count, 3)
        failure.trap(SerializationError)
        self.assertIn("has returned an iterator", str(failure.value))
        _, items = outcome(iter, [1, 2], raw=True)
        self.assertEqual(list(items), [1, 2])

    def test_awaitable(self) -> None:
        """Nothing waits for a coroutine."""
        status, text = outcome(jobs.coroutine, 1)
        self.assertEqual(status, b"e")
        self.assertIsInstance(text.exception, TypeError)
