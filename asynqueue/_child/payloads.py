"""
What goes through the pipes, pickled: calls and results, set-up.

Used on both sides, so it imports nothing but the standard library. What calls code of
objects to be pickled or described catches whatever that raises: only the one call may
fail.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from .describe import describe, message
from .mainmodule import isOfHiddenMain
from .pickling import PROTOCOL, Packed, ViewPickler, pack, packWith, withViews

__all__ = [
    "PROTOCOL",
    "NotPicklable",
    "cut",
    "dumps",
    "dumpsCall",
    "dumpsLarge",
    "loads",
    "loadsMany",
    "told",
]

T = TypeVar("T")

loads = pickle.loads


class NotPicklable(Exception):
    """
    Something can't be pickled. The message says what, why, and what helps.
    """


def dumps(value: Any) -> bytes:
    """
    Pickle something, with cloudpickle if that's installed and needed.

    @param value: The thing.

    @return: The pickle.

    @raise NotPicklable: If it can't be pickled.
    """
    try:
        data = pickle.dumps(value, PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _otherwise(error, _dumpsWith, value)
    return _dumpsMain(value, _dumpsWith, data) if isOfHiddenMain(data) else data


def dumpsLarge(value: Any) -> bytes | Packed:
    """
    Pickle something without copying what is large.

    @param value: The thing.

    @return: The pickle, with buffers if there's something large.

    @raise NotPicklable: If it can't be pickled.
    """
    try:
        return pack(value)
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _otherwise(error, packWith, value)


def _otherwise(
    error: BaseException, dump: Callable[[Callable[..., Any], Any], T], value: Any
) -> T:
    """
    Pickle something that C{pickle} can't.

    @param error: What that has raised.

    @param dump: Pickles with a given kind of pickler.

    @param value: The thing.

    @return: What it returns.

    @raise NotPicklable: If it can't be pickled.
    """
    if "memoryview" in message(error):
        with suppress(BaseException):
            return dump(ViewPickler, value)
    try:
        import cloudpickle  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise NotPicklable(
            f"{told(error)}. Lambdas, closures and local functions can be"
            " pickled where the extra asynqueue[cloudpickle] is installed"
        ) from error
    try:
        return dump(withViews(cloudpickle.Pickler), value)
    except BaseException as worse:
        raise NotPicklable(f"{told(worse)}, not even by cloudpickle") from worse


def _dumpsMain(
    value: Any, dump: Callable[[Callable[..., Any], Any], T], packed: T
) -> T:
    """
    Pickle something of a main module that children can't import, if that's possible.
    """
    try:
        import cloudpickle
    except ImportError:
        return packed  # the child will say what is missing
    return dump(withViews(cloudpickle.Pickler), value)


def _dumpsWith(make: Callable[..., pickle.Pickler], value: Any) -> bytes:
    """
    Pickle something with a pickler of another kind.

    @param make: Makes the pickler.

    @param value: The thing.

    @return: The pickle.
    """
    import io

    file = io.BytesIO()
    make(file, PROTOCOL).dump(value)
    return file.getvalue()


def dumpsCall(
    f: Any, args: tuple[Any, ...], kw: dict[str, Any], raw: bool
) -> bytes | Packed:
    """
    Pickle a call.

    @param f: The callable.

    @param args: Its arguments.

    @param kw: Its keywords.

    @param raw: Whether an iterator is to come back as it is.

    @return: The pickle, with buffers if there's something large.

    @raise NotPicklable: If it can't be pickled. The message names the part to blame.
    """
    call = (f, args, kw, raw)
    try:
        packed = pack(call)
        data = packed if isinstance(packed, bytes) else packed.pickle
        return _dumpsMain(call, packWith, packed) if isOfHiddenMain(data, f) else packed
    except BaseException as error:  # noqa: BLE001 - see the module's docstring
        return _dumpsOddCall(call, error)


def _dumpsOddCall(call: tuple[Any, ...], failure: BaseException) -> bytes | Packed:
    """
    Pickle a call that C{pickle} can't.

    @param call: The callable, its arguments, its keywords, and whether an iterator is
        to come back as it is.

    @param failure: What C{pickle} has raised.

    @return: See L{dumpsCall}.

    @raise NotPicklable: See there.
    """
    try:
        return _otherwise(failure, packWith, call)
    except NotPicklable as error:
        f, args, kw, _ = call
        parts = [("the callable", f)]
        parts += [(f"argument {i}", value) for i, value in enumerate(args)]
        parts += [(f"keyword {name}", value) for name, value in kw.items()]
        for what, value in parts:
            try:
                dumpsLarge(value)
            except NotPicklable as guilty:  # noqa: PERF203 - a call isn't that long
                raise NotPicklable(
                    f"{what} ({describe(value)}) can't be pickled: {guilty}"
                ) from guilty.__cause__
        raise NotPicklable(f"the call can't be pickled: {error}") from error.__cause__


def loadsMany(data: memoryview) -> Iterator[Any]:
    """
    Unpickle one thing after the other.

    @param data: Pickles end to end.

    @return: An iterator of the things.
    """
    import io

    file = io.BytesIO(data)
    size = len(data)
    while file.tell() < size:
        yield pickle.load(file)


def told(error: BaseException) -> str:
    """
    Tell what an exception is.

    @param error: The exception.

    @return: Its type and its message.
    """
    return f"{type(error).__name__}: {message(error)}"


def cut(text: str, most: int) -> str:
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
