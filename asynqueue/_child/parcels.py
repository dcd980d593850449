"""
Calls that are brought to another process, and back, by an engine of somebody else's,
such as an executor. They're pickled here, so that nothing in them can harm the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pickle import PickleBuffer
from typing import Any

from .callserver import CallServer
from .describe import describe
from .pickling import Buffer, NotPicklable, Packed, copyOf, dumps, flat, loads
from .protocol import Kind


class Parcel:
    """
    A pickle and its buffers, which are copied only where the engine's pickler doesn't
    know how not to.
    """

    def __init__(self, pickle: bytes, buffers: list[Buffer]) -> None:
        self.pickle = pickle
        self.buffers = buffers

    def __reduce_ex__(self, protocol: Any) -> tuple[object, ...]:
        outOfBand = protocol >= 5
        parts = [(type(b), _wrapped(b, outOfBand)) for b in self.buffers]
        kinds = [kind if kind in (bytes, bytearray) else None for kind, _ in parts]
        return _restore, (self.pickle, kinds, *(buffer for _, buffer in parts))

    def __sizeof__(self) -> int:
        return len(self.pickle) + Packed(self.pickle, self.buffers).size

    def loads(self) -> Any:
        return loads(self.pickle, buffers=self.buffers)


def pack(value: object, f: object = None, foreign: bool = False) -> bytes | Parcel:
    return _parcelOf(dumps(value, f, foreign))


def unpack(payload: bytes | Parcel) -> memoryview | Parcel:
    """Get what an engine has brought as what is read elsewhere, too."""
    return memoryview(payload) if type(payload) is bytes else payload  # type: ignore[return-value]


def execute(
    payload: bytes | Parcel, keep: Callable[[Iterator[object]], bytes] | None = None
) -> tuple[int, bytes | Parcel]:
    """
    Run a call, where the engine wants it to be run, and return the
    L{Kind<asynqueue._child.protocol.Kind>} of answer, and the answer. Nothing gets out
    of it, not even C{SystemExit}. An iterator is kept there by what is called with it
    to C{keep} it, and makes the answer; else it can't be brought here.
    """
    answer = _Answer()
    _ParcelRunner(answer, keep).call(0, unpack(payload))  # type: ignore[arg-type]
    return answer.kind, _parcelOf(answer.payload)


class _Answer:
    """Takes the frame by which a call is answered, in the place of pipes."""

    def __init__(self) -> None:
        self.kind = 0
        self.payload: bytes | Packed = b""

    def send(self, kind: int, number: int, payload: bytes | Packed) -> None:
        self.kind, self.payload = kind, payload


class _ParcelRunner(CallServer):
    """Runs a call. Nothing is left of it afterwards that could be iterated over."""

    _advice = "there: call it in the reactor, with an AsyncWorker"

    def __init__(
        self, answer: _Answer, keep: Callable[[Iterator[object]], bytes] | None = None
    ) -> None:
        super().__init__(answer)
        self._keep = keep

    def _iterate(self, number: int, iterator: Iterator[object], start: float) -> None:
        if self._keep is not None:
            self._send(Kind.ITERATOR, number, self._keep(iterator))
            return
        error = NotPicklable(
            f"The callable has returned an iterator ({describe(iterator)}), which"
            " can't be brought here from there: have it return a list, or call it with"
            " a ProcessQueue, which brings the items"
        )
        self.fail(number, error, start)


def _parcelOf(packed: bytes | Packed) -> bytes | Parcel:
    return packed if type(packed) is bytes else Parcel(*packed)


def _wrapped(buffer: Buffer, outOfBand: bool) -> Buffer:
    if outOfBand:
        return PickleBuffer(buffer)
    if isinstance(buffer, (bytes, bytearray)):
        return buffer
    with flat(buffer) as view:
        return copyOf(view)


def _restore(pickle: bytes, kinds: list[type[Buffer] | None], *buffers: Any) -> Parcel:
    """Make a parcel of what has come, where C{bytes} may have become a view."""
    found = [
        buffer if kind is None or type(buffer) is kind else kind(buffer)
        for kind, buffer in zip(kinds, buffers, strict=True)
    ]
    return Parcel(pickle, found)
