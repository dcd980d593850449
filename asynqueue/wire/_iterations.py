"""
The server's end of iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols import amp

from ..iteration import Deferator
from ._connection import Connection
from ._values import (
    INLINE,
    QUICK,
    Codec,
    Encoded,
    NotEncodable,
    Payload,
    arrayOf,
    dumpsError,
    dumpsText,
    loadsError,
)

__all__ = ["ServedIteration"]

#: Items in an answer, at most.
_MAX_COUNT = 1_000

#: Seconds that a client has to ask for more when the server is about to go.
_IDLE_SECONDS = 1.0


class ServedIteration:
    """
    The server's end of an iteration.
    """

    def __init__(
        self,
        ID: bytes,
        deferator: Deferator[Any],
        connection: Connection,
        codec: Codec,
        ended: Callable[[], object],
    ) -> None:
        self._ID = ID
        self._deferator = deferator
        self._connection = connection
        self._codec = codec
        self._ended = ended
        # Requests are answered one after the other.
        self._lock = DeferredLock()
        # An item that has been taken and not been sent, and the sending of a large one.
        self._rest: bytes | Payload | None = None
        self._sending: Deferred[None] = succeed(None)
        self._isOver = False
        # Requests since hurry() has looked, and when it looks again.
        self._requests = 0
        self._timer: IDelayedCall | None = None

    async def getNext(self, count: int | None) -> Any:
        """Answer a request for so many items, C{None} for one in the plain form."""
        self._requests += 1
        await self._lock.acquire()
        try:
            await self._sending
            values: list[bytes] = []
            box = await self._collect(values, max(1, min(count or 1, _MAX_COUNT)))
        finally:
            self._lock.release()
        if count is not None:
            box[b"values"] = arrayOf(values)
        elif b"error" in box:
            text = str(loadsError(Codec(), box[b"error"], ()))
            raise amp.RemoteAmpError(b"FAILED", text)
        else:
            isValid = bool(values) or b"size" in box
            box[b"isValid"] = b"%a" % isValid
            box[b"value"] = values[0] if values else b""
        return box

    def stop(self) -> None:
        """End the iteration, and have the iterator be closed."""
        if not self._isOver:
            self._isOver = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._sending.cancel()
            self._deferator.stop()
            self._ended()

    def hurry(self) -> None:
        """End the iteration if the client doesn't ask for more of it for a while."""
        self._requests = 0
        self._timer = self._connection.reactor.callLater(_IDLE_SECONDS, self._stopIdle)

    def _stopIdle(self) -> None:
        if self._requests or self._lock.locked:
            self.hurry()
        else:
            self.stop()

    async def _collect(self, values: list[bytes], count: int) -> Any:
        """
        Take the items that are at hand, as many as fit, and wait for the first if there
        are none. Give an answer that lacks the small ones.
        """
        box = amp.Box({b"isValid": b"True", b"moreLeft": b"True"})
        try:
            while not self._fill(values, count, box):
                if not self._deferator.moreLeft:
                    raise StopAsyncIteration
                if values:
                    break
                self._rest = self._encoded(await self._deferator.__anext__())
        except StopAsyncIteration:
            box[b"moreLeft"] = b"False"
        except NotEncodable as error:
            text = f"An item can't be sent: {error}"
            box[b"error"] = dumpsText("SerializationError", text)
        except Exception as error:  # noqa: BLE001 - it's the iterator's
            box[b"error"] = dumpsError(self._codec, error, "The iteration")
        if b"error" in box or box[b"moreLeft"] != b"True":
            box[b"moreLeft"] = b"False"
            self.stop()
        return box

    def _fill(self, values: list[bytes], count: int, box: Any) -> bool:
        """Take items at hand until the answer is full, and tell whether it is."""
        room = INLINE
        for item in self._atHand():
            if isinstance(item, bytes) and len(item) <= room:
                values.append(item)
                # Several are decoded at once.
                room = min(room, QUICK) - len(item)
                if len(values) == count:
                    return True
            elif values:
                self._rest = item
                return True
            else:
                box[b"size"] = b"%d" % item.size
                self._sending = self._connection.send(self._ID, item)
                self._sending.addErrback(lambda _: None)
                return True
        return False

    def _atHand(self) -> Iterator[Any]:
        rest, self._rest = self._rest, None
        if rest is not None:
            yield rest
        for item in self._deferator.takeAtHand():
            yield self._encoded(item)

    def _encoded(self, item: Any) -> bytes | Payload:
        return item.data if type(item) is Encoded else self._codec.encode(item)
