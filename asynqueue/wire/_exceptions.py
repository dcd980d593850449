"""
Exceptions on their way from a server: names, plain arguments and text, never pickles.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

from .._child.describe import errorText
from .._child.exceptions import (
    causes,
    cut,
    endsIteration,
    linkCauses,
    rebuild,
    takeApart,
)
from .._child.status import ErrorText
from ..errors import RemoteTraceback, SerializationError, WorkerError
from ._plain import nameOfClass
from ._values import INLINE, Codec, NotEncodable

__all__ = ["dumpsError", "dumpsText", "loadsError"]

#: Characters of text that are brought over: of a traceback, and of a note.
_MAX_TEXT, _MAX_NOTE = 8_000, 1_000

#: Bytes that the arguments and attributes of an exception may become.
_MAX_PARTS = 6_000

#: Exceptions of a chain that are brought over.
_MAX_CAUSES = 5

#: This package's own errors, which come as what they are.
_OWN = {"SerializationError": SerializationError, "WorkerError": WorkerError}

_plain = Codec()


def dumpsError(codec: Codec, error: BaseException, call: str) -> bytes:
    """
    Encode an exception, which fits into a box.

    @param codec: What encodes its arguments.

    @param call: Text about the call that has raised it.
    """
    text = cut(errorText(error, call), _MAX_TEXT)
    chain: list[list[Any]] = []
    try:
        for relation, link in causes(error, _MAX_CAUSES):
            chain.append([relation, nameOfClass(type(link)), *_partsOf(codec, link)])
    except Exception:  # noqa: BLE001 - runs code of the exception
        chain = []
    for links in (chain, chain[:1]):
        data = _plain.encode([text, links])
        if isinstance(data, bytes) and len(data) <= INLINE:
            return data
    return dumpsText("", text)


def dumpsText(name: str, text: str) -> bytes:
    """Encode an error of this package's, by the name of its class."""
    data = _plain.encode([cut(text, _MAX_TEXT), [["", name, None, []]]])
    assert isinstance(data, bytes)
    return data


def loadsError(
    codec: Codec, data: bytes, exceptions: Iterable[type[Exception]]
) -> ErrorText:
    """
    Make an exception again.

    @param codec: What decodes its arguments.

    @param exceptions: Classes that are made again besides those of Python itself.

    @return: Text that carries the exception. Its cause is the traceback at the other
        end, whose own cause is what it has come from there. If it isn't made again,
        it's a L{WorkerError} with the whole text.

    @raise ValueError: If that's no exception.
    """
    value = _plain.decode(data)
    try:
        text, chain = value
        if not isinstance(text, str):
            raise ValueError("an exception without a text")
        own = _OWN.get(chain[0][1]) if chain else None
        if own is not None:
            return ErrorText(text, own(text))
        known = {nameOfClass(kind): kind for kind in exceptions}
        links = [(link[0], _make(codec, known, *link[1:])) for link in chain]
    except (IndexError, TypeError) as error:
        raise ValueError(f"an exception that is none: {error}") from error
    exception = links[0][1] if links else None
    if exception is None:
        exception = WorkerError(text)
    linkCauses(exception, RemoteTraceback(text), links[1:])
    return ErrorText(text, exception)


def _partsOf(codec: Codec, error: BaseException) -> tuple[bytes | None, list[str]]:
    """Encode arguments and attributes, if they can be, and give the notes."""
    _, args, state, slots = takeApart(error)
    notes = state.pop("__notes__", None)
    texts = []
    if isinstance(notes, (list, tuple)):
        texts = [cut(note, _MAX_NOTE) for note in notes[:5] if isinstance(note, str)]
    for parts in ((args, state, slots), (args, {}, {})):
        try:
            data = codec.encode(parts, _MAX_PARTS)
        except NotEncodable:
            continue
        if isinstance(data, bytes):
            return data, texts
    return None, texts


def _make(
    codec: Codec,
    known: dict[str, type[Exception]],
    name: str,
    parts: bytes | None,
    notes: list[str],
) -> Exception | None:
    """
    Make an exception again, without calling code of its class, or C{None} if it may
    not be made.
    """
    kind: Any = known.get(name)
    if kind is None:
        module, _, own = str(name).rpartition(".")
        kind = getattr(builtins, own, None) if module == "builtins" else None
    if not isinstance(kind, type) or not issubclass(kind, Exception) or parts is None:
        return None
    try:
        error = rebuild((kind, *codec.decode(parts)))
        for note in notes:
            if hasattr(error, "add_note"):
                error.add_note(note)
            else:
                error.__dict__.setdefault("__notes__", []).append(note)
    except Exception:  # noqa: BLE001 - arguments may be anything
        return None
    if not isinstance(error, Exception) or endsIteration(error):
        return None
    return error
