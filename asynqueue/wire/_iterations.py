"""
The server's end of iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols import amp

from ..iteration import Deferator
from ._commands import GetNext
from ._connection import Connection
from ._exceptions import dumpsError, dumpsText, loadsError
from ._values import INLINE, Codec, Encoded, NotEncodable, Payload

__all__ = ["Iteration"]

#: Items in an answer, at most.
_MAX_COUNT = 1_000

#: Seconds that a client has to ask for more when the server is about to go.
_IDLE_SECONDS = 1.0


class Iteration:
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
        # An item that's waited for, one that didn't fit in the last answer, and the
        # sending of a large one.
        self._next: Deferred[Any] | None = None
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
            fields = await self._collect(max(1, min(count or 1, _MAX_COUNT)))
        finally:
            self._lock.release()
        if count is None:
            fields = _plainForm(fields)
        return GetNext.makeResponse(fields, self._connection)

    def stop(self) -> None:
        """End the iteration, and have the iterator be closed."""
        if not self._isOver:
            self._isOver = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._sending.cancel()
            if self._next is not None:  # Maybe nobody waits for it any longer.
                self._next.addErrback(lambda _: None)
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

    async def _collect(self, count: int) -> dict[str, Any]:
        """Take the items that are there, as many as fit, and wait for the first."""
        values: list[bytes] = []
        fields = {"values": values, "isValid": True, "moreLeft": True}
        room = INLINE
        try:
            while len(values) < count:
                item = await self._take(isFirst=not values)
                if item is None:
                    break
                if isinstance(item, bytes) and len(item) <= room:
                    values.append(item)
                    room -= len(item) + 2
                elif values:
                    self._rest = item
                    break
                else:
                    fields["size"] = b"%d" % item.size
                    sending = self._connection.send(self._ID, item)
                    self._sending = sending.addErrback(lambda _: None)
                    break
        except StopAsyncIteration:
            fields["moreLeft"] = False
        except NotEncodable as error:
            text = f"An item can't be sent: {error}"
            fields |= {
                "error": dumpsText("SerializationError", text),
                "moreLeft": False,
            }
        except Exception as error:  # noqa: BLE001 - it's the iterator's
            data = dumpsError(self._codec, error, "The iteration")
            fields |= {"error": data, "moreLeft": False}
        if not fields["moreLeft"]:
            self.stop()
        return fields

    async def _take(self, isFirst: bool) -> Any:
        """
        Take an item.

        @param isFirst: Whether to wait for it. Without that, it's C{None} if there's
            none yet.
        """
        rest, self._rest = self._rest, None
        if rest is not None:
            return rest
        d = self._next or self._deferator.__anext__()
        self._next = d
        if not isFirst and (not d.called or d.paused):
            return None
        try:
            item = await d
        finally:
            self._next = None
        return item.data if type(item) is Encoded else self._codec.encode(item)


def _plainForm(fields: dict[str, Any]) -> dict[str, Any]:
    """
    Answer with one item as it's for clients that ask for one by one.

    @raise amp.RemoteAmpError: If the iteration has failed, or the item is large.
    """
    values = fields.pop("values")
    if "error" in fields:
        text = str(loadsError(Codec(), fields["error"], ()))
        raise amp.RemoteAmpError(b"FAILED", text)
    fields["isValid"] = bool(values) or "size" in fields
    return fields | {"value": values[0] if values else b""}
