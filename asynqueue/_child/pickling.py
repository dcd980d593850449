"""
Pickling without copying what is large.

Arrays and the like are pickled out-of-band if they know how to, which is what protocol
5 is for. C{bytes} and C{bytearray} don't: their contents are part of the pickle.
Picklers spare themselves a copy, though, and hand the file to which they write the
object itself. Here, it's kept, and the unpickler told to take it from where it takes
buffers.

What calls code of objects catches whatever that raises: only the one call may fail.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
import sys
from collections import ChainMap, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pickle import PickleBuffer
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias, cast

from .describe import describe, message
from .mainmodule import isOfHiddenMain

#: The protocol of pickle that all frames are in.
PROTOCOL = 5
#: What has fewer bytes is part of the pickle. Picklers have the same limit for what
#: they don't copy.
MIN_BUFFER = 65_536
#: A pickler that has made longer pickles than this isn't used again: it would go on
#: forgetting as much as it had to know for them.
_MAX_REUSED = 4096
#: In the pickles of connections, which are descriptors of the process they're made in.
_CONNECTION = "multiprocessing.connection"
_CONNECTION_BYTES = _CONNECTION.encode()
#: In the pickles of what the main module has.
_MAIN_BYTES = b"__main__"
#: The opcodes that are of interest, and lengths that follow them.
_BYTES, _BYTES8, _BYTEARRAY8 = b"B", b"\x8e", b"\x96"
_FRAME, _NEXT_BUFFER = 0x95, b"\x97"
_LENGTH, _LENGTH8 = struct.Struct("<I"), struct.Struct("<Q")
#: Something large. What a view has is a C{memoryview}, see L{_Packer}.
Buffer: TypeAlias = "bytes | bytearray | memoryview | PickleBuffer"

loads = pickle.loads


class NotPicklable(Exception):
    """Something can't be pickled. The message says what, why, and what helps."""


class Packed(NamedTuple):
    """A pickle, and the buffers that it needs besides, in order."""

    pickle: bytes
    buffers: list[Buffer]

    @property
    def size(self) -> int:
        return sum(memoryview(buffer).nbytes for buffer in self.buffers)


def flat(buffer: Buffer) -> memoryview:
    """View a buffer as bytes, in whatever order its array has them."""
    return buffer.raw() if isinstance(buffer, PickleBuffer) else memoryview(buffer)


def copyOf(view: memoryview) -> bytes | bytearray:
    """Copy what a view shows, to what can be written to if the view can."""
    return bytes(view) if view.readonly else bytearray(view)


def dumps(value: object, f: object = None, foreign: bool = False) -> bytes | Packed:
    """
    Pickle something without copying what is large, with cloudpickle if that's installed
    and needed: for L{isOfHiddenMain}, and for foreign processes, which don't import the
    main module.
    """
    packer = _idle.pop() if _idle else _Packer(pickle.Pickler)
    try:
        packer.pickler.dump(value)
        packer.pickler.clear_memo()
        chunks = packer.chunks
        if len(chunks) > 1 or packer.kept:
            packed: bytes | Packed = packer.assemble()
            pickled = packed.pickle if isinstance(packed, Packed) else packed
        else:
            packed = pickled = chunks.pop()
            if len(pickled) <= _MAX_REUSED:
                _idle.append(packer)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        packer.reset()
        return _packOtherwise(value, error)
    if _CONNECTION_BYTES in pickled:
        _refuseConnections(value)
    if _MAIN_BYTES in pickled and (foreign or isOfHiddenMain(pickled, f)):
        return _packMain(value) or packed
    return packed


def dumpsPlain(value: object) -> bytes:
    """Pickle something as C{dumps} does, with all that is large in the pickle."""
    try:
        pickled = pickle.dumps(value, PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return cast(bytes, _packOtherwise(value, error, plain=True))
    if _CONNECTION_BYTES in pickled:
        _refuseConnections(value)
    if _MAIN_BYTES in pickled and isOfHiddenMain(pickled):
        return cast(bytes, _packMain(value, plain=True) or pickled)
    return pickled


def blame(
    f: object,
    args: tuple[object, ...],
    kw: dict[str, object],
    error: NotPicklable,
) -> NotPicklable:
    """Make the error of a call that L{dumps} has refused, with the part to blame."""
    parts = [("the callable", f)]
    parts += [(f"argument {i}", value) for i, value in enumerate(args)]
    parts += [(f"keyword {name}", value) for name, value in kw.items()]
    blamed, cause = NotPicklable(f"the call can't be pickled: {error}"), error
    for what, value in parts:
        try:
            dumps(value)
        except NotPicklable as guilty:  # noqa: PERF203 - a call isn't that long
            text = f"{what} ({describe(value)}) can't be pickled: {guilty}"
            blamed, cause = NotPicklable(text), guilty
            break
    blamed.__cause__ = cause.__cause__
    return blamed


def loadsMany(data: memoryview) -> Iterator[Any]:
    """Unpickle pickles that stand end to end."""
    file = io.BytesIO(data)
    size = len(data)
    while file.tell() < size:
        yield pickle.load(file)


def describeError(error: BaseException) -> str:
    return f"{type(error).__name__}: {message(error)}"


class _Packer:
    """
    A pickler that keeps what is large, unless it's to make plain pickles. It can be
    used again if it hasn't failed.
    """

    # chunks is what the pickler has written; kept has buffers, and how many chunks had
    # been written before each. The last chunk is written after all of them.
    #
    # A garbage collector that finds a view and a PickleBuffer of it, in Python before
    # 3.12.7, releases the view first, and crashes (gh-77894). So what a view shows is
    # kept by a view of its own, and nothing is left behind by a failure.

    def __init__(
        self, make: Callable[..., pickle.Pickler], plain: bool = False
    ) -> None:
        self.chunks: list[Any] = []
        self.kept: deque[tuple[int, Buffer]] = deque()
        self.pickler = make(
            SimpleNamespace(write=self.chunks.append),
            PROTOCOL,
            buffer_callback=None if plain else self._keep,
        )
        self._plain = plain

    def assemble(self) -> bytes | Packed:
        """Make a pickle of the chunks, without those that are large objects."""
        pieces: list[bytes] = []
        buffers: list[Buffer] = []
        for i, chunk in enumerate(self.chunks):
            while self.kept and self.kept[0][0] <= i:
                buffers.append(self.kept.popleft()[1])
            # In a plain pickle it may be a PickleBuffer, which has no length.
            isKept = not self._plain and len(chunk) >= MIN_BUFFER
            head = _head(chunk) if isKept else None
            if head and pieces and pieces[-1].endswith(head):
                pieces[-1] = pieces[-1][: -len(head)] + _NEXT_BUFFER
                buffers.append(chunk)
            else:
                pieces.append(chunk)
        self.chunks.clear()
        pickled = b"".join(pieces)
        return Packed(pickled, buffers) if buffers else pickled

    def reset(self) -> None:
        """Let go of what a failure has left."""
        self.chunks.clear()
        self.kept.clear()
        self.pickler.clear_memo()

    def _keep(self, buffer: PickleBuffer) -> bool:
        # It's contiguous: picklers refuse others before they ask.
        kept: Buffer = buffer
        with memoryview(buffer) as view:
            if view.nbytes < MIN_BUFFER:
                return True
            if isinstance(view.obj, memoryview):
                with suppress(TypeError):  # of formats that can't be cast
                    kept = view.obj.cast("B")
        self.kept.append((len(self.chunks), kept))
        return False


#: Picklers that can be used again. A new one for each call takes longer than most
#: calls take to be pickled.
_idle: list[_Packer] = []


def _head(chunk: bytes | bytearray | memoryview) -> bytes | None:
    """Tell the opcode and length before a chunk if that is an object."""
    size = len(chunk)
    if type(chunk) is bytearray:
        return _BYTEARRAY8 + _LENGTH8.pack(size)
    if type(chunk) is not bytes:
        return None
    if chunk[0] == _FRAME and 0 <= size - 9 - _LENGTH8.unpack_from(chunk, 1)[0] <= 9:
        # It looks like what picklers write of everything else.
        return None
    return _bytesHead(size)


def _bytesHead(size: int) -> bytes:
    if size <= 0xFFFFFFFF:
        return _BYTES + _LENGTH.pack(size)
    return _BYTES8 + _LENGTH8.pack(size)


def _pack(
    make: Callable[..., pickle.Pickler], value: object, plain: bool = False
) -> bytes | Packed:
    packer = _Packer(make, plain)
    try:
        packer.pickler.dump(value)
        return packer.assemble()
    finally:
        packer.reset()


def _packOtherwise(
    value: object, error: BaseException, plain: bool = False
) -> bytes | Packed:
    """Pickle what C{pickle} can't: views, and what cloudpickle can."""
    if "memoryview" in message(error):
        with suppress(BaseException):
            return _packWith(pickle.Pickler, value, plain)
    text = describeError(error)
    try:
        return _packByCloudpickle(value, "{}, not even by cloudpickle", plain)
    except ImportError:
        if not isinstance(error, TypeError):  # as of open files, locks and reactors
            text += (
                ". Lambdas, closures and local functions can be pickled where the extra"
                " asynqueue[cloudpickle] is installed"
            )
    raise NotPicklable(text) from error


def _packMain(value: object, plain: bool = False) -> bytes | Packed | None:
    """Pickle something of a main module that children can't import, if possible."""
    try:
        return _packByCloudpickle(value, "{}", plain)
    except ImportError:
        return None  # the child will say what is missing


def _packByCloudpickle(value: object, text: str, plain: bool) -> bytes | Packed:
    """Pickle by cloudpickle. If that fails, the text is said, with its place filled."""
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]

    try:
        return _packWith(cloudpickle.Pickler, value, plain)
    except NotPicklable:
        raise
    except BaseException as error:
        raise NotPicklable(text.format(describeError(error))) from error


def _packWith(kind: type[pickle.Pickler], value: object, plain: bool) -> bytes | Packed:
    packed = _pack(_withViews(kind), value, plain)
    pickled = packed.pickle if isinstance(packed, Packed) else packed
    if _CONNECTION_BYTES in pickled:
        _refuseConnections(value, kind)
    return packed


class _Refusal(Exception):
    """A connection was found."""


def _refuseConnections(
    value: object, kind: type[pickle.Pickler] = pickle.Pickler
) -> None:
    # They're pickled as numbers of descriptors, which are others in another process:
    # maybe those of its pipes.
    module = sys.modules.get(_CONNECTION)
    if module is None:
        return
    kinds = (module._ConnectionBase, module.Listener)

    class ConnectionFinder(_withViews(kind)):  # type: ignore[misc]  # it's made just now
        def persistent_id(self, found: object) -> None:
            if isinstance(found, kinds):
                raise _Refusal(
                    f"{describe(found)} is an open descriptor of this process, which"
                    " another process doesn't have: let a multiprocessing.Manager or"
                    " the call's result carry what would go through it"
                )

    try:
        ConnectionFinder(io.BytesIO(), PROTOCOL).dump(value)
    except _Refusal as error:
        raise NotPicklable(str(error)) from error
    except BaseException:  # noqa: BLE001 - cloudpickle has found a way
        return


def restoreView(buffer: Buffer, form: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(buffer)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if len(shape) != 1 and view.nbytes:
        return view.cast(form, shape)  # type: ignore[call-overload, no-any-return]
    return view if form == "B" else view.cast(form)  # type: ignore[call-overload]


def reduceView(view: memoryview) -> tuple[object, ...]:
    form = view.format.removeprefix("@")
    if len(form) != 1 or form not in "cbB?hHiIlLqQnNfdP":
        raise TypeError(f"cannot pickle a memoryview of elements {view.format!r}")
    contents = PickleBuffer(view if view.c_contiguous else copyOf(view))
    return restoreView, (contents, form, view.shape)


def _withViews(kind: type[pickle.Pickler]) -> type[pickle.Pickler]:
    """Make a kind of pickler that can pickle views. They're slower."""
    known = getattr(kind, "dispatch_table", None)
    if not isinstance(known, Mapping):  # C's pickler has but a place for one
        known = copyreg.dispatch_table
    table: Any = ChainMap({memoryview: reduceView}, known)  # type: ignore[arg-type]
    return type("ViewPickler", (kind,), {"dispatch_table": table})
