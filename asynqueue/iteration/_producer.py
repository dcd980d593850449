"""
The items of an iteration written to a consumer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .._support.log import log
from .._support.reactor import orGlobalReactor
from ..errors import ImplementationError
from ._deferator import Deferator
from ._feed import Stretch
from ._sources import END, Item

__all__ = ["IterationProducer", "iteratorToProducer"]


@implementer(IPushProducer)
class IterationProducer:
    """
    Writes the items of an iteration to a consumer, each as soon as it's there and the
    consumer wants it, and lets the reactor have its turn every few milliseconds.

    The consumer is told of this producer once, when it's registered here, and once
    that it's done: at the end, when the source or the consumer fails, or when the
    producer is told to stop. A consumer whose C{registerProducer} raises
    C{RuntimeError}, because it knows of a producer already, is written to all the same.

    @ivar deferator: The iteration.

    @ivar consumer: The consumer, C{None} if there isn't one yet.
    """

    def __init__(
        self,
        deferator: object,
        consumer: IConsumer | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        """
        Make a producer.

        @param deferator: A L{Deferator<asynqueue.iteration.Deferator>}, or whatever
            one can be made of, such as an iterator or an empty list.

        @param consumer: The consumer, unless L{registerConsumer} is called for it.

        @param reactor: Gives the time, and its turns. By default, the global reactor.

        @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.

        @raise TypeError: If there's nothing to iterate over.
        """
        if not isinstance(deferator, Deferator):
            deferator = Deferator(deferator)
        self.deferator = deferator
        self.consumer: IConsumer | None = None
        self._reactor = reactor
        self._stretch = Stretch()
        self._started = False
        self._done = False
        self._paused = False
        self._looping = False
        self._failure: Failure | None = None
        self._arrival: Deferred[Any] | None = None
        self._turn: IDelayedCall | None = None
        self._waiters: list[Deferred[Any]] = []
        if consumer is not None:
            self.registerConsumer(consumer)

    def registerConsumer(self, consumer: IConsumer) -> None:
        """
        Set the consumer, and tell it of this producer.

        @param consumer: The consumer.

        @raise ImplementationError: If it doesn't provide C{IConsumer}.

        @raise RuntimeError: If there's a consumer already.
        """
        _checkConsumer(consumer)
        if self.consumer is not None:
            raise RuntimeError(
                f"{consumer!r} can't be the consumer: {self.consumer!r} is already."
                " Make a producer for each consumer"
            )
        self.consumer = consumer
        try:
            consumer.registerProducer(self, True)
        except RuntimeError:
            pass  # It has a producer, which may well be this one.
        except BaseException:
            self.consumer = None
            raise

    def run(self) -> Deferred[Any]:
        """
        Write the items to the consumer. Called again, it only waits for the end.

        @return: A Deferred that fires with the consumer when all has been written, or
            the producer has been told to stop. It fails with what the source has
            raised after its last item, or what the consumer's C{write} has raised.
            Cancelling it stops the producer.

        @raise ImplementationError: If there's no consumer yet.
        """
        if self.consumer is None:
            raise ImplementationError(
                "There's no consumer to write to: call registerConsumer before run"
            )
        d = self._untilDone(self.stopProducing)
        if not self._started:
            self._started = True
            self._produce()
        return d

    def deferUntilDone(self) -> Deferred[Any]:
        """
        Wait for the end.

        @return: A Deferred that fires as that of L{run}. Cancelling it does nothing
            else.
        """
        return self._untilDone(None)

    def pauseProducing(self) -> None:
        """
        Implement C{IPushProducer.pauseProducing}: write nothing, and ask the source for
        nothing.
        """
        self._paused = True

    def resumeProducing(self) -> None:
        """
        Implement C{IPushProducer.resumeProducing}: go on writing.
        """
        self._paused = False
        if self._started:
            self._produce()

    def stopProducing(self) -> None:
        """
        Implement C{IPushProducer.stopProducing}: write nothing more, and have the
        source release everything. That's no failure.
        """
        self._finish(None)

    def _untilDone(self, onCancel: Callable[[], None] | None) -> Deferred[Any]:
        """
        Make a Deferred that waits for the end.

        @param onCancel: Called if it's cancelled.

        @return: The Deferred.
        """
        if self._failure is not None:
            return fail(self._failure)
        if self._done:
            return succeed(self.consumer)

        def cancel(d: Deferred[Any]) -> None:
            self._waiters.remove(d)
            if onCancel is not None:
                onCancel()

        d: Deferred[Any] = Deferred(cancel)
        self._waiters.append(d)
        return d

    def _produce(self) -> None:
        """
        Write what is at hand, unless that's being done, or something is waited for.
        """
        if self._looping or self._arrival is not None or self._turn is not None:
            return
        self._looping = True
        try:
            self._loop()
        except Exception:  # noqa: BLE001 - the consumer may be of anybody's making
            self._finish(Failure())
        finally:
            self._looping = False

    def _loop(self) -> None:
        """
        Write what is at hand.
        """
        assert self.consumer is not None
        write = self.consumer.write
        feed = self.deferator.feed
        held = feed.held
        stretch = self._stretch
        while not (self._paused or self._done):
            if held:
                write(held.popleft())
                if stretch.left:
                    stretch.left -= 1
                elif stretch.isOver(self._reactor):
                    self._letTurn()
                    return
            elif feed.more and feed.fetching is None:
                feed.look()
            else:
                self._await()
                return

    def _letTurn(self) -> None:
        """
        Let the reactor have its turn before going on.
        """
        if not self._done:
            reactor = orGlobalReactor(self._reactor)
            self._turn = reactor.callLater(0, self._hadTurn)

    def _hadTurn(self) -> None:
        """
        Go on after the reactor has had its turn.
        """
        self._turn = None
        self._stretch.begin()
        self._produce()

    def _await(self) -> None:
        """
        Wait for the next item, or the end.
        """
        d = self._arrival = self.deferator.__anext__()
        d.addCallbacks(self._arrived, self._failed)

    def _arrived(self, value: Any) -> None:
        """
        Go on with the item that was waited for.

        @param value: It.
        """
        self._arrival = None
        if not self._done:
            self.deferator.feed.held.appendleft(value)
            self._produce()

    def _failed(self, failure: Failure) -> None:
        """
        Finish, since there are no more items.

        @param failure: Why.
        """
        self._arrival = None
        self._finish(None if failure.check(StopAsyncIteration) else failure)

    def _finish(self, failure: Failure | None) -> None:
        """
        Come to the end.

        @param failure: How something has failed, if it has.
        """
        if self._done:
            return
        self._done = True
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        self.deferator.stop()
        if self.consumer is not None:
            try:
                self.consumer.unregisterProducer()
            except Exception:  # noqa: BLE001 - the consumer may be of anybody's making
                if failure is None:
                    failure = Failure()
                else:
                    log.failure("{consumer} failed at the end", consumer=self.consumer)
        self._failure = failure
        while self._waiters:  # one may cancel another
            d = self._waiters.pop(0)
            d.callback(self.consumer if failure is None else failure)


def iteratorToProducer(
    iterator: object,
    consumer: IConsumer | None = None,
    wrapper: Callable[[Any], Any] | None = None,
    *,
    reactor: IReactorTime | None = None,
) -> Deferred[IterationProducer | None]:
    """
    Make a producer of an iterator.

    @param iterator: The iterator, or whatever a
        L{Deferator<asynqueue.iteration.Deferator>} can be made of, or one itself.

    @param consumer: The consumer, unless the producer's C{registerConsumer} is called
        for it.

    @param wrapper: Called with each item. What it returns is what is written; it may
        return a Deferred, which is waited for.

    @param reactor: Gives the producer the time, and its turns. By default, the global
        reactor.

    @return: A Deferred that fires with an L{IterationProducer
        <asynqueue.iteration.IterationProducer>}, which is to be told to run, when it's
        known that there's an item or a failure; with C{None} if there are no items. The
        consumer isn't told then.

    @raise TypeError: If there's nothing to iterate over, or the wrapper can't be
        called.

    @raise ImplementationError: If the consumer doesn't provide C{IConsumer}.
    """
    if wrapper is not None and not callable(wrapper):
        raise TypeError(f"The wrapper must be a callable, and {wrapper!r} isn't")
    if consumer is not None:
        _checkConsumer(consumer)
    deferator = iterator if isinstance(iterator, Deferator) else Deferator(iterator)
    if wrapper is not None:
        deferator = Deferator(_WrappingSource(deferator, wrapper))
    return deferator.peek().addCallback(
        lambda more: (
            IterationProducer(deferator, consumer, reactor=reactor) if more else None
        )
    )


class _WrappingSource:
    """
    A source of what a callable makes of the items of a deferator.
    """

    def __init__(self, deferator: Deferator, wrapper: Callable[[Any], Any]) -> None:
        """
        Make a source.

        @param deferator: The deferator.

        @param wrapper: The callable.
        """
        self._deferator = deferator
        self._wrapper = wrapper

    def fetch(self) -> Deferred[Item]:
        """
        Implement L{ItemSource.fetch<asynqueue.iteration.ItemSource.fetch>}.

        @return: A Deferred that fires with the next item.
        """
        d = self._deferator.__anext__().addCallback(self._wrapper)
        return d.addCallbacks(lambda value: (value, True, True), self._ended)

    def stop(self) -> None:
        """
        Implement L{ItemSource.stop<asynqueue.iteration.ItemSource.stop>}.
        """
        self._deferator.stop()

    def _ended(self, failure: Failure) -> Item:
        """
        Tell the end from a failure.

        @param failure: Why there's no item.

        @return: L{END}.
        """
        failure.trap(StopAsyncIteration)
        return END


def _checkConsumer(consumer: object) -> None:
    """
    Check that something is a consumer.

    @param consumer: It.

    @raise ImplementationError: If it doesn't provide C{IConsumer}.
    """
    if not IConsumer.providedBy(consumer):
        raise ImplementationError(
            f"{consumer!r} doesn't provide IConsumer: is its class marked with"
            " @implementer(IConsumer)?"
        )
