"""
Tests of L{asynqueue._child.callserver}, and of what a reactor in the child adds to it,
without a child.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from asynqueue._child import childreactor
from asynqueue._child.buffers import THRESHOLD, BufferReader, BufferWriter, Incoming
from asynqueue._child.callserver import CallInterrupted, CallServer
from asynqueue._child.childreactor import ReactorCallServer
from asynqueue._child.mainmodule import preparation
from asynqueue._child.memfd import openMemoryFile
from asynqueue._child.pickling import Packed, dumps, dumpsPlain, loads, loadsMany
from asynqueue._child.protocol import BUFFERS, COUNT, Kind
from asynqueue._child.stream import WAITS, Stream
from asynqueue._support.answers import loadsException as rebuild
from asynqueue.errors import SerializationError

from . import _jobs as jobs


def itemsOf(payload: Any) -> list[list[Any]]:
    """Unpickle items that a stream has sent."""
    if isinstance(payload, Packed):
        return [loads(payload.pickle, buffers=payload.buffers)]
    return list(loadsMany(memoryview(payload)))


class FakePipes:
    """
    Pipes of which the test says what comes through them.

    @ivar incoming: Lists of frames, and C{None} for the end.

    @ivar sent: Frames that were sent.

    @ivar revoked: Numbers of calls that were revoked.

    @ivar writer: Where large results go, if they go anywhere.
    """

    def __init__(self, incoming: Any = (), reader: Any = None) -> None:
        self.incoming = list(incoming)
        self.sent: list[tuple[int, int, Any]] = []
        self.revoked: set[int] = set()
        self.reader = reader
        self.writer: Any = None
        self.checks = 0

    def fileno(self) -> int:
        """Tell a descriptor."""
        return 3

    def claim(self, number: int) -> bool:
        """Claim a call."""
        return number not in self.revoked

    def tellSignalled(self) -> None:
        """Never called here."""

    def check(self) -> None:
        """Count."""
        self.checks += 1

    def release(self, payload: Any) -> None:
        """Take back regions."""
        self.writer.release(payload)

    def send(self, kind: int, number: int, payload: Any) -> None:
        """Send a frame."""
        if self.writer is not None and isinstance(payload, Packed):
            kind, payload = kind | BUFFERS, self.writer.put(payload)
        self.sent.append((kind, number, payload))

    def receive(self, wait: bool) -> Any:
        """Receive frames."""
        return self.incoming.pop(0) if self.incoming else []


class Ending(BaseException):
    """An exception that C{except Exception} doesn't catch."""


class Mute(Exception):
    """An exception that can't be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise Ending


def given(iterator: Any) -> Any:
    """Return what is given."""
    return iterator


#: What L{take} returns.
shelf: list[Any] = []


def take() -> Any:
    """Return what is on the shelf: it can't be sent to where this is called."""
    return shelf.pop()


def callIt() -> Any:
    """Call what is on the shelf."""
    return shelf.pop()()


class ServerCase(SynchronousTestCase):
    """A test of a server."""

    def setUp(self) -> None:
        """Make it."""
        self.pipes = FakePipes(reader=BufferReader(-1))
        self.sent = self.pipes.sent
        self.onItems: Callable[[], object] = lambda: None
        send = self.pipes.send

        def sendAndTell(kind: int, number: int, payload: Any) -> None:
            send(kind, number, payload)
            if kind == Kind.ITEMS:
                self.onItems()

        self.pipes.send = sendAndTell  # type: ignore[method-assign]
        self.server = self.make()
        shelf.clear()

    def make(self) -> CallServer:
        """Make a server."""
        return CallServer(self.pipes)

    def handle(self, kind: int, number: int, payload: bytes = b"") -> None:
        """Do as if a frame had come from the parent."""
        self.server.handle(kind, number, memoryview(payload))

    def call(self, number: int, f: Any, *args: Any, raw: bool = False) -> None:
        """Do as if a call had come."""
        self.handle(Kind.CALL, number, dumpsPlain((f, args, {}, raw)))

    def callFor(self, number: int, thing: Any) -> None:
        """Do as if a call had come that returns a certain thing."""
        shelf.append(thing)
        self.call(number, take)

    def take(self, number: int, count: int) -> None:
        """Do as if the parent had told that items were taken."""
        self.handle(Kind.TAKEN, number, COUNT.pack(count))

    def advance(self) -> None:
        """Advance iterations as far as they go."""
        while not self.server.isIdle():
            self.server.advance()

    def frames(self) -> list[tuple[int, int, bytes]]:
        """Get the frames that were sent, and forget them."""
        sent, self.sent[:] = list(self.sent), []
        return sent

    def frame(self) -> tuple[int, int, Any]:
        """
        Get the only frame that was sent, and forget it: its kind, number, and payload;
        that of a result without the seconds.
        """
        [(kind, number, payload)] = self.frames()
        if kind == Kind.ITERATOR:
            self.assertGreaterEqual(loads(payload), 0)
            return kind, number, b""
        if kind == Kind.RESULT:
            seconds, result = loads(payload)
            self.assertGreaterEqual(seconds, 0)
            payload = dumpsPlain(result)
        return kind, number, payload

    def items(self, number: int) -> tuple[list[Any], list[int]]:
        """
        Get the items of an iteration that were sent, and the kinds of the frames that
        aren't for items, and forget them.
        """
        items: list[Any] = []
        kinds = []
        for kind, other, payload in self.frames():
            self.assertEqual(other, number)
            if kind == Kind.ITEMS:
                for some in itemsOf(payload):
                    items += some
            else:
                kinds.append(kind)
        return items, kinds

    def error(self) -> Any:
        """Get the exception that the only frame tells of, and forget it."""
        kind, _, payload = self.frame()
        self.assertEqual(kind, Kind.ERROR)
        return rebuild(payload).exception


class CallTests(ServerCase):
    """Tests of calls."""

    def test_result(self) -> None:
        """What a call returns is sent, with the number of the call."""
        self.call(7, divmod, 7, 2)
        kind, number, payload = self.frame()
        self.assertEqual((kind, number, loads(payload)), (Kind.RESULT, 7, (3, 1)))
        self.assertTrue(self.server.isIdle())

    def test_error(self) -> None:
        """What it raises is sent, with text about it."""
        self.call(7, jobs.raiseThat, KeyError, "x")
        kind, number, payload = self.frame()
        text = rebuild(payload)
        self.assertEqual((kind, number), (Kind.ERROR, 7))
        self.assertTrue(text.startswith("Exception"))
        self.assertIs(type(text.exception), KeyError)

    def test_base(self) -> None:
        """Nothing gets out, whatever is raised."""
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, Ending, Mute):
            self.call(7, jobs.raiseThat, kind)
            self.assertIn(kind.__name__, str(self.error().__cause__))

    def test_unpicklableCall(self) -> None:
        """A call that can't be unpickled is told of."""
        for payload in (b"garbage", dumpsPlain(jobs.OnlyInChild())):
            self.handle(Kind.CALL, 7, payload)
            error = self.error()
            self.assertIs(type(error), SerializationError)
            self.assertIn("can't be unpickled in the child", str(error))

    def test_missingModule(self) -> None:
        """
        If it's of a module that isn't found, it's said where modules are looked for.
        """
        self.handle(Kind.CALL, 7, b"\x80\x05cno_such_module\nf\n.")
        error = self.error()
        self.assertIn("No module named 'no_such_module'", str(error))
        self.assertIn("PYTHONPATH", str(error))

    def test_unpicklableResult(self) -> None:
        """So is a result that can't be pickled."""
        self.call(7, jobs.givesLock)
        error = self.error()
        self.assertIs(type(error), SerializationError)
        self.assertIn("The result can't be pickled", str(error))
        self.assertIn("lock", str(error))

    def test_hostileResult(self) -> None:
        """A result whose class can't even be looked at fails its call alone."""
        self.call(7, jobs.givesOdd)
        error = self.error()
        self.assertIs(type(error), SerializationError)
        self.assertIn("ValueError: no __", str(error))
        self.call(8, abs, -1)
        self.assertEqual(self.frame()[:2], (Kind.RESULT, 8))

    def test_awaitable(self) -> None:
        """What only a reactor could wait for is refused in words."""
        for f, what in (
            (jobs.coroutine, "a coroutine"),
            (succeed, "a Deferred"),
            (jobs.asyncItems, "an asynchronous generator"),
        ):
            self.call(7, f, 1)
            error = self.error()
            self.assertIs(type(error), TypeError)
            self.assertIn(f"has returned {what}", str(error))
            self.assertIn("useReactor", str(error))

    def test_forked(self) -> None:
        """
        A process that a call has forked answers nothing, however it leaves the call.
        It ends as it would have at the end of a program.
        """
        for how, code in (("return", 0), ("exit", 3), ("raise", 1)):
            self.call(7, jobs.forks, how)
            _, _, payload = self.frame()
            self.assertEqual(loads(payload), code, how)

    def test_raw(self) -> None:
        """An iterator that's wanted as it is is a result like any other."""
        self.call(7, iter, [1, 2], raw=True)
        kind, _, payload = self.frame()
        self.assertEqual((kind, list(loads(payload))), (Kind.RESULT, [1, 2]))


class InterruptionTests(ServerCase):
    """Tests of calls and iterations that are stopped by an exception."""

    def interrupt(self, number: int) -> None:
        """Do as if the parent had interrupted a call, from within its code."""
        self.patch(self.pipes.reader, "interrupted", lambda: number)
        self.server.interrupted(0, sys._getframe())

    def test_call(self) -> None:
        """An exception is raised in a call, and the next is run."""

        def stopped() -> None:
            self.interrupt(7)
            jobs.memory.append("not reached")

        shelf.append(stopped)
        self.call(7, callIt)
        error = self.error()
        self.assertIn("CallInterrupted", str(error))
        self.assertEqual(jobs.memory, [])
        self.call(8, abs, -1)
        self.assertEqual(self.frame()[:2], (Kind.RESULT, 8))

    def test_others(self) -> None:
        """Nothing is raised in another call, or when nothing of the user's is run."""
        shelf.append(lambda: self.interrupt(6))
        self.call(7, callIt)
        self.assertEqual(self.frame()[:2], (Kind.RESULT, 7))
        self.interrupt(7)
        self.interrupt(0)

    def test_ours(self) -> None:
        """Nothing is raised while a frame is sent, or anything else of ours is done."""
        self.server.running = 7
        self.patch(self.pipes.reader, "interrupted", lambda: 7)
        code = compile("server.interrupted(0, sys._getframe())", "x", "exec")
        exec(
            code, {"__name__": "asynqueue._child.x", "sys": sys, "server": self.server}
        )
        self.assertEqual(self.server.running, 7)

    def test_swallowed(self) -> None:
        """Code that goes on nevertheless isn't interrupted a second time."""

        def stubborn() -> str:
            try:
                self.interrupt(7)
            except CallInterrupted:
                self.interrupt(7)
            return "done"

        shelf.append(stubborn)
        self.call(7, callIt)
        self.assertEqual(loads(self.frame()[2]), "done")

    def test_iteration(self) -> None:
        """An iteration fails, and others go on."""

        def items() -> Iterator[int]:
            yield 1
            self.interrupt(7)

        self.callFor(7, items())
        self.callFor(8, iter([5]))
        self.frames()
        self.advance()
        kinds = {(kind, number) for kind, number, _ in self.frames()}
        self.assertIn((Kind.FAILED, 7), kinds)
        self.assertIn((Kind.END, 8), kinds)


class LargeTests(ServerCase):
    """Tests of calls with large arguments and results."""

    def setUp(self) -> None:
        """Have what the parent has."""
        super().setUp()
        fds = openMemoryFile(), openMemoryFile()
        for fd in fds:
            self.addCleanup(os.close, fd)
        self.outbox, self.inbox = BufferWriter(fds[0]), BufferReader(fds[1])
        self.pipes.reader = BufferReader(fds[0])
        self.pipes.writer = BufferWriter(fds[1])

    def callLarge(self, number: int, f: Any, *args: Any) -> None:
        """Do as if a call with large arguments had come."""
        packed = dumps((f, args, {}, False))
        assert isinstance(packed, Packed)
        self.handle(Kind.CALL | BUFFERS, number, self.outbox.put(packed))

    def test_thereAndBack(self) -> None:
        """
        Arguments come from one file, results go to the other, with how long it took.
        """
        data = os.urandom(THRESHOLD)
        self.callLarge(7, bytearray, data)
        [(kind, number, payload)] = self.frames()
        self.assertEqual((kind, number), (Kind.RESULT | BUFFERS, 7))
        incoming = Incoming(self.inbox, memoryview(payload))
        incoming.read()
        seconds, result = incoming.loads()
        self.assertLess(seconds, 60)
        self.assertEqual(result, bytearray(data))

    def test_small(self) -> None:
        """Results that aren't large go as usual."""
        self.callLarge(7, len, bytes(THRESHOLD))
        kind, _, payload = self.frame()
        self.assertEqual((kind, loads(payload)), (Kind.RESULT, THRESHOLD))

    def test_release(self) -> None:
        """Each side tells the other what isn't needed any longer."""
        self.callLarge(7, bytearray, bytes(THRESHOLD))
        self.outbox.release(self.pipes.reader.unneeded())
        self.assertEqual(self.outbox._allocator._lengths, {})
        [(_, _, payload)] = self.frames()
        self.assertEqual(sum(self.pipes.writer._allocator._lengths.values()), THRESHOLD)
        Incoming(self.inbox, memoryview(payload)).discard()
        self.handle(Kind.RELEASE, 0, self.inbox.unneeded())
        self.assertEqual(self.pipes.writer._allocator._lengths, {})

    def test_revoked(self) -> None:
        """
        A call that was revoked isn't run, and its arguments aren't needed any longer.
        """
        self.pipes.revoked = {6, 7}
        self.call(6, len, "small")
        self.callLarge(7, len, bytes(THRESHOLD))
        self.assertEqual(self.frames(), [])
        self.outbox.release(self.pipes.reader.unneeded())
        self.assertEqual(self.outbox._allocator._lengths, {})

    def test_items(self) -> None:
        """
        Items of iterations go that way, too, in order with others, and some at a time.
        """
        items = [1, b"b" * 6_000_000, "s", b"c" * 6_000_000, b"d" * 6_000_000, 5]
        self.callFor(7, iter(items))
        while not self.server.isIdle():
            self.server.advance()
        got: list[Any] = []
        for kind, _, payload in self.frames()[1:]:
            if kind == Kind.ITEMS | BUFFERS:
                incoming = Incoming(self.inbox, memoryview(payload))
                incoming.read()
                got += incoming.loads()
            else:
                self.assertEqual(kind, Kind.ITEMS)
                for some in itemsOf(payload):
                    got += some
        self.assertEqual(got, items[:-1])

    def test_unreadable(self) -> None:
        """A call whose arguments aren't there fails."""
        self.pipes.reader.fd = -1
        self.callLarge(7, len, bytes(THRESHOLD))
        error = self.error()
        self.assertIs(type(error), SerializationError)
        self.assertIn("can't be unpickled in the child", str(error))

    def test_noRoom(self) -> None:
        """So does one for whose result there's no room, with what says so."""

        def fail(*_: Any) -> bytes:
            raise MemoryError("no room")

        self.patch(self.pipes.writer, "put", fail)
        self.callFor(7, bytes(THRESHOLD))
        error = self.error()
        self.assertEqual((type(error), str(error)), (MemoryError, "no room"))


class IterationTests(ServerCase):
    """Tests of iterations."""

    def test_items(self) -> None:
        """The items follow the word that there is an iterator, then that of its end."""
        self.call(7, iter, [1, None, "x"])
        self.assertEqual(self.frame(), (Kind.ITERATOR, 7, b""))
        self.assertFalse(self.server.isIdle())
        self.advance()
        self.assertEqual(self.items(7), ([1, None, "x"], [Kind.END]))
        self.assertEqual(self.server.streams, {})

    def test_empty(self) -> None:
        """If there are no items, the end follows."""
        self.call(7, iter, [])
        self.advance()
        self.assertEqual([kind for kind, _, _ in self.frames()], [19, Kind.END])

    def test_fewFrames(self) -> None:
        """Items that come fast come in few frames."""
        self.call(7, iter, range(16))
        self.advance()
        self.assertLess(len(self.frames()), 10)

    def test_window(self) -> None:
        """So many items are sent that haven't been taken, and no more."""
        self.call(7, jobs.count, 100)
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), (list(range(16)), []))
        self.take(7, 1)
        self.advance()
        self.assertEqual(self.items(7), ([16], []))
        self.take(7, 16)
        self.advance()
        self.assertEqual(self.items(7), (list(range(17, 33)), []))

    def test_windowOfBytes(self) -> None:
        """Of large items, fewer are."""
        item = "x" * 400_000
        self.callFor(7, iter([item] * 10))
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), ([item] * 3, []))
        self.take(7, 2)
        self.advance()
        self.assertEqual(self.items(7), ([item] * 2, []))

    def test_growingWindow(self) -> None:
        """
        More items are sent if the consumer has taken all and waits, again and again, up
        to a limit.
        """
        self.call(7, jobs.count, 1_000_000)
        stream = self.server.streams[7]
        self.frames()
        sizes = []
        for _ in range(12):
            self.advance()
            items, _ = self.items(7)
            sizes.append(len(items))
            self.take(7, len(items) | WAITS)
        self.assertEqual(sizes[:3], [16, 32, 64])
        self.assertEqual(sizes[-1], 2048)
        self.assertEqual(stream.window, 2048)

    def test_windowAsItIs(self) -> None:
        """Not more are sent if others are there still, or if fewer would have done."""
        self.call(7, jobs.count, 1_000)
        stream = self.server.streams[7]
        self.advance()
        for _ in range(10):
            self.take(7, 8)
            self.advance()
            self.assertEqual(stream.window, 16)
        self.take(7, 16 | WAITS)
        self.take(7, WAITS)
        self.take(7, WAITS)
        self.assertEqual(stream.window, 32)

    def test_changedItem(self) -> None:
        """An item is what it was when it was yielded."""

        def growing() -> Iterator[list[int]]:
            items: list[int] = []
            for i in range(3):
                items.append(i)
                yield items

        self.callFor(7, growing())
        self.frame()
        self.advance()
        self.assertEqual(self.items(7)[0], [[0], [0, 1], [0, 1, 2]])

    def test_fails(self) -> None:
        """What the iterator raises follows its items."""
        self.call(7, jobs.countAndFail, 3)
        self.frame()
        self.advance()
        self.assertIs(type(rebuild(self.sent[-1][2]).exception), jobs.OfTheTask)
        self.assertEqual(self.items(7), ([0, 1, 2], [Kind.FAILED]))
        self.assertEqual(self.server.streams, {})

    def test_failsBadly(self) -> None:
        """Nothing gets out, whatever it raises."""
        for error in (SystemExit(), Ending(), Mute()):

            def raises(error: BaseException) -> Iterator[None]:
                yield from ()
                raise error

            self.callFor(7, raises(error))
            self.frame()
            self.advance()
            text = str(rebuild(self.sent[-1][2]).exception.__cause__)  # type: ignore[union-attr]
            self.assertIn(type(error).__name__, text)
            self.assertEqual(self.items(7), ([], [Kind.FAILED]))

    def test_unpicklableItem(self) -> None:
        """
        An item that can't be pickled is such a failure, and the iterator is closed.
        """
        self.addCleanup(jobs.memory.clear)
        self.call(7, jobs.locks, 2)
        self.frame()
        self.advance()
        error = rebuild(self.sent[-1][2]).exception
        self.assertIs(type(error), SerializationError)
        self.assertEqual(self.items(7), ([0, 1], [Kind.FAILED]))
        self.assertEqual(jobs.memory, ["closed"])

    def test_close(self) -> None:
        """
        An iterator is closed when the parent says so. What comes for it afterwards is
        ignored.
        """
        self.addCleanup(jobs.memory.clear)
        self.call(7, jobs.countForEver)
        self.advance()
        self.frames()
        self.handle(Kind.CLOSE, 7)
        self.assertEqual(self.frames(), [(Kind.END, 7, b"")])
        self.assertEqual(jobs.memory[1:], ["ended"])
        self.assertTrue(self.server.isIdle())
        self.handle(Kind.CLOSE, 7)
        self.take(7, 3)

    def test_closeFails(self) -> None:
        """What is raised when it's closed is written to stderr."""

        def stubborn() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise ValueError("not so fast")

        told: list[Any] = []
        self.patch(sys, "excepthook", lambda *args: told.append(args))
        self.callFor(7, stubborn())
        self.advance()
        self.handle(Kind.CLOSE, 7)
        self.assertEqual([kind for kind, _, _ in told], [ValueError])

    def test_closeFailsBadly(self) -> None:
        """Nothing gets out, even if that fails."""

        def hook(*args: Any) -> None:
            raise Ending

        def stubborn() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise Ending

        self.patch(sys, "excepthook", hook)
        self.callFor(7, stubborn())
        self.advance()
        self.handle(Kind.CLOSE, 7)
        self.assertTrue(self.server.isIdle())

    def test_closeAll(self) -> None:
        """All are closed at the end."""
        self.addCleanup(jobs.memory.clear)
        self.call(7, jobs.countForEver)
        self.call(8, jobs.count, 100)
        self.advance()
        self.server.close()
        self.assertEqual(jobs.memory[1:], ["ended"])
        self.assertEqual(self.server.streams, {})

    def test_turns(self) -> None:
        """Several iterations are advanced in turn."""
        self.call(7, jobs.count, 10)
        self.call(8, jobs.count, 10)
        self.frames()
        self.advance()
        ends = [number for kind, number, _ in self.frames() if kind == Kind.END]
        self.assertEqual(sorted(ends), [7, 8])

    def test_slow(self) -> None:
        """An item doesn't wait for the next one, if that takes its time."""
        sent = threading.Event()
        self.onItems = sent.set
        in_time = []

        def slow() -> Iterator[int]:
            yield 1
            yield 2
            in_time.append(sent.wait(10))
            yield 3

        self.callFor(7, slow())
        self.frame()
        self.advance()
        self.assertEqual(in_time, [True])
        self.assertEqual(self.items(7), ([1, 2, 3], [Kind.END]))

    def test_slowAmongFast(self) -> None:
        """Nor does it among many that came fast."""
        sent = threading.Event()
        in_time = []

        def haveBeenSent(count: int) -> bool:
            while True:
                sent.clear()
                payloads = [it for kind, _, it in self.sent if kind == Kind.ITEMS]
                lists = [it for some in payloads for it in itemsOf(some)]
                if sum(map(len, lists)) == count:
                    return True
                if not sent.wait(10):
                    return False

        def slow() -> Iterator[int]:
            yield from range(100)
            for i in range(100, 103):
                in_time.append(haveBeenSent(i))
                yield i

        self.onItems = sent.set
        self.callFor(7, slow())
        self.server.streams[7].window = 1_000
        self.frame()
        self.advance()
        self.assertEqual(in_time, [True] * 3)
        self.assertEqual(self.items(7), (list(range(103)), [Kind.END]))

    def test_together(self) -> None:
        """
        Items that nobody can change are pickled together, others by themselves, in
        their order.
        """
        items = [1, "a", b"b", 2.5, None, True, [1], 1 << 100, "x" * 1_000, 7]
        self.callFor(7, iter(items))
        self.frame()
        self.advance()
        pickles: list[Any] = []
        for kind, _, payload in self.frames():
            if kind == Kind.ITEMS:
                pickles += itemsOf(payload)
        self.assertEqual([item for some in pickles for item in some], items)
        self.assertIn([[1]], pickles)
        self.assertLess(len(pickles), 9)

    def test_iteratesOnce(self) -> None:
        """An iterator that starts over when it's asked for itself isn't asked."""

        class Restarting:
            """An iterator that starts over."""

            at = 0

            def __iter__(self) -> Restarting:
                self.at = 0
                return self

            def __next__(self) -> int:
                self.at += 1
                if self.at > 20:
                    raise StopIteration
                return self.at

        self.callFor(7, Restarting())
        self.server.streams[7].window = 100
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), (list(range(1, 21)), [Kind.END]))

    def test_nothing(self) -> None:
        """Kinds of frames that it has nothing to do with are ignored."""
        self.handle(Kind.HELLO, 7)
        self.assertEqual(self.sent, [])


class ReactorTests(ServerCase):
    """Tests of L{ReactorCallServer}."""

    def make(self) -> CallServer:
        """Make a server."""
        reactor: Any = Clock()
        self.clock = reactor
        return ReactorCallServer(self.pipes, reactor)

    def advance(self) -> None:
        """Let the reactor do what it's to do."""
        while self.clock.getDelayedCalls():
            self.clock.advance(0)

    def test_deferred(self) -> None:
        """What a Deferred fires with is the result."""
        d: Deferred[int] = Deferred()
        self.callFor(7, d)
        self.assertEqual(self.sent, [])
        d.callback(3)
        kind, number, payload = self.frame()
        self.assertEqual((kind, number, loads(payload)), (Kind.RESULT, 7, 3))

    def test_failure(self) -> None:
        """What it fails with is what the call has failed with."""
        self.callFor(7, fail(KeyError("x")))
        self.assertIs(type(self.error()), KeyError)

    def test_cancelled(self) -> None:
        """A Deferred that is waited for is cancelled if the parent wants that."""
        d: Deferred[int] = Deferred()
        self.callFor(7, d)
        self.handle(Kind.CLOSE, 7)
        self.assertIn("CancelledError", str(self.error().__cause__))

    def test_checked(self) -> None:
        """It's checked after each call that the pipe is what it was."""
        self.callFor(7, 1)
        self.assertEqual(self.pipes.checks, 1)

    def test_unpicklableResult(self) -> None:
        """What can't be pickled is told of here, too."""
        self.callFor(7, succeed(threading.Lock()))
        self.assertIs(type(self.error()), SerializationError)

    def test_iterator(self) -> None:
        """
        An iterator is advanced when the reactor has had its turn, and may come from a
        Deferred.
        """
        self.callFor(7, succeed(iter(range(40))))
        self.assertEqual(self.frame(), (Kind.ITERATOR, 7, b""))
        self.advance()
        self.assertEqual(self.items(7), (list(range(16)), []))
        self.take(7, 16)
        self.server.schedule()  # type: ignore[attr-defined]
        self.server.schedule()  # type: ignore[attr-defined]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.advance()
        self.assertEqual(self.items(7)[0], list(range(16, 32)))

    def test_deferredItems(self) -> None:
        """Items may be Deferreds. The next one isn't asked for before."""
        d: Deferred[int] = Deferred()
        self.callFor(7, iter([1, succeed(2), d, 4]))
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), ([1, 2], []))
        d.callback(3)
        self.advance()
        self.assertEqual(self.items(7), ([3, 4], [Kind.END]))

    def test_failingItem(self) -> None:
        """One that fails ends the iteration, and has the iterator closed."""
        closed = []

        def items(d: Deferred[int]) -> Iterator[Any]:
            try:
                yield 1
                yield d
            finally:
                closed.append(True)

        for error in (KeyError("x"), Mute(), Ending()):
            self.callFor(7, items(fail(Failure(error))))
            self.frame()
            self.advance()
            text = str(rebuild(self.sent[-1][2]).exception.__cause__)  # type: ignore[union-attr]
            self.assertIn(type(error).__name__, text)
            self.assertEqual(self.items(7), ([1], [Kind.FAILED]))
        self.assertEqual(closed, [True] * 3)

    def test_unpicklableItems(self) -> None:
        """Items that can't be pickled do so, too, whether they're Deferreds or not."""
        for item in (threading.Lock(), succeed(threading.Lock())):
            self.callFor(7, iter([1, item]))
            self.frame()
            self.advance()
            self.assertEqual(self.items(7), ([1], [Kind.FAILED]))

    def test_failingIterator(self) -> None:
        """The iterator itself may fail."""
        self.call(7, jobs.countAndFail, 2)
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), ([0, 1], [Kind.FAILED]))

    def test_goesOnNever(self) -> None:
        """Nothing is made after an item that has failed at once."""
        self.callFor(7, iter([1, fail(KeyError("x")), 2]))
        self.server.streams[7].window = 100
        self.frame()
        self.advance()
        self.assertEqual(self.items(7), ([1], [Kind.FAILED]))

    def test_closed(self) -> None:
        """If the iteration is closed while an item is waited for, that's ignored."""
        for outcome in (3, Failure(KeyError())):
            d: Deferred[Any] = Deferred()
            self.callFor(7, iter([d]))
            self.frame()
            self.advance()
            self.handle(Kind.CLOSE, 7)
            d.callback(outcome)
            self.advance()
            self.assertEqual(self.frames(), [(Kind.END, 7, b"")])

    def test_closedInTheMeantime(self) -> None:
        """If it's closed before it has been advanced, nothing happens."""
        self.call(7, jobs.count, 3)
        self.frame()
        self.handle(Kind.CLOSE, 7)
        self.advance()
        self.assertEqual(self.frames(), [(Kind.END, 7, b"")])


class LargeReactorTests(LargeTests):
    """The same where there's a reactor."""

    def make(self) -> CallServer:
        """Make a server."""
        reactor: Any = Clock()
        return ReactorCallServer(self.pipes, reactor)

    def test_noRoomLater(self) -> None:
        """It's told of results for which there's no room when they come later, too."""

        def fail(*_: Any) -> bytes:
            raise MemoryError

        self.patch(self.pipes.writer, "put", fail)
        d: Deferred[bytes] = Deferred()
        self.callFor(7, d)
        d.callback(bytes(THRESHOLD))
        self.assertIs(type(self.error()), MemoryError)


class LaggingTests(SynchronousTestCase):
    """Tests of L{Stream} with a consumer that lags behind."""

    def setUp(self) -> None:
        """Make one with a window that has grown."""
        self.clock = Clock()
        self.sent = 0
        self.stream = Stream(7, jobs.count(100_000), self.send, self.clock.seconds)
        self.stream.window = 2048
        self.make()

    def send(self, kind: int, number: int, payload: Any) -> None:
        """Count the items in a frame."""
        for some in itemsOf(payload):
            self.sent += len(some)

    def make(self) -> None:
        """Make as many items as may be sent."""
        self.stream.make(float("inf"), lambda: None)

    def test_quick(self) -> None:
        """Nothing changes if it doesn't."""
        self.assertEqual(self.sent, 2048)
        for _ in range(100):
            self.clock.advance(0.001)
            self.stream.taken(400)
            self.make()
        self.assertEqual(self.stream.window, 2048)
        self.assertEqual(self.sent, 2048 + 40_000)

    def test_slow(self) -> None:
        """
        The window shrinks if it does, until there are as few items on their way as
        there were to begin with.
        """
        taken = 0
        while self.stream.window > 16:
            self.clock.advance(1)
            self.stream.taken(100)
            taken += 100
            self.make()
        self.assertLess(taken, 1_000)
        while taken < 2048:
            self.stream.taken(1)
            taken += 1
            self.make()
            self.assertLessEqual(self.sent - taken, max(16, 2048 - taken))
        self.assertEqual(self.sent - taken, 16)

    def test_bytes(self) -> None:
        """However large the window is, no more than about a megabyte is on its way."""
        sizes: list[int] = []
        stream = Stream(
            7,
            (f"{i:500}" for i in range(10_000)),
            lambda *args: sizes.append(len(args[2])),
            self.clock.seconds,
        )
        stream.window = 2048
        stream.make(float("inf"), lambda: None)
        self.assertLess(sum(sizes), (1 << 20) + 65_536)
        self.assertLess(max(sizes), 100_000)
        self.assertGreater(sum(sizes), 900_000)


class FakeCoreReactor(Clock):
    """A reactor that runs by letting its one reader read until it's stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.begun: list[Any] = []
        self.stops = 0

    def addReader(self, reader: Any) -> None:
        """Add a reader."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Remove a reader."""
        self.readers.remove(reader)

    def callWhenRunning(self, f: Any, *args: Any) -> None:
        """Have something called."""
        self.begun.append(f)

    def stop(self) -> None:
        """Stop."""
        self.stops += 1

    def run(self) -> None:
        """Run until stopped."""
        while not self.stops:
            verifyObject(IReadDescriptor, self.readers[0])
            self.readers[0].doRead()
            self.advance(0)


class RunTests(SynchronousTestCase):
    """Tests of L{childreactor.serve}."""

    def setUp(self) -> None:
        """Make a reactor."""
        self.reactor: Any = FakeCoreReactor()
        self.setUps: list[Any] = []
        self.gaveUp: list[BaseException] = []
        self.initialized: Any = None

    def prepare(self, payload: memoryview) -> Any:
        """
        Do as if the interpreter was set up. Returns what the initializer has returned.
        """
        self.setUps.append(payload)
        return self.initialized

    def run_(self, pipes: FakePipes) -> bool:
        """Run the child's side."""
        self.patch(childreactor, "setUp", self.prepare)
        self.patch(childreactor, "giveUp", self.gaveUp.append)
        self.patch(childreactor, "Pipes", lambda wake: pipes)
        return childreactor.serve(self.reactor)

    def test_run(self) -> None:
        """
        It's set up, greets, does what it's told, and stops at the end of its pipe.
        """
        pipes = FakePipes(
            [
                [(Kind.SETUP, 0, memoryview(dumpsPlain(preparation())))],
                [(Kind.CALL, 1, memoryview(dumpsPlain((divmod, (7, 2), {}, False))))],
                None,
            ]
        )
        self.run_(pipes)
        self.assertEqual(len(self.setUps), 1)
        self.assertEqual([kind for kind, _, _ in pipes.sent], [Kind.HELLO, Kind.RESULT])
        self.assertEqual(self.reactor.stops, 1)
        self.assertEqual(self.reactor.readers, [])

    def test_initializer(self) -> None:
        """It greets, and does what it has been told, when the initializer is done."""
        d: Deferred[None] = Deferred()
        self.initialized = d
        pipes = FakePipes(
            [
                [
                    (Kind.SETUP, 0, memoryview(b"")),
                    (Kind.CALL, 1, memoryview(dumpsPlain((divmod, (7, 2), {}, False)))),
                ],
                [(Kind.CALL, 2, memoryview(dumpsPlain((divmod, (7, 2), {}, False))))],
                [],
                None,
            ]
        )

        def initialize() -> None:
            self.assertEqual(pipes.sent, [])
            d.callback(None)

        self.reactor.callLater(0, initialize)
        self.run_(pipes)
        self.assertEqual(
            [(kind, number) for kind, number, _ in pipes.sent],
            [(Kind.HELLO, 0), (Kind.RESULT, 1), (Kind.RESULT, 2)],
        )
        self.assertEqual(self.gaveUp, [])

    def test_failingInitializer(self) -> None:
        """If that fails, the child is given up."""
        self.initialized = fail(KeyError("x"))
        pipes = FakePipes([[(Kind.SETUP, 0, memoryview(b""))], None])
        self.run_(pipes)
        self.assertEqual([type(error) for error in self.gaveUp], [KeyError])
        self.assertEqual(pipes.sent, [])

    def test_stop(self) -> None:
        """It makes a difference whether the parent has said stop, or has gone."""
        hello = (Kind.SETUP, 0, memoryview(b""))
        stop = (Kind.STOP, 0, memoryview(b""))
        self.assertTrue(self.run_(FakePipes([[hello, stop], None])))
        self.reactor.stops = 0
        self.assertFalse(self.run_(FakePipes([[hello], None])))

    def test_endIsAlsoToldSo(self) -> None:
        """Some reactors tell of the end of the pipe as of a lost connection."""
        pipes = FakePipes([])

        def lose() -> None:
            [listener] = self.reactor.readers
            self.assertEqual(listener.fileno(), 3)
            self.assertEqual(listener.logPrefix(), "asynqueue")
            # The reactor stops, but the pipe doesn't.
            listener.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(self.reactor.stops, 0)
            pipes.incoming = [None]
            listener.connectionLost(Failure(ConnectionDone()))

        self.reactor.callLater(0, lose)
        self.run_(pipes)
        self.assertEqual(self.reactor.stops, 1)
