"""
A run in which children, or servers, are killed, stopped and made to wait at random,
the program is forked, its process group signalled, and exit statuses taken, while
calls of all kinds are made; and an account of what has become of the calls::

    python -m tests.chaos --seconds 600 --seed 1
    python -m tests.chaos --seconds 600 --seed 1 --kind servers

Every call must come to one result, and the right one: C{queued} is the sum of C{done}
and of what has failed, by kind, and nothing has failed without a reason of its own.
Exits with code 1 if the account doesn't balance or anything is left behind.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue import TaskQueue
from asynqueue.errors import TimeoutError, WorkerLost
from asynqueue.process import ProcessQueue

from ._chaosjobs import (
    Ordinary,
    count,
    fail,
    isPrepared,
    items,
    large,
    leave,
    nap,
    once,
    prepare,
    square,
)
from ._chaoswire import Servers

#: A large argument.
IMAGE = memoryview(bytearray(3_000_000))

#: So many calls are queued or running at a time.
AT_A_TIME = 64

#: Seconds between two deeds of the agent, on average: there are bad moments and quiet
#: ones.
EVERY = (0.02, 0.05, 0.3)

#: So many of all deeds of those who make calls are to make many short ones at once.
BURSTS = 0.05

#: So many of all deeds of the agent are what else goes on in programs.
NEIGHBOURS = 0.3

#: So many forks live on at a time.
_MOST_FORKS = 3

#: What is sent to the program's process group.
_GROUP_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

#: A child is replaced after so many calls.
MOST_TASKS = 500


@implementer(IConsumer)
class Collector:
    """Collects what is written to it."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Implement C{IConsumer.registerProducer}."""

    def unregisterProducer(self) -> None:
        """Implement C{IConsumer.unregisterProducer}."""

    def write(self, data: Any) -> None:
        """Implement C{IConsumer.write}."""
        self.items.append(data)


class Ledger:
    """The account of the calls."""

    def __init__(self) -> None:
        self.queued = 0
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def balanced(self) -> bool:
        """Whether each call has come to one thing, and no wrong one."""
        return self.queued == sum(self.outcomes.values()) and not self.wrong

    def __str__(self) -> str:
        """The account in a line."""
        outcomes = ", ".join(
            f"{kind} {number}" for kind, number in sorted(self.outcomes.items())
        )
        return f"queued {self.queued} = {outcomes}"


class Children:
    """Children."""

    def __init__(self, reactor: Any, number: int) -> None:
        self.q = ProcessQueue(
            number,
            timeout=5.0,
            maxTasks=MOST_TASKS,
            initializer=(prepare, ("first",)),
        )
        self.q.update(prepare, "second")

    async def start(self) -> None:
        """Wait for nothing: they're being started."""

    def pids(self) -> list[int]:
        """List the processes."""
        return [w.process.pid for w in self.q.workers() if w.process.pid]

    def what(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Say what is to be called: with something large, if that's of use."""
        if f is large:
            return partial(large, image=IMAGE)
        return f

    async def stop(self) -> None:
        """Do nothing, as the queue has stopped them."""


#: Who does the work.
KINDS: dict[str, Callable[[Any, int], Any]] = {"children": Children, "servers": Servers}


class Neighbours:
    """What else may go on in a program that has children."""

    def __init__(self) -> None:
        self._forks: list[int] = []
        os.setpgrp()
        for number in _GROUP_SIGNALS:
            signal.signal(number, lambda *_: None)

    def fork(self) -> None:
        """Have a fork that lives on with all pipes."""
        if len(self._forks) == _MOST_FORKS:
            self._end(self._forks.pop(0))
        pid = os.fork()
        while not pid:
            signal.pause()
        self._forks.append(pid)

    def steal(self) -> None:
        """Take the exit status of whatever has ended."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def signal(self) -> None:
        """Send all processes of the program's group what it handles."""
        for number in _GROUP_SIGNALS:
            os.killpg(0, number)

    def stop(self) -> None:
        """End all forks."""
        while self._forks:
            self._end(self._forks.pop())

    def _end(self, pid: int) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class Chaos:
    """The calls, and the agent that disturbs them."""

    def __init__(self, reactor: Any, kind: str, seed: int, workers: int) -> None:
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.deeds: Counter[str] = Counter()
        self._reactor = reactor
        self._crew = KINDS[kind](reactor, workers)
        self._q: TaskQueue = self._crew.q
        self._workers = workers
        self._neighbours = Neighbours()
        self._halts: list[Any] = []
        self._numbers = itertools.count()
        self._notes = ""

    async def run(self, seconds: float) -> None:
        """Make calls, and disturb them."""
        with tempfile.TemporaryDirectory() as folder:
            self._notes = os.path.join(folder, "notes")
            await self._runAll(seconds)
            self._checkOnce()

    async def _runAll(self, seconds: float) -> None:
        """Make calls, and disturb them, until nothing is left to be done."""
        await self._crew.start()
        end = self._reactor.seconds() + seconds
        lines = [self._makeCalls(end) for _ in range(AT_A_TIME)]
        agent = Deferred.fromCoroutine(self._disturb(end))
        await gatherResults([Deferred.fromCoroutine(line) for line in lines])
        await agent
        if len(self._q) != self._workers:
            self.ledger.wrong.append(f"{len(self._q)} workers of {self._workers}")
        unfinished = await self._q.shutdown(drain=True)
        await self._crew.stop()
        self._neighbours.stop()
        for halt in self._halts:
            if halt.active():
                halt.cancel()
        if unfinished:
            self.ledger.wrong.append(f"unfinished: {unfinished}")

    async def _makeCalls(self, end: float) -> None:
        """Make one call after the other, until a time."""
        while self._reactor.seconds() < end:
            x = self.random.randrange(1, 200)
            if self.random.random() < BURSTS:
                # Short ones, of which some are sent ahead, and that count how often
                # they're run.
                args = [(self._notes, next(self._numbers)) for _ in range(x)]
                calls = [self._makeCall(once, lambda _, n: n, *pair) for pair in args]
                await gatherResults([Deferred.fromCoroutine(call) for call in calls])
            else:
                await self._makeCall(*self.random.choice(_CALLS), x)

    async def _makeCall(
        self, f: Callable[..., Any], right: Callable[..., Any], *args: Any
    ) -> None:
        """
        Make a call, and enter in the account what has become of it. C{right} gives the
        right result.
        """
        options: dict[str, Any] = {"niceness": self.random.randrange(-20, 21)}
        consumer = None
        name = f"{f.__name__}{args}"
        if f is items:
            consumer = options["consumer"] = Collector()
        elif f is once:
            options = {}
        elif self.random.random() < 0.1:
            options["timeout"] = self.random.choice([0.005, 5.0])
        elif self.random.random() < 0.2:
            options["retries"] = 5
        self.ledger.queued += 1
        d = self._q.call(self._crew.what(f), *args, **options)
        fired: list[bool] = []
        d.addBoth(_note, fired)
        if self.random.random() < 0.05:
            self._reactor.callLater(self.random.random() / 50, d.cancel)
        try:
            result = await d
        except CancelledError:
            self.ledger.outcomes["cancelled"] += 1
        except TimeoutError:
            self.ledger.outcomes["timed out"] += 1
            self._check("timeout" in options, f"{name} timed out")
        except WorkerLost:
            self.ledger.outcomes["lost"] += 1
        except Ordinary:
            self.ledger.outcomes["raised"] += 1
            self._check(f is fail, f"{name} raised")
        except Exception as error:  # noqa: BLE001 - whatever it is, it's wrong
            self.ledger.outcomes["wrong"] += 1
            self.ledger.wrong.append(f"{name}: {error!r}")
        else:
            self.ledger.outcomes["done"] += 1
            got = consumer.items if consumer is not None else result
            self._check(got == right(*args), f"{name} gave {got!r:.80}")
        self._check(len(fired) == 1, f"{name} fired {len(fired)} times")

    def _checkOnce(self) -> None:
        """Look whether calls that were to be run once have been run more often."""
        with suppress(FileNotFoundError), open(self._notes) as file:
            runs = Counter(file)
            for line, times in runs.items():
                self._check(times == 1, f"once({line.strip()}) was run {times} times")

    def _check(self, right: bool, text: str) -> None:
        """Enter something wrong in the account."""
        if not right:
            self.ledger.wrong.append(text)

    async def _disturb(self, end: float) -> None:
        """Do one process after the other something, until a time."""
        while self._reactor.seconds() < end:
            await deferLater(
                self._reactor, self.random.expovariate(1 / self.random.choice(EVERY))
            )
            if pids := self._crew.pids():
                self._disturbOne(self.random.choice(pids))

    def _disturbOne(self, pid: int) -> None:
        """Kill a process, or stop it for a while, or do something beside it."""
        if self.random.random() < NEIGHBOURS:
            deed = self.random.choice(("fork", "steal", "signal"))
            self.deeds[deed] += 1
            getattr(self._neighbours, deed)()
            return
        deed, number = self.random.choice(_DEEDS)
        self.deeds[deed] += 1
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                delay = self.random.random() / 2
                self._halts.append(self._reactor.callLater(delay, self._goOn, pid))

    def _goOn(self, pid: int) -> None:
        """Have a process that was stopped go on, if it's still there."""
        if pid in self._crew.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _note(result: Any, fired: list[bool]) -> Any:
    """Note that a Deferred has fired."""
    fired.append(isinstance(result, Failure))
    return result


_CALLS: list[tuple[Callable[[int], Any], Callable[[int], Any]]] = [
    (square, square),
    (count, count),
    (nap, lambda x: x),
    (large, large),
    (fail, lambda x: None),
    (items, lambda x: list(range(x))),
    (isPrepared, lambda x: ["first", "second"]),
]
_CALLS = _CALLS * 8 + [(leave, lambda x: None)]

_DEEDS = [
    ("killed", signal.SIGKILL),
    ("terminated", signal.SIGTERM),
    ("crashed", signal.SIGSEGV),
    ("stopped", signal.SIGSTOP),
]


def descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def residentKilobytes() -> int:
    """Measure the memory of this process."""
    with open("/proc/self/status") as file:
        return next(int(x.split()[1]) for x in file if x.startswith("VmRSS:"))


async def main(reactor: Any, args: argparse.Namespace) -> None:
    """Run, and tell."""
    print(f"seed {args.seed}, {args.seconds:g} s, {args.workers} {args.kind}")
    await Chaos(reactor, args.kind, args.seed, args.workers).run(
        0.5
    )  # what is made but once
    gc.collect()
    before = descriptors(), residentKilobytes()
    chaos = Chaos(reactor, args.kind, args.seed, args.workers)
    await chaos.run(args.seconds)
    gc.collect()
    after = descriptors(), residentKilobytes()
    print(chaos.ledger)
    print(args.kind, ", ".join(f"{k} {n}" for k, n in sorted(chaos.deeds.items())))
    print(f"descriptors {before[0]} -> {after[0]}, memory {before[1]} -> {after[1]} kB")
    wrong = chaos.ledger.wrong
    if after[0] != before[0]:
        wrong.append("descriptors are left")
    delayed = [call for call in reactor.getDelayedCalls() if call.active()]
    if delayed:
        wrong.append(f"delayed calls are left: {delayed}")
    with suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
        wrong.append("children are left")
    for text in wrong[:20]:
        print("WRONG:", text)
    if not chaos.ledger.balanced:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("::")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--kind", choices=KINDS, default="children")
    parser.add_argument("--workers", type=int, default=4)
    react(main, [parser.parse_args()])
