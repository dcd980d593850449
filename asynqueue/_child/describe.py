"""
What can be said of objects, calls and exceptions.

Nothing here raises, whatever the objects are like, and texts are bounded. Children
import this when they start, so it imports nothing but the standard library, and of that
only what is there anyway.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

__all__ = [
    "PLAIN",
    "callText",
    "describe",
    "errorText",
    "failureText",
    "isDeferred",
    "message",
    "nameOf",
]

#: A value is described in so many characters at most.
_MOST = 200

#: So many arguments of a call are described.
_MOST_ARGUMENTS = 20

#: Containers are described to so many levels.
_MOST_LEVELS = 4

#: Of containers that describe themselves, those with more items aren't asked to.
_MOST_ITEMS = 1_000

#: An exception's message has so many characters at most,
_MOST_MESSAGE = 2_000

#: and its traceback so many.
_MOST_TRACEBACK = 65_536

_BRACKETS: dict[type, tuple[str, str]] = {
    dict: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    list: ("[", "]"),
    set: ("{", "}"),
    tuple: ("(", ")"),
}

_STRINGS = (str, bytes, bytearray)

#: What is of one of these very types is neither an iterator nor to be waited for. That
#: takes a fraction of the time to see that asking it would take.
PLAIN = frozenset(
    [
        bool,
        bytes,
        bytearray,
        dict,
        float,
        frozenset,
        int,
        list,
        memoryview,
        set,
        str,
        tuple,
        type(None),
    ]
)


def isDeferred(value: object) -> bool:
    """
    Tell whether something is a Deferred, without importing Twisted: before that has
    been imported, there are none.

    @param value: The thing.

    @return: Whether it is one.
    """
    # The module may be half imported, by another thread.
    deferred = getattr(sys.modules.get("twisted.internet.defer"), "Deferred", None)
    return deferred is not None and isinstance(value, deferred)


def describe(value: object, most: int = _MOST) -> str:
    """
    Describe any object on one line, mostly as C{repr} does.

    Of what is huge, only the beginning is looked at. Keys aren't sorted, and nothing is
    compared or asked for its truth.

    @param value: The object.

    @param most: How many characters the text may have.

    @return: The text.
    """
    return _cut(_shown(value, most, _MOST_LEVELS), most)


def nameOf(f: object) -> str:
    """
    Name a callable.

    @param f: The callable, or a C{str} that stands for one elsewhere.

    @return: Its name, with that of its class if it's a method, but without those of its
        module and of functions that it's local to; or a description.
    """
    try:
        if isinstance(f, str):
            return _cut(_clean(f), _MOST)
        name = getattr(f, "__qualname__", None) or getattr(f, "__name__", None)
        if isinstance(name, str):
            return _cut(_clean(name.rpartition("<locals>.")[2]), _MOST)
    except BaseException:  # noqa: BLE001 - runs __getattr__ of users
        return _bare(f)
    return describe(f)


def callText(f: object, args: Any = (), kw: Any = None) -> str:
    """
    Describe a call.

    @param f: The callable.

    @param args: Its arguments. What is neither a tuple nor a list is taken for a single
        argument.

    @param kw: Its keywords. What isn't a dict is taken for another argument.

    @return: Text like C{f(1, x=2)}.
    """
    try:
        return f"{nameOf(f)}({', '.join(_arguments(args, kw))})"
    except BaseException:  # noqa: BLE001 - subclasses of tuple and dict are the user's
        return f"{nameOf(f)}(...)"


def message(error: object) -> str:
    """
    Get what an exception says.

    @param error: The exception.

    @return: Its message.
    """
    try:
        return _cut(_clean(str(error)), _MOST_MESSAGE)
    except BaseException as worse:  # noqa: BLE001 - runs __str__ of users
        return f"<the message can't be had: {type(worse).__name__}>"


def errorText(error: BaseException, call: str) -> str:
    """
    Say that a call has raised an exception.

    @param error: The exception.

    @param call: Text about the call.

    @return: Text that begins C{Exception '<message>'}, names the class of the exception
        and the call, and has the traceback.
    """
    return f"{_head(error, call)}\n{_traceback(error)}"


def failureText(failure: Any, call: str) -> str:
    """
    Say that a call has failed.

    @param failure: A L{Failure<twisted.python.failure.Failure>}, or an exception.

    @param call: Text about the call.

    @return: Text as from L{errorText}.
    """
    error = getattr(failure, "value", failure)
    if isinstance(error, BaseException) and (
        error is failure or error.__traceback__ or error.__cause__
    ):
        return errorText(error, call)
    # The failure has kept the frames when its exception has lost them.
    try:
        trace = _cut(_clean(failure.getTraceback()).rstrip(), _MOST_TRACEBACK)
    except BaseException as worse:  # noqa: BLE001 - shows objects of users
        trace = f"<the traceback can't be had: {type(worse).__name__}>"
    return f"{_head(error, call)}\n{trace}"


def _head(error: object, call: str) -> str:
    """
    Make the first line about an exception.

    @param error: The exception.

    @param call: Text about the call.

    @return: The line. It's several if the exception's message is.
    """
    return f"Exception '{message(error)}' ({type(error).__name__}) in {call}"


def _traceback(error: BaseException) -> str:
    """
    Get the traceback of an exception and all that it has come from.

    @param error: The exception.

    @return: The text.
    """
    import traceback

    try:
        trace = error.__traceback__
        # How the package came to call the function is of no interest.
        while trace is not None and trace.tb_next is not None and _ours(trace.tb_frame):
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace))
        return _cut(_clean(text).rstrip(), _MOST_TRACEBACK)
    except BaseException as worse:  # noqa: BLE001 - shows exceptions of users
        return f"<the traceback can't be had: {type(worse).__name__}>"


def _ours(frame: Any) -> bool:
    """
    Tell whether a frame is one of this package.

    @param frame: The frame.

    @return: Whether it is.
    """
    package = __name__.partition(".")[0]
    return str(frame.f_globals.get("__name__")).startswith(f"{package}.")


def _arguments(args: Any, kw: Any) -> list[str]:
    """
    Describe arguments.

    @param args: See L{callText}.

    @param kw: See L{callText}.

    @return: A text for each.
    """
    if not issubclass(type(args), (tuple, list)):
        args = () if args is None else (args,)
    parts = [describe(value) for value in islice(args, _MOST_ARGUMENTS)]
    cut = len(args) > _MOST_ARGUMENTS
    if issubclass(type(kw), dict):
        # A copy, since other threads may change it.
        for key, value in list(kw.items())[:_MOST_ARGUMENTS]:
            name = _cut(_clean(key), _MOST) if isinstance(key, str) else describe(key)
            parts.append(f"{name}={describe(value)}")
        cut = cut or len(kw) > _MOST_ARGUMENTS
    elif kw is not None:
        parts.append(describe(kw))
    return [*parts, "..."] if cut else parts


def _shown(value: object, room: int, levels: int) -> str:
    """
    Describe an object.

    @param value: The object.

    @param room: About how many characters are wanted.

    @param levels: How many levels of containers are described.

    @return: Text, which may be longer.
    """
    kind = type(value)
    try:
        if isinstance(value, _STRINGS) and len(value) > room:
            return f"{value[:room]!r}..."
        if kind in _BRACKETS:
            return _items(value, room, levels)
        if isinstance(value, int) and value.bit_length() > 4 * room:
            return f"<{kind.__name__} of {value.bit_length()} bits>"
        if isinstance(value, tuple(_BRACKETS)) or kind.__module__ in (
            "array",
            "collections",
        ):
            size = len(value)  # type: ignore[arg-type]
            if size > _MOST_ITEMS:
                return f"<{kind.__name__} of {size} items>"
        return " ".join(line.strip() for line in _clean(repr(value)).splitlines())
    except BaseException:  # noqa: BLE001 - runs __repr__ of users
        return _bare(value)


def _bare(value: object) -> str:
    """
    Describe an object that can't do it.

    @param value: The object.

    @return: Text with its type and its address.
    """
    return object.__repr__(value)


def _items(container: Any, room: int, levels: int) -> str:
    """
    Describe a container of one of the built-in types.

    @param container: The container.

    @param room: About how many characters are wanted.

    @param levels: How many levels of containers are described.

    @return: Text, which may be longer.
    """
    kind = type(container)
    opening, closing = _BRACKETS[kind]
    if not container:
        return repr(container)
    if not levels:
        return f"{opening}...{closing}"
    parts: list[str] = []
    pairs = container.items() if kind is dict else ((None, x) for x in container)
    for key, value in pairs:
        if room <= 0:
            parts.append("...")
            break
        text = _shown(value, room, levels - 1)
        if kind is dict:
            text = f"{_shown(key, room, levels - 1)}: {text}"
        parts.append(text)
        room -= len(text) + 2
    if kind is tuple and len(parts) == 1:
        closing = ",)"
    return f"{opening}{', '.join(parts)}{closing}"


def _clean(text: str) -> str:
    """
    Make a text that can be written anywhere.

    @param text: The text.

    @return: The text with lone surrogates escaped.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str, most: int) -> str:
    """
    Cut a text in its middle if it's long.

    @param text: The text.

    @param most: How many characters it may have.

    @return: The text.
    """
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
