"""Tests of the server's side of calls, without connections."""

from __future__ import annotations

from collections.abc import Iterator
from types import GeneratorType
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from asynqueue._child.status import Status
from asynqueue.errors import WorkerError
from asynqueue.wire import WireRunner, o2p, p2o

from ._wire import Universe


class RunnerTests(SynchronousTestCase):
    """Tests of L{WireRunner}."""

    def setUp(self) -> None:
        """Make a runner."""
        self.universe = Universe()
        self.clock = Clock()
        self.runner = WireRunner(self.universe, reactor=self.clock)

    def called(self, *args: Any, **kw: Any) -> Any:
        """Run a method."""
        return self.successResultOf(self.runner.call(*args, **kw))

    def test_result(self) -> None:
        """
        What a method returns comes with its status, which is another one for C{None}.
        """
        answer = {"status": b"r", "result": o2p(3)}
        self.assertEqual(self.called("add", 1, b=2), answer)
        self.assertEqual(self.called("nothing"), {"status": b"n", "result": b""})
        self.assertIs(type(self.called("nothing")["status"]), bytes)

    def test_deferred(self) -> None:
        """Deferreds and coroutines are waited for."""
        d = self.runner.call("wait")
        self.assertNoResult(d)
        self.universe.waiting[0].callback(5)
        self.assertEqual(p2o(self.successResultOf(d)["result"]), 5)
        self.assertEqual(p2o(self.called("coroutine", 6)["result"]), 6)

    def test_error(self) -> None:
        """Of an exception, there's text about it and the call."""
        answer = self.called("boom", "x")
        self.assertEqual(answer["status"], b"e")
        self.assertIs(type(answer["result"]), str)
        self.assertRegex(answer["result"], r"(?s)ValueError.*boom\('x'\).*Traceback")
        d = self.runner.call("wait")
        self.universe.waiting[0].errback(KeyError("y"))
        self.assertIn("KeyError", self.successResultOf(d)["result"])

    def test_exit(self) -> None:
        """Not even what would end the program gets out."""
        self.assertEqual(self.called("fail", "exit")["status"], b"e")

    def test_unknown(self) -> None:
        """A method that isn't served is an error with the names of those that are."""
        for name in ("nosuch", "_private", "__class__", "ws"):
            answer = self.called(name)
            self.assertEqual(answer["status"], b"e")
            self.assertRegex(answer["result"], f"{name}.* add, .*zeros")

    def test_iterator(self) -> None:
        """Of an iterator, there's an ID with which items are got one by one."""
        answer = self.called("count", 2)
        self.assertEqual(answer["status"], b"i")
        ID = answer["result"]
        self.assertEqual(list(self.runner.iterators), [ID])
        self.assertIsInstance(self.runner.iterators[ID], GeneratorType)
        for i in range(2):
            item = self.successResultOf(self.runner.getNext(ID))
            self.assertEqual(item, {"value": o2p(i), "isValid": True, "isRaw": False})
        item = self.successResultOf(self.runner.getNext(ID))
        self.assertEqual(item, {"value": b"", "isValid": False, "isRaw": True})
        self.assertEqual(self.runner.iterators, {})
        self.failureResultOf(self.runner.getNext(ID), WorkerError)

    def test_chunks(self) -> None:
        """A result that's too large for a box comes in chunks, which are no pickles."""
        answer = self.called("zeros", 100_000)
        self.assertEqual(answer["status"], b"c")
        chunks = []
        while True:
            item = self.successResultOf(self.runner.getNext(answer["result"]))
            if not item["isValid"]:
                break
            self.assertTrue(item["isRaw"])
            chunks.append(item["value"])
        self.assertGreater(len(chunks), 1)
        self.assertEqual(p2o(b"".join(chunks)), bytes(100_000))

    def test_notPickled(self) -> None:
        """A result that can't be pickled is an error."""
        answer = self.called(lambda: lambda: None)
        self.assertEqual(answer["status"], b"e")
        self.assertIn("pickle", answer["result"])

    def test_shutdownWaits(self) -> None:
        """Shutting down waits for calls."""
        call = self.runner.call("wait")
        d = self.runner.shutdown()
        self.assertNoResult(d)
        self.universe.waiting[0].callback(5)
        self.assertEqual(p2o(self.successResultOf(call)["result"]), 5)
        self.clock.advance(0)
        self.successResultOf(d)

    def test_failingIterator(self) -> None:
        """What an iterator raises is a failure, and the end of it."""
        ID = self.called("count", 0, fail=True)["result"]
        self.failureResultOf(self.runner.getNext(ID), ValueError)
        self.assertEqual(self.runner.iterators, {})

    def test_raw(self) -> None:
        """With C{raw=True}, an iterator is a result like any other."""
        answer = self.called("count", 2, raw=True)
        self.assertEqual(answer["status"], b"r")
        self.assertEqual(list(answer["result"]), [0, 1])

    def test_shutdown(self) -> None:
        """Shutting down closes iterators."""
        ID = self.called("count", 2)["result"]
        self.successResultOf(self.runner.getNext(ID))
        self.assertIsNone(self.successResultOf(self.runner.shutdown()))
        self.assertEqual(self.universe.log, [0, "closed"])

    def test_cancel(self) -> None:
        """A call can be cancelled, which cancels its Deferred."""
        d: Any = self.runner.run(self.universe.wait, (1,), {}, False, False)
        d.cancel()
        self.assertEqual(self.universe.log, [1, "cancelled"])
        status, text = self.successResultOf(d)
        self.assertEqual(status, Status.ERROR)
        self.assertIsInstance(text.exception, CancelledError)

    def test_callable(self) -> None:
        """It also runs what is no method of the universe, and needs none."""
        answer = self.successResultOf(WireRunner(reactor=Clock()).call(divmod, 7, 2))
        self.assertEqual(answer, {"status": b"r", "result": o2p((3, 1))})

    def test_encoded(self) -> None:
        """
        Items are encoded as soon as they have been yielded; when one can't be, the
        iterator is closed.
        """

        def items() -> Iterator[list[int]]:
            """Yield one list again and again."""
            item = [0]
            try:
                for _ in range(5):
                    yield item
                    item[0] += 1
            finally:
                closed.append(True)

        def encode(item: list[int]) -> str:
            """Encode an item, unless it's a three."""
            if item == [3]:
                raise ValueError("three")
            return str(item)

        closed: list[bool] = []
        pair: Any = self.runner.run(items, (), {}, False, False, encode)
        got = [self.successResultOf(pair[1].__anext__()) for _ in range(3)]
        self.assertEqual(got, ["[0]", "[1]", "[2]"])
        self.failureResultOf(pair[1].__anext__(), ValueError)
        self.assertEqual(closed, [True])

    def test_notUniverse(self) -> None:
        """It's for universes only."""
        self.assertRaises(TypeError, WireRunner, object())
