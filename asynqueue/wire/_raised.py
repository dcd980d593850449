"""
Exceptions on their way from a server: as names, plain arguments and text, never as
pickles.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

from .._child.describe import errorText
from .._child.status import ErrorText
from ..errors import RemoteTraceback, SerializationError, WorkerError
from ._values import Codec, NotEncodable, TooLarge, nameOfClass

__all__ = ["dumpsError", "dumpsText", "loadsError"]

#: So much text is brought over, in characters: of one exception, and of a traceback.
_MOST_NOTE, _MOST_TEXT = 1_000, 8_000

#: So many bytes may the arguments of an exception become.
_MOST_ARGUMENTS = 6_000

#: So many exceptions of a chain are brought over.
_MOST_CAUSES = 5

# An exception's class may have ideas of its own about these attributes.
_CAUSE: Any = vars(BaseException)["__cause__"]
_CONTEXT: Any = vars(BaseException)["__context__"]
_SUPPRESSED: Any = vars(BaseException)["__suppress_context__"]

#: What these are raised for at the other end would be an iteration that has nothing to
#: do with them.
_ENDS = (StopAsyncIteration, StopIteration)

_plain = Codec()


def dumpsError(codec: Codec, error: BaseException, call: str) -> bytes:
    """
    Encode an exception.

    @param codec: What encodes its arguments.

    @param error: The exception.

    @param call: Text about the call that has raised it.

    @return: The encoding, which fits into a box.
    """
    text = _cut(errorText(error, call), _MOST_TEXT)
    try:
        chain = _chain(codec, error)
    except Exception:  # noqa: BLE001 - runs code of the exception
        chain = []
    for most in (len(chain), 1):
        try:
            return _plain.encode((text, chain[:most]))
        except TooLarge:  # noqa: PERF203 - it's two attempts
            continue
    return _plain.encode((text, []))


def dumpsText(name: str, text: str) -> bytes:
    """
    Encode an error of this package's.

    @param name: The name of its class.

    @param text: Its message.

    @return: The encoding.
    """
    text = _cut(text, _MOST_TEXT)
    return _plain.encode((text, [("", name, None, [])]))


def loadsError(
    codec: Codec, data: bytes, exceptions: Iterable[type[Exception]]
) -> ErrorText:
    """
    Make an exception again.

    @param codec: What decodes its arguments.

    @param data: What it was encoded to.

    @param exceptions: Classes that are made again besides those of Python itself.

    @return: Text that carries the exception. Its cause is the traceback at the other
        end (L{RemoteTraceback}), whose own cause is what it has come from there. If it
        isn't made again, it's a L{WorkerError} with the whole text.

    @raise ValueError: If that is no exception.
    """
    try:
        text, chain = _plain.decode(data)
        if not isinstance(text, str):
            raise ValueError("an exception without a text")
        known = {nameOfClass(kind): kind for kind in exceptions}
        first = chain[0][1] if chain else ""
        if first in ("SerializationError", "WorkerError"):
            kind = SerializationError if first == "SerializationError" else WorkerError
            return ErrorText(text, kind(text))
        links = [(link[0], _make(codec, known, *link[1:])) for link in chain]
    except (IndexError, TypeError) as error:
        raise ValueError(f"an exception that is none: {error}") from error
    exception = links[0][1] if links else None
    if exception is None:
        exception = WorkerError(text)
    trace = RemoteTraceback(text)
    _CAUSE.__set__(exception, trace)
    link: BaseException = trace
    for relation, origin in links[1:]:
        if origin is None:
            break
        (_CAUSE if relation == "cause" else _CONTEXT).__set__(link, origin)
        link = origin
    return ErrorText(text, exception)


def _chain(codec: Codec, error: BaseException) -> list[tuple[Any, ...]]:
    """
    Encode an exception, and what it has come from.

    @param codec: What encodes arguments.

    @param error: The exception.

    @return: For each: how the one before has come from it, its name, its arguments and
        attributes as bytes or C{None}, and its notes.
    """
    chain: list[tuple[Any, ...]] = []
    link: BaseException | None = error
    relation = ""
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(chain) < _MOST_CAUSES:
        seen.add(id(link))
        chain.append((relation, nameOfClass(type(link)), *_parts(codec, link)))
        if _CAUSE.__get__(link) is not None:
            relation, link = "cause", _CAUSE.__get__(link)
        elif _SUPPRESSED.__get__(link):
            link = None
        else:
            relation, link = "context", _CONTEXT.__get__(link)
    return chain


def _parts(codec: Codec, error: BaseException) -> tuple[bytes | None, list[str]]:
    """
    Take an exception apart.

    @param codec: What encodes its arguments.

    @param error: The exception.

    @return: Its arguments and attributes, C{None} if they can't be had; its notes.
    """
    base = _builtinBase(type(error))
    reduced = base.__reduce__(error)
    state = dict(reduced[2]) if len(reduced) > 2 and reduced[2] else {}
    notes = state.pop("__notes__", None)
    texts = []
    if isinstance(notes, (list, tuple)):
        texts = [_cut(note, _MOST_NOTE) for note in notes[:5] if isinstance(note, str)]
    try:
        return codec.encode((reduced[1], state), _MOST_ARGUMENTS), texts
    except (NotEncodable, TooLarge):
        try:
            return codec.encode((reduced[1], {}), _MOST_ARGUMENTS), texts
        except (NotEncodable, TooLarge):
            return None, texts


def _make(
    codec: Codec,
    known: dict[str, type[Exception]],
    name: Any,
    parts: Any,
    notes: Any,
) -> BaseException | None:
    """
    Make an exception again, without calling code of its class.

    @param codec: What decodes its arguments.

    @param known: Classes by name.

    @param name: The name of its class.

    @param parts: Its arguments and attributes.

    @param notes: Its notes.

    @return: The exception, C{None} if it isn't made.
    """
    kind: Any = known.get(name)
    if kind is None:
        module, _, own = str(name).rpartition(".")
        kind = getattr(builtins, own, None) if module == "builtins" else None
    if (
        not isinstance(kind, type)
        or not issubclass(kind, Exception)
        or issubclass(kind, _ENDS)
        or not isinstance(parts, bytes)
    ):
        return None
    try:
        args, state = codec.decode(parts)
        base = _builtinBase(kind)
        error: Any = base.__new__(kind, *args)
        base.__init__(error, *args)
        error.__dict__.update(state)
        for note in notes:
            if hasattr(error, "add_note"):
                error.add_note(note)
            else:
                error.__dict__.setdefault("__notes__", []).append(note)
    except Exception:  # noqa: BLE001 - arguments may be anything
        return None
    return error if isinstance(error, Exception) else None


def _builtinBase(kind: type) -> Any:
    """
    Find the first class that an exception's class has from Python itself.

    @param kind: The exception's class.

    @return: The base, which may be the class itself.
    """
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _cut(text: str, most: int) -> str:
    """
    Cut a text in the middle if it's long.

    @param text: The text.

    @param most: How many characters it may have.

    @return: The text.
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"
