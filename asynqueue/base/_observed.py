"""Looking at what a queue does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IConsumer

from ..events import Event, EventKind
from ._snapshot import snapshot
from ._typedcalls import TypedCalls

__all__ = ["Observed"]


class Observed(TypedCalls):
    """
    The part of a L{TaskQueue<asynqueue.base.TaskQueue>} that tells what it's doing.
    """

    def subscribe(self, consumer: IConsumer) -> None:
        """
        Write the load to a consumer whenever it changes: the number of calls that are
        queued or running, and have no result yet.

        @param consumer: The consumer; it is written C{int}s.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.
        """
        self.q.subscribe(consumer)

    def stats(self) -> dict[str, Any]:
        """
        Look at what the queue is doing. That costs little, however many calls wait.

        @return: A dict of plain data, as JSON has it:

              - C{name}, the queue's; C{time}, in seconds since the epoch; C{paused}.
              - C{queued}: how many calls wait, by series.
              - C{running}: a list of dicts, one for each call that a worker is at, with
                C{call}, text about it; its C{name} and C{series}; the C{worker}'s ID;
                and for how many C{seconds}.
              - C{workers}: a list of dicts, each with C{ID}, C{kind}, C{pid},
                C{series}, how many calls it has (C{running}), and its C{state}.
              - C{load}: how many calls have no result yet; C{done}: how many have one;
                C{failed}: how many have failed, by kind: C{error}, C{timeout},
                C{cancelled}, C{lost}, C{stopped}, C{refused}.
              - C{retried}: how many further attempts there were; C{replaced}: how many
                workers were hired in place of others.
              - C{wait} and C{run}: how many seconds calls have waited and were run:
                C{count} and C{mean} of all that were measured; C{p50}, C{p90}, C{p99},
                which are off by 2 % at most, and C{max} of the last 5 to 10 minutes.
                Where there are more than about 1,000 calls a second, some are measured,
                one of 50 at least; all, if there are observers of each call.
        """
        return snapshot(self.th, self.q)

    def addObserver(
        self, f: Callable[[Event], object], kinds: Iterable[EventKind] = ()
    ) -> None:
        """
        Have a callable called with each L{Event<asynqueue.events.Event>}. It hears of
        calls that are queued after that, and of those that fail. If it raises, that is
        logged.

        @param f: The callable. If it has been added before, the kinds are changed.

        @param kinds: The kinds of events that it's to hear of, by default all. Those
            that are about each call cost some microseconds for each.

        @raise TypeError: If it isn't callable.
        """
        self.q.watcher.observers.add(f, kinds)
        self.q.watcher.next = 0

    def removeObserver(self, f: Callable[[Event], object]) -> None:
        """
        Call an observer no longer. Nothing happens if it hasn't been added.

        @param f: The callable.
        """
        self.q.watcher.observers.remove(f)
