"""
An iteration in the child, whose items are sent as the parent wants them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .framing import Kind

__all__ = ["Flusher", "Stream"]

#: An iteration may be so many items ahead of its consumer,
_WINDOW_ITEMS = 16

#: and not after it's ahead so many bytes.
_WINDOW_BYTES = 1 << 20

#: What has been yielded is sent when it has so many bytes.
_BATCH_BYTES = 65_536

#: What has been yielded is sent after so many seconds while the next item still takes
#: its time.
_FLUSH_SECONDS = 0.005


class Stream:
    """
    An iteration whose items are sent within a window: so many, and so many bytes, that
    the consumer has not taken yet.

    Each item is pickled when it's yielded, so that it doesn't matter if the iterator
    changes it afterwards.

    @ivar number: The number of the call.

    @ivar iterator: The iterator.

    @ivar waiting: Whether an item is awaited that the iterator has yielded already.
    """

    def __init__(
        self, number: int, iterator: Iterator[Any], send: Callable[..., None]
    ) -> None:
        """
        Begin an iteration.

        @param number: The number of the call.

        @param iterator: The iterator.

        @param send: Sends a frame.
        """
        self.number = number
        self.iterator = iterator
        self.waiting = False
        self._send = send
        self._ahead: deque[int] = deque()
        self._bytesAhead = 0
        self._pending: list[bytes] = []
        self._size = 0
        # The flusher sends what is pending, too.
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """
        Whether another item may be sent.
        """
        return (
            not self.waiting
            and len(self._ahead) < _WINDOW_ITEMS
            and self._bytesAhead < _WINDOW_BYTES
        )

    def taken(self, count: int) -> None:
        """
        Note that the consumer has taken items.

        @param count: How many.
        """
        for _ in range(count):
            self._bytesAhead -= self._ahead.popleft()

    def add(self, item: bytes) -> None:
        """
        Have an item sent, soon.

        @param item: The item, pickled.
        """
        with self._lock:
            self._pending.append(item)
            self._size += len(item)
            self._ahead.append(len(item))
            self._bytesAhead += len(item)
            if self._size < _BATCH_BYTES:
                return
        self.flush()

    def flush(self) -> None:
        """
        Send what is pending.
        """
        with self._lock:
            if self._pending:
                data = b"".join(self._pending)
                self._pending.clear()
                self._size = 0
                self._send(Kind.ITEMS, self.number, data)

    @property
    def pending(self) -> bool:
        """
        Whether an item waits to be sent.
        """
        return bool(self._pending)

    def close(self) -> None:
        """
        End the iteration where it stands. What its end raises goes to stderr.
        """
        close = getattr(self.iterator, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the iterator is the user's
                with suppress(BaseException):
                    sys.excepthook(*sys.exc_info())


class Flusher:
    """
    A thread that sends what is pending while an iterator takes its time.
    """

    def __init__(self, streams: dict[int, Stream]) -> None:
        """
        Start the thread.

        @param streams: The iterations.
        """
        self._streams = streams
        self._event = threading.Event()
        threading.Thread(target=self._loop, name="flusher", daemon=True).start()

    def wake(self) -> None:
        """
        Have what is pending sent in a moment.
        """
        if not self._event.is_set():
            self._event.set()

    def _loop(self) -> None:
        """
        Wait to be woken, then for a moment, then send.
        """
        while True:
            self._event.wait()
            time.sleep(_FLUSH_SECONDS)
            self._event.clear()
            for stream in list(self._streams.values()):
                stream.flush()
