"""
What goes through the pipes, pickled: calls and results, exceptions, set-up.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Iterator
from typing import Any

__all__ = [
    "PROTOCOL",
    "NotPicklable",
    "dumps",
    "dumpsCall",
    "dumpsException",
    "loads",
    "loadsMany",
]

#: The protocol of pickle that all frames are in.
PROTOCOL = 5

#: So much of a traceback, in characters, is brought over.
_MOST_TEXT = 65_536

#: So much of an exception, in bytes, is brought over.
_MOST_EXCEPTION = 1 << 20

#: So many exceptions of a chain are brought over.
_MOST_CAUSES = 20

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
        return pickle.dumps(value, PROTOCOL)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - runs __reduce__ of users
        try:
            import cloudpickle  # type: ignore[import-untyped, unused-ignore]
        except ImportError:
            raise NotPicklable(
                f"{_told(error)}. Lambdas, closures and local functions can be"
                " pickled where the extra asynqueue[cloudpickle] is installed"
            ) from error
        try:
            pickled: bytes = cloudpickle.dumps(value, PROTOCOL)
        except (Exception, SystemExit) as worse:  # noqa: BLE001 - as above
            raise NotPicklable(f"{_told(worse)}, not even by cloudpickle") from worse
        return pickled


def dumpsCall(f: Any, args: tuple[Any, ...], kw: dict[str, Any], raw: bool) -> bytes:
    """
    Pickle a call.

    @param f: The callable.

    @param args: Its arguments.

    @param kw: Its keywords.

    @param raw: Whether an iterator is to come back as it is.

    @return: The pickle.

    @raise NotPicklable: If it can't be pickled. The message names the part to blame.
    """
    try:
        return dumps((f, args, kw, raw))
    except NotPicklable as error:
        parts = [("the callable", f)]
        parts += [(f"argument {i}", value) for i, value in enumerate(args)]
        parts += [(f"keyword {name}", value) for name, value in kw.items()]
        for what, value in parts:
            try:
                dumps(value)
            except NotPicklable as guilty:
                raise NotPicklable(
                    f"{what} ({_cut(_told(value, repr), 200)}) can't be pickled:"
                    f" {guilty}"
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


def dumpsException(error: BaseException, text: str) -> bytes:
    """
    Pickle an exception with its traceback and its causes, whatever it's like.

    @param error: The exception.

    @param text: Text about it.

    @return: A pickle of nothing but text and bytes: the text, the traceback, and a
        list of relation and pickle for the exception (the relation is empty) and
        whatever it has come from (C{'cause'} or C{'context'}). A pickle that can't be
        had is C{None}.
    """
    try:
        lines = "".join(traceback.format_exception(type(error), error, _trace(error)))
    except Exception:  # noqa: BLE001 - formatting calls code of the exception
        lines = f"{type(error).__name__}, whose traceback can't be shown\n"
    chain: list[tuple[str, bytes | None]] = []
    link: BaseException | None = error
    relation = ""
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(chain) < _MOST_CAUSES:
        seen.add(id(link))
        chain.append((relation, _dumpsOne(link)))
        if link.__cause__ is not None:
            relation, link = "cause", link.__cause__
        elif link.__suppress_context__:
            link = None
        else:
            relation, link = "context", link.__context__
    return pickle.dumps(
        (_cut(text, _MOST_TEXT), _cut(lines, _MOST_TEXT), chain), PROTOCOL
    )


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
        pickled = dumps(error)
    except NotPicklable:
        return None
    return pickled if len(pickled) <= _MOST_EXCEPTION else None


def _told(value: Any, tell: Any = str) -> str:
    """
    Describe something that may not want to be described.

    @param value: The thing; for an exception, its type is told too.

    @param tell: C{str} or C{repr}.

    @return: Text.
    """
    try:
        text = str(tell(value))
    except Exception:  # noqa: BLE001 - calls code of users
        text = f"<{type(value).__name__}>"
    if isinstance(value, BaseException) and tell is str:
        return f"{type(value).__name__}: {_cut(text, 500)}"
    return text


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


def setup() -> dict[str, Any]:
    """
    Describe how this interpreter is set up, for a child to be like it.

    It's what C{multiprocessing} tells its children, so the rules for C{__main__} are
    the well-known ones.

    @return: A dict of plain values.
    """
    from multiprocessing.spawn import get_preparation_data

    data = get_preparation_data("asynqueue")
    for name in ("authkey", "log_level", "log_to_stderr", "start_method", "name"):
        data.pop(name, None)
    data.setdefault("sys_path", list(sys.path))
    return data
