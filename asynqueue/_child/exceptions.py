"""
Exceptions on their way from one process to another, whatever they're like. What calls
code of one catches whatever that raises: nothing but the exception may fail.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Iterable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, SupportsIndex

from .describe import formatted
from .pickling import PROTOCOL, NotPicklable, describeError, dumpsPlain

#: So much of a traceback, in characters, is brought over.
_MAX_TEXT = 65_536
#: So much of an exception, in bytes, is brought over.
_MAX_EXCEPTION = 1 << 20
#: So many exceptions of a chain are brought over.
_MAX_CAUSES = 20
#: With any of these of its own, an exception has a say in how it's pickled.
_SPECIAL = ("__getstate__", "__new__", "__reduce__", "__reduce_ex__", "__setstate__")

# An exception's class may have ideas of its own about these attributes.
_CAUSE: GetSetDescriptorType = vars(BaseException)["__cause__"]
_CONTEXT: GetSetDescriptorType = vars(BaseException)["__context__"]
_SUPPRESSED: MemberDescriptorType = vars(BaseException)["__suppress_context__"]


def takeApart(
    error: BaseException,
) -> tuple[
    type[BaseException], tuple[object, ...], dict[str, object], dict[str, object]
]:
    """
    Get the class, arguments, attributes and slots of an exception, without calling code
    of its class.
    """
    kind = type(error)
    base = _builtinBase(kind)
    slots = {
        name: member.__get__(error)
        for parent in _ownParents(kind)
        for name, member in vars(parent).items()
        if isinstance(member, MemberDescriptorType) and hasattr(error, name)
    }
    reduced = base.__reduce__(error)
    state = reduced[2] if len(reduced) > 2 else None
    return kind, reduced[1], dict(state or {}), slots


def rebuild(parts: tuple[Any, ...]) -> BaseException:
    """Make an exception again of its parts, without calling code of its class."""
    kind, args, state, slots = parts
    base = _builtinBase(kind)
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)
    error.__dict__.update(state)
    for name, value in slots.items():
        object.__setattr__(error, name, value)
    return error


def causes(error: BaseException, most: int) -> Iterator[tuple[str, BaseException]]:
    """
    Iterate over an exception and what it has come from, which may go round in a circle:
    how the one before has come from it, C{'cause'} or C{'context'}, and the exception.
    """
    relation = ""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(seen) < most:
        seen.add(id(link))
        yield relation, link
        if _CAUSE.__get__(link) is not None:
            relation, link = "cause", _CAUSE.__get__(link)
        elif _SUPPRESSED.__get__(link):
            return
        else:
            relation, link = "context", _CONTEXT.__get__(link)


def linkCauses(
    error: BaseException,
    trace: BaseException,
    origins: Iterable[tuple[str, BaseException | None]],
) -> None:
    """
    Give an exception that was made again its cause, the traceback in the other process,
    and that what it has come from, as far as there's no gap.
    """
    _CAUSE.__set__(error, trace)
    link = trace
    for relation, origin in origins:
        if origin is None:
            return
        (_CAUSE if relation == "cause" else _CONTEXT).__set__(link, origin)
        link = origin


def endsIteration(error: BaseException) -> bool:
    """Tell whether raising it would end an iteration that it has nothing to do with."""
    return isinstance(error, (StopAsyncIteration, StopIteration))


def cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"


def dumpsException(error: BaseException, text: str, seconds: float = 0.0) -> bytes:
    """
    Pickle the seconds, the text, the traceback, and for the exception and each cause
    how the one before has come from it, and its own pickle, if it can be had.
    """
    try:
        lines = formatted(error)
    except BaseException:  # noqa: BLE001 - see the module's docstring
        lines = f"{describeError(error)}\n(The traceback can't be shown.)\n"
    try:
        chain = [
            (relation, _dumpsOne(link)) for relation, link in causes(error, _MAX_CAUSES)
        ]
    except BaseException:  # noqa: BLE001 - as above
        chain = [("", None)]
    texts = cut(str(text), _MAX_TEXT), cut(lines, _MAX_TEXT)
    return pickle.dumps((seconds, *texts, chain), PROTOCOL)


def _dumpsOne(error: BaseException) -> bytes | None:
    """Pickle an exception on its own, C{None} if it can't be or is very large."""
    try:
        pickled = dumpsPlain(_partsToPickle(error) or _alone(error))
    except NotPicklable:
        return None
    return pickled if len(pickled) <= _MAX_EXCEPTION else None


class _Alone:
    """Is pickled as an exception is, by its own method."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[object, ...]:
        return self._error.__reduce_ex__(protocol)


def _alone(error: BaseException) -> object:
    """
    Have an exception pickled without its causes and its traceback, which tblib takes
    along once Dask has been imported.
    """
    reducer = copyreg.dispatch_table.get(type(error))
    isTaken = getattr(reducer, "__module__", None) == "tblib.pickling_support"
    return _Alone(error) if isTaken else error


def _partsToPickle(error: BaseException) -> tuple[object, ...] | None:
    """
    Take an exception apart if its class has an C{__init__} or slots of its own, and
    nothing else: it can't be relied on to be unpickled then, as that calls the class
    with the arguments that its base was given, and knows nothing of slots.
    """
    kind = type(error)
    if any(name in vars(parent) for parent in _ownParents(kind) for name in _SPECIAL):
        return None
    parts = takeApart(error)
    hasOwn = kind.__init__ is not _builtinBase(kind).__init__ or parts[3]
    return parts if hasOwn else None


def _builtinBase(kind: type) -> Any:
    """Find the first class of Python itself, which may be the exception's own."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _ownParents(kind: type) -> tuple[type, ...]:
    return kind.__mro__[: kind.__mro__.index(_builtinBase(kind))]
