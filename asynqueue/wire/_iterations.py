"""Iterations over a connection: the server's end, and the client's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.protocols import amp

from ..errors import WorkerError
from ..iteration import Deferator
from ..iteration._sources import BufferedSource
from ..tasks._workerbase import RemoteIteration
from ._commands import Violation
from ._connection import Connection
from ._values import (
    INLINE,
    QUICK,
    Codec,
    Encoded,
    NotEncodable,
    Payload,
    dumpsError,
    dumpsText,
    loadsError,
)

#: Items in an answer, at most.
_MAX_COUNT = 1_000

#: Seconds that a client has to ask for more items when the server is about to go.
_IDLE_SECONDS = 1.0

#: Items of an iteration that are asked for at once, how many such requests may be
#: outstanding, and how many items may be here and not taken, with those asked for.
_COUNT, _MAX_REQUESTS, _MAX_ITEMS = 16, 2, 32

#: The last, while the items are large.
_MAX_LARGE_ITEMS = 2


class EncodedItems:
    """An iterator whose items are encoded as soon as they have been yielded."""

    def __init__(
        self,
        iterator: Iterator[object],
        encode: Callable[[object], object] | None,
        step: AbstractContextManager[object],
    ) -> None:
        self._iterator = iterator
        self._encode = encode or (lambda item: item)
        self._step = step  # entered for each

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        with self._step:
            item = next(self._iterator)
            if isinstance(item, Deferred):
                return item.addCallback(self._encode)
            try:
                return self._encode(item)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class ServedIteration:
    """The server's end of an iteration."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        ID: bytes,
        deferator: Deferator[object],
        ended: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._ID = ID
        self._deferator = deferator
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

    async def getNext(self, count: int | None) -> amp.Box:
        """Answer a request for so many items, C{None} for one in the plain form."""
        self._requests += 1
        async with self._lock:
            await self._sending
            values: list[bytes] = []
            box = await self._collect(values, max(1, min(count or 1, _MAX_COUNT)))
        return answerOf(values, box, count)

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

    async def _collect(self, values: list[bytes], count: int) -> amp.Box:
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
                item = await self._deferator.__anext__()
                self._rest = encoded(self._codec, item)
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

    def _fill(self, values: list[bytes], count: int, box: amp.Box) -> bool:
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
                assert isinstance(item, Payload)  # small ones fit into an empty box
                box[b"size"] = b"%d" % item.size
                self._sending = self._connection.send(self._ID, item)
                self._sending.addErrback(lambda _: None)
                return True
        return False

    def _atHand(self) -> Iterator[bytes | Payload]:
        rest, self._rest = self._rest, None
        if self._isOver:
            # Nobody would ever take one that is large.
            return
        if rest is not None:
            yield rest
        for item in self._deferator.takeAtHand():
            yield encoded(self._codec, item)


def answerOf(values: list[bytes], box: amp.Box, count: int | None) -> amp.Box:
    """Put items into an answer to C{GetNext}, C{None} for one in the plain form."""
    if count is not None:
        # CBOR's array of what has been encoded.
        box[b"values"] = b"".join((b"\x99", len(values).to_bytes(2, "big"), *values))
    elif b"error" in box:
        text = str(loadsError(Codec(), box[b"error"], ()))
        raise amp.RemoteAmpError(b"FAILED", text)
    else:
        isValid = bool(values) or b"size" in box
        box[b"isValid"] = b"%a" % isValid
        box[b"value"] = values[0] if values else b""
    return box


def encoded(codec: Codec, value: object) -> bytes | Payload:
    return value.data if type(value) is Encoded else codec.encode(value)


class ClientIteration(RemoteIteration):
    """An iteration at the server. More items are asked for as they're taken."""

    def __init__(self, call: Any) -> None:
        super().__init__(
            call.task,
            BufferedSource(lambda _: self._ask(), self._stopped, every=_COUNT),
        )
        self._client = call.client
        self._call = call
        # Requests whose answers haven't been looked at. That's done in their order,
        # whichever answer comes first: this fires after the last of them.
        self._requests = 0
        self._taken: Deferred[None] = succeed(None)
        self._areLarge = False
        # Fires when nothing that still comes of it is of interest.
        self.over: Deferred[None] = Deferred()

    def begin(self) -> Deferred[None]:
        if self._call.consumer is not None:
            self.feed(self._call.consumer)
        self._ask()
        return self.over

    def _ask(self) -> None:
        """Ask for as many items as there will be room for."""
        if self.over.called:
            return
        most, count = (_MAX_LARGE_ITEMS, 1) if self._areLarge else (_MAX_ITEMS, _COUNT)
        room = most - self._source.atHand - count * self._requests
        while self._requests < _MAX_REQUESTS and room >= count:
            self._requests += 1
            room -= count
            answer = self._client.callRemoteString(
                b"GetNext", ID=self._call.ID, count=b"%d" % count
            )
            taking = Deferred.fromCoroutine(self._take(answer, self._taken))
            self._taken = taking.addErrback(self._client.unhandledError)

    async def _take(self, answer: Deferred[amp.Box], taken: Deferred[None]) -> None:
        """Take the answer to a request, when that to the one before has been taken."""
        await taken
        try:
            box: amp.Box | None = await answer
        except amp.RemoteAmpError:
            box = None
        self._requests -= 1
        if self.over.called:
            return
        if box is None:
            task = self._call.task
            self._call.fail(WorkerError(f"The server can't iterate: {task!r}"))
            return
        await self._takeItems(box)
        self._ask()

    async def _takeItems(self, box: amp.Box) -> None:
        client, call = self._client, self._call
        size = box.get(b"size")
        self._areLarge = size is not None
        try:
            items = await client.decode(box[b"values"])
            if not isinstance(items, list) or len(items) > _COUNT:
                raise Violation("more items than were asked for")
            self._push(items)
            if size is not None and not self.over.called:
                self._push([await client.decodeLarge(call, size)])
        except Violation:
            raise
        except (WorkerError, ValueError) as error:
            call.refuse("An item of the iteration", error)
        if self.over.called:
            return
        if b"error" in box:
            text = loadsError(client.codec, box[b"error"], client.exceptions)
            raised = text.exception
            call.fail(raised if isinstance(raised, Exception) else WorkerError(text))
        elif box[b"moreLeft"] != b"True":
            call.finish(self.end)

    def _push(self, items: list[object]) -> None:
        if items and not self.over.called:
            self._begin()
            self._source.push(items)

    def _stopped(self) -> None:
        if not self.over.called:
            self._call.drop()
