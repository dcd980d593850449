"""
The examples in the documentation of AsynQueue 0.9.9, written anew from descriptions of
what they do, in the style of their time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredSemaphore,
    inlineCallbacks,
    succeed,
)
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from asynqueue import (
    DeferredLock,
    DeferredTracker,
    ProcessBase,
    ProcessQueue,
    deferToThread,
)
from asynqueue.iteration import Deferator
from asynqueue.threads import Consumerator

FILES = 4
LINES = 50


class Parser(ProcessBase):
    """Parses files in a child, by the separator that an update has set."""

    def setSeparator(self, separator: str) -> None:
        """Remember what is between the fields of a record."""
        self.data["separator"] = separator

    def records(self, path: str) -> Iterator[list[str]]:
        """Generate the records of a file."""
        for line in Path(path).read_text().splitlines():
            yield line.split(self.data["separator"])


@implementer(IConsumer)
class FileConsumer:
    """
    Takes the records of one file, and registers itself with its producer, as the one
    of the example does.
    """

    def __init__(self) -> None:
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a producer, but no second one."""
        if self.producer is not None:
            raise RuntimeError("There's a producer already")
        self.producer = producer
        producer.registerConsumer(self)
        self.records: list[list[str]] = []

    def unregisterProducer(self) -> None:
        """Be done."""
        self.producer = None

    def write(self, data: Any) -> None:
        """Take a record."""
        self.records.append(data)


class ReaderTests(TestCase):
    """The program of the README."""

    timeout = 60

    @inlineCallbacks
    def test_files(self) -> Any:
        """
        Several children parse files, at most so many at a time, once an update has told
        each how. A consumer for each file gets all its records, in order.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        for n in range(FILES):
            lines = [f"{n};{i}\n" for i in range(LINES)]
            (folder / str(n)).write_text("".join(lines))
        q = ProcessQueue(3)
        self.addCleanup(q.shutdown)
        limit = DeferredSemaphore(2)
        parser = Parser()
        yield q.update(parser.setSeparator, ";")
        consumers: list[Any] = []

        def release(result: Any) -> Any:
            limit.release()
            return result

        @inlineCallbacks
        def read(path: Path) -> Any:
            yield limit.acquire()
            d = q.call(parser.records, str(path), consumer=FileConsumer())
            consumer = yield d.addBoth(release)
            consumers.append(consumer)

        done = [read(path) for path in folder.iterdir()]
        yield DeferredList(done, fireOnOneErrback=True, consumeErrors=True)
        self.assertEqual(
            sorted(consumer.records for consumer in consumers),
            [[[str(n), str(i)] for i in range(LINES)] for n in range(FILES)],
        )


class DeferatorTests(SynchronousTestCase):
    """The example of L{Deferator}."""

    def test_stop(self) -> None:
        """
        A loop over items that a function gets leaves off after some: it has asked for
        those only, and C{d} fires with C{False}.
        """
        asked: list[int] = []

        def getMore() -> Deferred[tuple[int, bool, bool]]:
            asked.append(len(asked))
            return succeed((asked[-1], True, True))

        deferator: Any = Deferator("some things", getMore)

        @inlineCallbacks
        def loop() -> Any:
            for d in deferator:
                item = yield d
                if item == 2:
                    d.stop()
                    return item

        self.assertEqual(self.successResultOf(loop()), 2)
        self.assertEqual(asked, [0, 1, 2])
        self.assertIs(self.successResultOf(deferator.d), False)


class TrackerTests(SynchronousTestCase):
    """The example of L{DeferredTracker}: at most four of twelve jobs at a time."""

    def setUp(self) -> None:
        """Make a tracker, and jobs that take a second."""
        self.clock = Clock()
        self.tracker = DeferredTracker(reactor=self.clock)
        self.running = self.most = 0
        self.done: list[int] = []

    def start(self, job: int) -> Deferred[int]:
        """Start a job."""
        self.running += 1
        self.most = max(self.most, self.running)
        d: Deferred[int] = Deferred()
        self.clock.callLater(1, d.callback, job)
        return d

    def end(self, job: int) -> None:
        """Take the result of a job."""
        self.running -= 1
        self.done.append(job)

    def runAll(self, runOne: Any) -> None:
        """Run twelve jobs, whenever fewer than four are running."""

        @inlineCallbacks
        def loop() -> Any:
            for job in range(12):
                yield self.tracker.deferUntilFewer(4)
                runOne(job)
            yield self.tracker.deferToAll()
            return list(self.done)

        finished = loop()
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.successResultOf(finished), list(range(12)))
        self.assertEqual(self.most, 4)

    def test_callbackFirst(self) -> None:
        """What has its callback is tracked."""
        self.runAll(lambda job: self.tracker.put(self.start(job).addCallback(self.end)))

    def test_putFirst(self) -> None:
        """
        What is tracked is given its callback, which has run, too, when a wait ends.
        """
        self.runAll(lambda job: self.tracker.put(self.start(job)).addCallback(self.end))


class LockTests(SynchronousTestCase):
    """The example of L{DeferredLock}."""

    def test_context(self) -> None:
        """
        Those who want the lock have it one after the other, each for the time of a
        block.
        """
        lock = DeferredLock()
        events: list[tuple[str, int]] = []
        gates: list[Deferred[None]] = [Deferred() for _ in range(3)]

        @inlineCallbacks
        def use(n: int) -> Any:
            with lock.context() as d:
                yield d
                events.append(("in", n))
                yield gates[n]
                events.append(("out", n))

        done = [use(n) for n in range(3)]
        for n in reversed(range(3)):
            gates[n].callback(None)
        for d in done:
            self.successResultOf(d)
        self.assertEqual(events, [(w, n) for n in range(3) for w in ("in", "out")])
        self.assertFalse(lock.locked)


class Producer:
    """A push producer that declares no interface, and writes when it's told to."""

    def __init__(self) -> None:
        self.isPaused = False
        self.isStopped = False

    def pauseProducing(self) -> None:
        """Pause."""
        self.isPaused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self.isPaused = False

    def stopProducing(self) -> None:
        """Stop."""
        self.isStopped = True

    @inlineCallbacks
    def run(self, consumer: Any) -> Any:
        """Write some items, each when the last one has been taken in."""
        for item in range(40):
            yield consumer.write(item)
        yield consumer.unregisterProducer()


class ConsumeratorTests(TestCase):
    """The example of L{Consumerator}."""

    timeout = 30

    @inlineCallbacks
    def test_blockingReader(self) -> Any:
        """
        What a producer writes in the reactor's thread is iterated over by blocking code
        in another.
        """
        self.addCleanup(deferToThread)
        producer = Producer()
        consumerator = Consumerator(producer)
        items = deferToThread(list, consumerator)
        yield producer.run(consumerator)
        self.assertEqual((yield items), list(range(40)))
        yield consumerator.deferUntilDone()
