"""An iteration in the child, whose items are sent as the parent wants them."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, repeat
from types import GeneratorType
from typing import Any

from .pickling import Packed, dumps, dumpsPlain
from .protocol import Kind

#: Added to the number of items that have been taken if no more of them are at hand, so
#: that the consumer waits for others.
WAITS = 1 << 31
#: An iteration may be so many items ahead of its consumer to begin with,
_MIN_WINDOW = 16
#: and so many if the consumer takes them as soon as they come,
_MAX_WINDOW = 2048
#: and not after it's ahead so many bytes,
_WINDOW_BYTES = 1 << 20
#: or, where items have buffers, so many: one is copied while another is made.
_WINDOW_BUFFER_BYTES = 1 << 24
#: The consumer lags behind if it hasn't taken after so many seconds what was sent.
_LAG_SECONDS = 0.02
#: What has been yielded is sent when it has so many bytes,
_BATCH_BYTES = 65_536
#: or is so many items.
_BATCH_ITEMS = 1024
#: What has been yielded is sent after so many seconds while the next item still takes
#: its time.
_FLUSH_SECONDS = 0.005
#: So many items may be made before the time is looked at,
_MAX_BATCH = 32
#: if it's expected that this takes no longer than so many seconds.
_BATCH_SECONDS = 0.0001
#: Text of this length isn't worth being pickled by itself.
_SHORT = 512
#: Nor are numbers between these.
_MIN_INT, _MAX_INT = -(1 << 63), 1 << 63
#: An item of so many bytes is counted before the next one is made.
_LARGE = 4096
#: Types, besides numbers and text, of which nobody can change a thing, and of which no
#: thing is large.
_CONSTANT = frozenset((float, bool, type(None)))


class Stream:
    """
    An iteration whose items are sent within a window: so many, and so many bytes, that
    the consumer has not taken yet.

    The window grows while the consumer takes all that comes and waits for more, and
    shrinks when it takes its time.

    An item is pickled when it's yielded, so that it doesn't matter if the iterator
    changes it afterwards. Those that can't be changed, and are small, are pickled
    together when they are sent. One with large buffers is sent by itself.
    """

    # It's waiting for an item that the iterator has yielded already. The flusher sets
    # yieldSoon when it's time to look what else there is to do.
    # What is pending: _pickles of _pickled items, then _items, of _size bytes besides
    # numbers. They're added by the main thread alone, while the flusher may take away
    # what is there. What was sent and isn't taken: _frames, for each how many items,
    # how many bytes, and when it was sent; _bytesSent in all; _ahead items with what is
    # pending. _lock is held for all but _items, and for those while they're taken away.

    def __init__(
        self,
        number: int,
        iterator: Iterator[object],
        send: Callable[[int, int, bytes | Packed], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.number = number
        self.iterator = iterator
        self.waiting = False
        self.closed = False
        self.window = _MIN_WINDOW
        self.yieldSoon = False
        self._send = send
        self._clock = clock
        # Only generators are sure to be their own iterators, from where they stand.
        self._source: Iterator[Any] = (
            iterator
            if isinstance(iterator, GeneratorType)
            else map(next, repeat(iterator))
        )
        self._windowBytes = _WINDOW_BYTES
        # Whether the window was full when it was advanced last.
        self._wasFull = False
        self._frames: deque[tuple[int, int, float]] = deque()
        self._ahead = 0
        self._bytesSent = 0
        self._pickles: list[bytes] = []
        self._pickled = 0
        self._items: list[object] = []
        self._size = 0
        self._batchSize = 1
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        return (
            not (self.waiting or self.closed)
            and self._ahead < self.window
            and self._bytesSent + self._size < self._windowBytes
        )

    def taken(self, told: int) -> None:
        """Note that so many items were taken, with L{WAITS} if it waits for more."""
        count = told & ~WAITS
        lag = self._release(count)
        if lag > _LAG_SECONDS:
            self.window = max(_MIN_WINDOW, int(self.window * _LAG_SECONDS / lag))
        elif told & WAITS and self._wasFull:
            self.window = min(_MAX_WINDOW, 2 * self.window)
            self._wasFull = False

    def make(
        self,
        end: float,
        wake: Callable[[], object],
        add: Callable[[object], bool] | None = None,
    ) -> bool:
        """Make and send items while they may be sent, and tell whether it's the end."""
        began = self._clock()
        while self.ready:
            # Half of the window at a time, so that the other half can be on its way.
            room = min(self.window // 2, _BATCH_ITEMS) - len(self._items)
            room = min(room - self._pickled, self.window - self._ahead)
            most = max(1, min(room, self._batchSize))
            if most > 1 or self._items or self._pickles:
                wake()
            if self._makeSome(most, add or self.add):
                return True
            now = self._clock()
            self._adapt(now - began)
            began = now
            if now >= end:
                break
            if most >= room or self._size >= _BATCH_BYTES:
                self.flush()
        self._wasFull = self._ahead >= self.window
        self.flush()
        return False

    def add(self, item: object) -> bool:
        """Have an item sent as it is now, and tell whether to make the next at once."""
        packed = dumps([item])
        self._ahead += 1
        if isinstance(packed, Packed):
            self.flush()
            self._windowBytes = _WINDOW_BUFFER_BYTES
            with self._lock:
                self._sent(1, packed.size, packed)
            return False
        with self._lock:
            self._pickleItems()
            self._pickles.append(packed)
            self._pickled += 1
            self._size += len(packed)
        if self._size >= _BATCH_BYTES:
            self.flush()
        return len(packed) < _LARGE

    def flush(self) -> None:
        with self._lock:
            self._pickleItems()
            if self._pickles:
                data, count = b"".join(self._pickles), self._pickled
                self._pickles.clear()
                self._pickled = 0
                self._size = 0
                self._sent(count, len(data), data)

    def close(self) -> None:
        """End the iteration where it stands. What its end raises goes to stderr."""
        self.closed = True
        close = getattr(self.iterator, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the iterator is the user's
                with suppress(BaseException):
                    sys.excepthook(*sys.exc_info())

    def _sent(self, count: int, size: int, payload: bytes | Packed) -> None:
        """Send items. The lock is held."""
        self._frames.append((count, size, self._clock()))
        self._bytesSent += size
        self._send(Kind.ITEMS, self.number, payload)

    def _release(self, count: int) -> float:
        """Count items no longer, and tell how many seconds ago the first was sent."""
        self._ahead -= count
        with self._lock:
            frames = self._frames
            since = frames[0][2] if frames else self._clock()
            while count and frames:
                items, size, sent = frames.popleft()
                if items > count:
                    part = size * count // items
                    frames.appendleft((items - count, size - part, sent))
                    items, size = count, part
                count -= items
                self._bytesSent -= size
        return self._clock() - since

    def _makeSome(self, most: int, add: Callable[[object], bool]) -> bool:
        """Make some items, and tell whether the iterator has come to its end."""
        append = self._items.append
        count = others = chars = 0
        ended = False
        for count, item in enumerate(islice(self._source, most), 1):  # noqa: B007
            kind = type(item)
            if (kind is int and _MIN_INT < item < _MAX_INT) or kind in _CONSTANT:
                append(item)
            elif (kind is str or kind is bytes) and len(item) <= _SHORT:
                append(item)
                chars += len(item)
            else:
                others += 1
                if not add(item):
                    break
            if self.yieldSoon:
                break
        else:
            ended = count < most
        self._ahead += count - others
        if chars:
            with self._lock:
                self._size += chars
        return ended

    def _adapt(self, seconds: float) -> None:
        """See how often to look at the time, if it took so long since the last time."""
        if self.yieldSoon:
            self.yieldSoon = False
            self._batchSize = 1
        elif seconds > _BATCH_SECONDS:
            self._batchSize = max(1, int(self._batchSize * _BATCH_SECONDS / seconds))
        elif seconds < _BATCH_SECONDS / 2:
            self._batchSize = min(2 * self._batchSize, _MAX_BATCH)

    def _pickleItems(self) -> None:
        """Pickle the items that are to be pickled together. The lock is held."""
        # Others may come at any moment.
        count = len(self._items)
        if count:
            self._pickles.append(dumpsPlain(self._items[:count]))
            self._pickled += count
            del self._items[:count]


class Flusher:
    """A thread that sends what is pending while an iterator takes its time."""

    def __init__(self, streams: dict[int, Stream]) -> None:
        self._streams = streams
        self._event = threading.Event()
        threading.Thread(target=self._loop, name="flusher", daemon=True).start()

    def wake(self) -> None:
        """Have what is pending sent in a moment."""
        if not self._event.is_set():
            self._event.set()

    def _loop(self) -> None:
        while True:
            self._event.wait()
            time.sleep(_FLUSH_SECONDS)
            self._event.clear()
            for stream in list(self._streams.values()):
                stream.yieldSoon = True
                stream.flush()
