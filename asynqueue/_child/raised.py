"""
Exceptions on their way out of a child, whatever they're like.

Used on both sides, so it imports nothing but the standard library. What calls code of
an exception catches whatever that raises: nothing but the exception may fail.
"""

from __future__ import annotations

import pickle
import traceback
from types import MemberDescriptorType
from typing import Any

from .payloads import PROTOCOL, NotPicklable, cut, dumps, told

__all__ = ["CAUSE", "CONTEXT", "Link", "TakenApart", "dumpsException", "putTogether"]

#: So much of a traceback, in characters, is brought over.
_MOST_TEXT = 65_536

#: So much of an exception, in bytes, is brought over.
_MOST_EXCEPTION = 1 << 20

#: So many exceptions of a chain are brought over.
_MOST_CAUSES = 20

#: With any of these of its own, an exception has a say in how it's pickled.
_SPECIAL = ("__getstate__", "__new__", "__reduce__", "__reduce_ex__", "__setstate__")

# An exception's class may have ideas of its own about these attributes.
CAUSE: Any = vars(BaseException)["__cause__"]
CONTEXT: Any = vars(BaseException)["__context__"]
_SUPPRESSED: Any = vars(BaseException)["__suppress_context__"]

#: An exception of a chain: how the one before it has come from it (empty for the
#: first, then C{'cause'} or C{'context'}), and its pickle, C{None} if it can't be had.
Link = tuple[str, "bytes | None"]


class TakenApart(tuple[Any, ...]):
    """
    Class, arguments, attributes and slots of an exception whose class has an
    C{__init__} or slots of its own.

    Such an exception can't be relied on to be unpickled: that calls the class with the
    arguments that its base was given, and knows nothing of slots.
    """

    __slots__ = ()


def dumpsException(error: BaseException, text: str) -> bytes:
    """
    Pickle an exception with its traceback and its causes.

    @param error: The exception.

    @param text: Text about it.

    @return: A pickle of nothing but text and bytes: the text, the traceback, and a
        list of L{Link}s, the first for the exception itself.
    """
    try:
        lines = "".join(traceback.format_exception(type(error), error, _trace(error)))
    except BaseException:  # noqa: BLE001 - see the module's docstring
        lines = f"{told(error)}\n(The traceback can't be shown.)\n"
    try:
        chain = _chain(error)
    except BaseException:  # noqa: BLE001 - as above
        chain = [("", None)]
    return pickle.dumps(
        (cut(str(text), _MOST_TEXT), cut(lines, _MOST_TEXT), chain), PROTOCOL
    )


def putTogether(parts: TakenApart) -> BaseException:
    """
    Make an exception again that was taken apart, without calling code of its class.

    @param parts: The parts.

    @return: The exception.
    """
    kind, args, state, slots = parts
    base = _builtinBase(kind)
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)
    if state:
        error.__dict__.update(state)
    for name, value in slots.items():
        object.__setattr__(error, name, value)
    return error


def _chain(error: BaseException) -> list[Link]:
    """
    Pickle an exception, and what it has come from.

    @param error: The exception.

    @return: The links of the chain.
    """
    chain: list[Link] = []
    link: BaseException | None = error
    relation = ""
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(chain) < _MOST_CAUSES:
        seen.add(id(link))
        chain.append((relation, _dumpsOne(link)))
        if CAUSE.__get__(link) is not None:
            relation, link = "cause", CAUSE.__get__(link)
        elif _SUPPRESSED.__get__(link):
            link = None
        else:
            relation, link = "context", CONTEXT.__get__(link)
    return chain


def _trace(error: BaseException) -> Any:
    """
    Get the traceback of an exception without the frames of this package at its top.

    @param error: The exception.

    @return: The traceback.
    """
    trace = error.__traceback__
    here = __name__.partition(".")[0]
    while (
        trace is not None
        and trace.tb_next is not None
        and str(trace.tb_frame.f_globals.get("__name__")).startswith(f"{here}.")
    ):
        trace = trace.tb_next
    return trace


def _dumpsOne(error: BaseException) -> bytes | None:
    """
    Pickle an exception on its own.

    @param error: The exception.

    @return: The pickle, C{None} if it can't be had or is very large.
    """
    try:
        pickled = dumps(_takeApart(error) or error)
    except NotPicklable:
        return None
    return pickled if len(pickled) <= _MOST_EXCEPTION else None


def _takeApart(error: BaseException) -> TakenApart | None:
    """
    Take an exception apart.

    @param error: The exception.

    @return: Its parts, C{None} if it's better pickled as it is.
    """
    kind = type(error)
    base = _builtinBase(kind)
    own = kind.__mro__[: kind.__mro__.index(base)]
    if any(name in vars(parent) for parent in own for name in _SPECIAL):
        return None
    slots = {
        name: member.__get__(error)
        for parent in own
        for name, member in vars(parent).items()
        if isinstance(member, MemberDescriptorType) and hasattr(error, name)
    }
    if kind.__init__ is base.__init__ and not slots:
        return None
    reduced = base.__reduce__(error)
    state = reduced[2] if len(reduced) > 2 else None
    return TakenApart((kind, reduced[1], state, slots))


def _builtinBase(kind: type[BaseException]) -> Any:
    """
    Find the first class that an exception's class has from Python itself.

    @param kind: The exception's class.

    @return: The base, which may be the class itself.
    """
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")
