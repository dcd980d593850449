"""
Tests of the server's side of calls, without connections.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.status import Status
from asynqueue.errors import WorkerError
from asynqueue.wire import WireRunner, WireWorkerUniverse
from asynqueue.wire._limits import Limits
from asynqueue.wire._slots import Slots

from ._wire import Universe


class RunnerTests(SynchronousTestCase):
    """
    Tests of L{WireRunner}.
    """

    def setUp(self) -> None:
        """
        Make a runner.
        """
        self.universe = Universe()
        self.runner = WireRunner(self.universe, reactor=Clock())

    def called(self, *args: Any, **kw: Any) -> Any:
        """
        Run a method.

        @param args: Its name, and its arguments.

        @param kw: Its keywords.

        @return: The dict.
        """
        return self.successResultOf(self.runner.call(*args, **kw))

    def test_result(self) -> None:
        """
        What a method returns comes with its status, which is another one for C{None}.
        """
        self.assertEqual(self.called("add", 1, b=2), {"status": b"r", "result": 3})
        self.assertEqual(self.called("nothing"), {"status": b"n", "result": None})
        self.assertIs(type(self.called("nothing")["status"]), bytes)

    def test_deferred(self) -> None:
        """
        Deferreds and coroutines are waited for.
        """
        d = self.runner.call("wait")
        self.assertNoResult(d)
        self.universe.waiting[0].callback(5)
        self.assertEqual(self.successResultOf(d), {"status": b"r", "result": 5})
        self.assertEqual(self.called("coroutine", 6)["result"], 6)

    def test_error(self) -> None:
        """
        Of an exception, there's text about it and the call.
        """
        answer = self.called("boom", "x")
        self.assertEqual(answer["status"], b"e")
        self.assertIs(type(answer["result"]), str)
        self.assertRegex(answer["result"], r"(?s)ValueError.*boom\('x'\).*Traceback")
        d = self.runner.call("wait")
        self.universe.waiting[0].errback(KeyError("y"))
        self.assertIn("KeyError", self.successResultOf(d)["result"])

    def test_exit(self) -> None:
        """
        Not even what would end the program gets out.
        """
        self.assertEqual(self.called("fail", "exit")["status"], b"e")

    def test_unknown(self) -> None:
        """
        A method that isn't served is an error with the names of those that are.
        """
        for name in ("nosuch", "_private", "__class__", "ws"):
            answer = self.called(name)
            self.assertEqual(answer["status"], b"e")
            self.assertRegex(answer["result"], f"{name}.* add, .*zeros")

    def test_iterator(self) -> None:
        """
        Of an iterator, there's an ID with which items are got one by one.
        """
        answer = self.called("count", 2)
        self.assertEqual(answer["status"], b"i")
        ID = answer["result"]
        self.assertEqual(list(self.runner.iterators), [ID])
        for i in range(2):
            item = self.successResultOf(self.runner.getNext(ID))
            self.assertEqual(item, {"value": i, "isValid": True, "moreLeft": True})
        item = self.successResultOf(self.runner.getNext(ID))
        self.assertEqual(item, {"value": None, "isValid": False, "moreLeft": False})
        self.assertEqual(self.runner.iterators, {})
        self.failureResultOf(self.runner.getNext(ID), WorkerError)

    def test_failingIterator(self) -> None:
        """
        What an iterator raises is a failure, and the end of it.
        """
        ID = self.called("count", 0, fail=True)["result"]
        self.failureResultOf(self.runner.getNext(ID), ValueError)
        self.assertEqual(self.runner.iterators, {})

    def test_raw(self) -> None:
        """
        With C{raw=True}, an iterator is a result like any other.
        """
        answer = self.called("count", 2, raw=True)
        self.assertEqual(answer["status"], b"r")
        self.assertEqual(list(answer["result"]), [0, 1])

    def test_shutdown(self) -> None:
        """
        Shutting down closes iterators.
        """
        ID = self.called("count", 2)["result"]
        self.successResultOf(self.runner.getNext(ID))
        self.assertIsNone(self.successResultOf(self.runner.shutdown()))
        self.assertEqual(self.universe.log, [0, "closed"])

    def test_stop(self) -> None:
        """
        A call can be stopped, which cancels its Deferred.
        """
        call = self.runner.start("wait", (1,), {}, False, False)
        call.stop()
        self.assertEqual(self.universe.log, [1, "cancelled"])
        status, text = self.successResultOf(call.d)
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, CancelledError)

    def test_stopFails(self) -> None:
        """
        A canceller that fails is logged, and no more.
        """

        class Odd(WireWorkerUniverse):
            """
            A universe with a method that can't be cancelled.
            """

            def never(self) -> Deferred[None]:
                """
                Never fire.

                @return: A Deferred.
                """
                return Deferred(lambda d: print(1 / 0))  # noqa: T201

        call = WireRunner(Odd(), reactor=Clock()).start("never", (), {}, False, False)
        call.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_notUniverse(self) -> None:
        """
        It's for universes only.
        """
        self.assertRaises(TypeError, WireRunner, object())


class Applicant:
    """
    Something that wants a slot.
    """

    def __init__(self, thread: bool = False) -> None:
        """
        Make it.

        @param thread: Whether it needs a thread.
        """
        self.thread = thread
        self.begun = False

    def begin(self) -> None:
        """
        Begin.
        """
        self.begun = True


class SlotsTests(SynchronousTestCase):
    """
    Tests of L{Slots}.
    """

    def test_unlimited(self) -> None:
        """
        Without a limit, all get one.
        """
        slots = Slots(None, 1)
        self.assertTrue(all(slots.take(Applicant()) for _ in range(100)))

    def test_limited(self) -> None:
        """
        With a limit, who waits gets one in order when one is given back.
        """
        slots = Slots(1, 1)
        self.assertTrue(slots.take(Applicant()))
        waiting = [Applicant() for _ in range(3)]
        for applicant in waiting:
            self.assertFalse(slots.take(applicant))
            slots.wait(applicant)
        slots.forget(waiting[0])
        slots.give(False)
        self.assertEqual([a.begun for a in waiting], [False, True, False])
        self.assertFalse(slots.take(Applicant()))

    def test_threads(self) -> None:
        """
        Those that wait for a thread are no obstacle for those that need none.
        """
        slots = Slots(2, 1)
        self.assertTrue(slots.take(Applicant(True)))
        waits = Applicant(True)
        self.assertFalse(slots.take(waits))
        slots.wait(waits)
        self.assertTrue(slots.take(Applicant()))
        slots.give(False)
        self.assertFalse(waits.begun)
        slots.give(True)
        self.assertTrue(waits.begun)

    def test_wrongLimits(self) -> None:
        """
        Limits of a peer are positive integers.
        """
        for value in (0, -1, True, 1.5):
            self.assertRaises(ValueError, Limits, largest=value)
