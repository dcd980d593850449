"""
What can be said of objects, calls and exceptions.

Nothing here raises, whatever the objects are like, and texts are bounded. Children
import this when they start, so it imports only what is there anyway.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

#: A value is described in so many characters at most,
_MAX_CHARS = 200
#: and to so many levels of containers.
_MAX_LEVELS = 4
#: Of containers that describe themselves, those with more items aren't asked to.
_MAX_ITEMS_OF_OTHERS = 1_000
#: So many arguments of a call are described.
_MAX_ARGUMENTS = 20

_MAX_MESSAGE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 65_536

_BUFFERS: tuple[type, ...] = (str, bytes, bytearray, memoryview)

#: What is never taken for an iterator, whatever a subclass adds.
CONTAINERS: tuple[type, ...] = (*_BUFFERS, list, tuple, dict, set, frozenset)

#: What is of one of these very types is neither an iterator nor to be waited for. That
#: takes a fraction of the time to see that asking it would take.
PLAIN: frozenset[type] = frozenset((*CONTAINERS, bool, float, int, type(None)))


def isDeferred(value: object) -> bool:
    """Without importing Twisted: before that has been imported, there are none."""
    # The module may be half imported, by another thread.
    deferred = getattr(sys.modules.get("twisted.internet.defer"), "Deferred", None)
    return deferred is not None and isinstance(value, deferred)


def describe(value: object, most: int = _MAX_CHARS) -> str:
    """
    Describe any object on one line of so many characters, mostly as C{repr} does.

    Of what is huge, only the beginning is looked at. Keys aren't sorted, and nothing is
    compared or asked for its truth.
    """
    return _cut(cleaned(_Describer(most).repr(value)), most)


def nameOf(f: object) -> str:
    """
    Name a callable, or a C{str} that stands for one elsewhere: with the class if it's a
    method, but without the module and functions that it's local to.
    """
    try:
        if isinstance(f, str):
            return _cut(cleaned(f), _MAX_CHARS)
        name = getattr(f, "__qualname__", None) or getattr(f, "__name__", None)
        if isinstance(name, str):
            return _cut(cleaned(name.rpartition("<locals>.")[2]), _MAX_CHARS)
    except BaseException:  # noqa: BLE001 - runs __getattr__ of users
        return object.__repr__(f)
    return describe(f)


def callText(f: object, args: object = (), kw: object = None) -> str:
    """
    Describe a call, like C{f(1, x=2)}. What can't be arguments, or keywords, is taken
    for one more argument.
    """
    try:
        return f"{nameOf(f)}({', '.join(_arguments(args, kw))})"
    except BaseException:  # noqa: BLE001 - subclasses of tuple and dict are the user's
        return f"{nameOf(f)}(...)"


def message(error: object) -> str:
    try:
        return _cut(cleaned(str(error)), _MAX_MESSAGE_CHARS)
    except BaseException as worse:  # noqa: BLE001 - runs __str__ of users
        return f"<the message can't be had: {type(worse).__name__}>"


def errorText(error: BaseException, call: str) -> str:
    """
    Say that a call has raised an exception. The text begins C{Exception '<message>'},
    names the class of the exception, and the call if that is known, and has the
    traceback.
    """
    return f"{_head(error, call)}\n{_traceback(error)}"


def failureText(failure: Any, call: str) -> str:
    """Do as L{errorText} for a Failure, or an exception."""
    error = getattr(failure, "value", failure)
    try:
        if isinstance(error, BaseException) and (
            error is failure or error.__traceback__ or error.__cause__
        ):
            return errorText(error, call)
        # The failure has kept the frames when its exception has lost them.
        trace = _cut(cleaned(failure.getTraceback()).rstrip(), _MAX_TRACEBACK_CHARS)
    except BaseException as worse:  # noqa: BLE001 - shows objects of users
        trace = f"<the traceback can't be had: {type(worse).__name__}>"
    return f"{_head(error, call)}\n{trace}"


def formatted(error: BaseException) -> str:
    """
    Format an exception as Python does, without the frames of this package at the top.
    It's the one function here that lets out what the exception raises.
    """
    import traceback

    trace = error.__traceback__
    package = __name__.partition(".")[0]
    # How the package came to call the function is of no interest.
    while (
        trace is not None
        and trace.tb_next is not None
        and str(trace.tb_frame.f_globals.get("__name__")).startswith(f"{package}.")
    ):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _head(error: object, call: str) -> str:
    head = f"Exception '{message(error)}' ({type(error).__name__})"
    return f"{head} in {call}" if call else head


def _traceback(error: BaseException) -> str:
    try:
        return _cut(cleaned(formatted(error)).rstrip(), _MAX_TRACEBACK_CHARS)
    except BaseException as worse:  # noqa: BLE001 - shows exceptions of users
        return f"<the traceback can't be had: {type(worse).__name__}>"


def _arguments(args: Any, kw: Any) -> list[str]:
    if not issubclass(type(args), (tuple, list)):
        args = () if args is None else (args,)
    parts = [describe(value) for value in islice(args, _MAX_ARGUMENTS)]
    cut = len(args) > _MAX_ARGUMENTS
    if issubclass(type(kw), dict):
        # A copy, since other threads may change it.
        for key, value in list(kw.items())[:_MAX_ARGUMENTS]:
            isName = isinstance(key, str)
            name = _cut(cleaned(key), _MAX_CHARS) if isName else describe(key)
            parts.append(f"{name}={describe(value)}")
        cut = cut or len(kw) > _MAX_ARGUMENTS
    elif kw is not None:
        parts.append(describe(kw))
    return [*parts, "..."] if cut else parts


class _Describer(reprlib.Repr):
    """
    Describes one object on one line, in about so many characters.

    In contrast to its base class it sorts nothing, stops at what is enough in all, and
    lets nothing out that an object raises.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxlevel = _MAX_LEVELS
        self._most = most
        # How many more characters are wanted, brackets and the like aside.
        self._room = most - 20

    def repr1(self, x: object, level: int) -> str:
        try:
            return super().repr1(x, level)
        except BaseException:  # noqa: BLE001 - runs __repr__ of users
            return self._taken(object.__repr__(x))

    def repr_list(self, x: list[object], level: int) -> str:
        return f"[{self._items(x, level)}]"

    def repr_tuple(self, x: tuple[object, ...], level: int) -> str:
        return f"({self._items(x, level)}{',' if len(x) == 1 else ''})"

    def repr_set(self, x: set[object], level: int) -> str:
        return f"{{{self._items(x, level)}}}" if x else "set()"

    def repr_frozenset(self, x: frozenset[object], level: int) -> str:
        return f"frozenset({{{self._items(x, level)}}})" if x else "frozenset()"

    def repr_dict(self, x: dict[object, object], level: int) -> str:
        pairs = (
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in x.items()
        )
        return f"{{{self._join(pairs, len(x), level)}}}"

    def repr_str(self, x: str | bytes | bytearray, level: int) -> str:
        shown = f"{x[: self._most]!r}"
        return self._taken(shown if len(x) <= self._most else f"{shown}...")

    repr_bytes = repr_bytearray = repr_str

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return self._taken(f"<int of {bits} bits>" if bits > 4_000 else repr(x))

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x)
        if isinstance(x, (str, bytes, bytearray)) and len(x) > self._most:
            return self.repr_str(x, level)
        if isinstance(x, (dict, frozenset, list, set, tuple)) or kind.__module__ in (
            "array",
            "collections",
        ):
            size = len(x)
            if size > _MAX_ITEMS_OF_OTHERS:
                return self._taken(f"<{kind.__name__} of {size} items>")
        lines = repr(x).splitlines()
        return self._taken(" ".join([line.strip() for line in lines]))

    repr_array = repr_deque = repr_instance

    def _items(self, x: Collection[object], level: int) -> str:
        return self._join((self.repr1(item, level - 1) for item in x), len(x), level)

    def _join(self, parts: Iterable[str], size: int, level: int) -> str:
        if level <= 0 and size:
            return "..."
        shown: list[str] = []
        for part in parts:
            shown.append(part)
            if self._room <= 0:
                break
        return ", ".join(shown if len(shown) == size else [*shown, "..."])

    def _taken(self, text: str) -> str:
        self._room -= len(text) + 2
        return text


def cleaned(text: str) -> str:
    """Make a text that can be written anywhere: with lone surrogates escaped."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
