"""
Large arguments and results as seen by the parent. What takes long is done in threads
that end with it, so that the reactor isn't held up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads

from .._child.inbox import Arrival, Inbox
from .._child.memfd import SharedFile, anonymousFile
from .._child.outbox import Outbox
from .._child.pickling import Packed

__all__ = ["Delivery", "Shipment"]

#: What has fewer bytes is copied at once: starting a thread takes as long.
_AT_ONCE = 1 << 20

#: The same for files that are closed.
_CLOSED_AT_ONCE = 1 << 24


class Shipment:
    """
    Large arguments on their way to the file.

    @ivar payload: What is to be sent through the pipe, C{None} until they're there.

    @ivar error: Why they can't be sent, if so.
    """

    __slots__ = ("_givenUp", "error", "payload")

    def __init__(self) -> None:
        self.payload: bytes | None = None
        self.error: BaseException | None = None
        self._givenUp = False

    def giveUp(self) -> None:
        """
        Don't go on: they're of no use any longer.
        """
        self._givenUp = True

    def isGivenUp(self) -> bool:
        """
        Tell whether they're of no use any longer.

        @return: Whether.
        """
        return self._givenUp


class Delivery:
    """
    The files through which large things go to a child and come back.

    @ivar fds: The descriptors of the file of arguments and of that of results, which
        the child is to have, too.
    """

    def __init__(
        self, tell: Callable[[bytes], object], reactor: IReactorFromThreads
    ) -> None:
        """
        Make the files, which are empty.

        @param tell: Tells the child which parts of results aren't needed any longer.

        @param reactor: The reactor.

        @raise OSError: If they can't be made.
        """
        self._tell = tell
        self._reactor = reactor
        self._stays = self._hasStayed = False
        self._closed = False
        self._threads: set[threading.Thread] = set()
        self._afterClose: list[Callable[[], object]] = []
        arguments = anonymousFile()
        try:
            results = anonymousFile()
        except BaseException:
            os.close(arguments)
            raise
        self.fds = (arguments, results)
        self._files = (SharedFile(arguments), SharedFile(results))
        self._outbox = Outbox(self._files[0])
        self._inbox = Inbox(self._files[1], self._wake)

    @property
    def used(self) -> int:
        """
        How many bytes of arguments the child has.
        """
        return self._outbox.used

    def ship(self, packed: Packed, done: Callable[[], object]) -> Shipment:
        """
        Copy arguments to the file.

        @param packed: The call.

        @param done: Called when that is done, if it isn't when this returns. It isn't
            called for what was given up.

        @return: The shipment.
        """
        shipment = Shipment()

        def put() -> bytes:
            return self._outbox.put(packed, givenUp=shipment.isGivenUp)

        def arrived(payload: Any, error: BaseException | None) -> None:
            if not shipment.isGivenUp():
                shipment.payload, shipment.error = payload, error
                done()
            elif payload is not None:
                self._outbox.discard(payload)

        try:
            if packed.size > _AT_ONCE:
                self._inThread(put, arrived)
            else:
                shipment.payload = put()
        except Exception as error:  # noqa: BLE001 - what is sent is the user's
            self._reactor.callFromThread(arrived, None, error)
        return shipment

    def open(self, payload: memoryview, done: Callable[[], object]) -> Arrival:
        """
        Look at a result, and begin to read what has to be copied.

        @param payload: What the child tells of it.

        @param done: Called when it's there, if it isn't when this returns.

        @return: The result.
        """
        arrival = self._inbox.open(payload)

        def arrived(_: Any, error: BaseException | None) -> None:
            done()

        if arrival.copied <= _AT_ONCE:
            arrival.read()
        else:
            self._inThread(arrival.read, arrived)
        return arrival

    def release(self, payload: memoryview) -> None:
        """
        Take back what the child doesn't need any longer.

        @param payload: What it tells.
        """
        if self._outbox.release(payload):
            self._inThread(self._outbox.trim)

    def stay(self) -> None:
        """
        Stay open when L{close} is called for the first time, and not the second.
        """
        self._stays = not self._hasStayed
        self._hasStayed = True

    def close(self) -> None:
        """
        Close the files. Results that are in use stay.
        """
        if self._stays or self._closed:
            self._stays = False
            return
        self._closed = True
        self._inbox.close()
        for file in self._files:
            # The system takes its time to give up what is in it.
            if file.size() > _CLOSED_AT_ONCE:
                self._inThread(file.close)
            else:
                file.close()

    def afterClose(self, f: Callable[[], object]) -> None:
        """
        Have something called when no thread is at work any longer, if the files have
        been closed or are being closed. Until then, threads may use them.

        @param f: It. It's called at once if nothing is to be waited for.
        """
        if self._closed and self._threads:
            self._afterClose.append(f)
        else:
            f()

    def _wake(self) -> None:
        """
        Tell the child soon what isn't needed any longer. Any thread may call this.
        """
        self._reactor.callFromThread(self._tellDone)

    def _tellDone(self) -> None:
        """
        Tell the child what isn't needed any longer.
        """
        done = self._inbox.done()
        if done and self._files[1].open:
            self._tell(done)

    def _inThread(
        self,
        f: Callable[[], Any],
        done: Callable[[Any, BaseException | None], object] | None = None,
    ) -> None:
        """
        Do something in a thread.

        @param f: What.

        @param done: Called in the reactor with what it returns or raises.
        """

        def run() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = f()
            except BaseException as caught:  # noqa: BLE001 - nobody else would hear
                error = caught
            self._reactor.callFromThread(self._ran, thread, done, result, error)

        thread = threading.Thread(target=run, name="asynqueue copy", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            # There are as many threads as there may be.
            run()

    def _ran(
        self,
        thread: threading.Thread,
        done: Callable[[Any, BaseException | None], object] | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        """
        Note that a thread has done what it was to do.

        @param thread: The thread.

        @param done: To be called with what that has come to.

        @param result: What it has returned.

        @param error: What it has raised.
        """
        if thread.ident is not None:
            # Telling so was the last that it had to do.
            thread.join()
        self._threads.discard(thread)
        if done is not None:
            done(result, error)
        while self._afterClose and not self._threads:
            self._afterClose.pop(0)()
