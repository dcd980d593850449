"""Decorators that print what calls a function gets."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from .._child.describe import callText, describe, isDeferred, message

_P = ParamSpec("_P")
_T = TypeVar("_T")


def showResult(f: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Decorate a function or method so that each call is printed to stdout with its
    result, or with what it has raised. If it returns a Deferred, that's done when the
    Deferred fires.

    Results, exceptions and failures are passed on as they are.

    @raise TypeError: If it isn't callable.
    """
    _checkCallable("showResult", f)

    @wraps(f)
    def shown(*args: _P.args, **kw: _P.kwargs) -> _T:
        text = callText(f, args, kw)
        try:
            result = f(*args, **kw)
        except BaseException as error:
            _show(f"{text} raised {_named(error)}")
            raise
        if isDeferred(result):
            cast(Any, result).addCallbacks(
                _showFired, _showFailed, callbackArgs=(text,), errbackArgs=(text,)
            )
        else:
            _showFired(result, text)
        return result

    return shown


def whichThread(f: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Decorate a function or method so that each call is printed to stdout with the name
    of the thread that it runs in.

    @raise TypeError: If it isn't callable.
    """
    _checkCallable("whichThread", f)

    @wraps(f)
    def shown(*args: _P.args, **kw: _P.kwargs) -> _T:
        name = threading.current_thread().name
        _show(f"{callText(f, args, kw)} in thread {name!r}")
        return f(*args, **kw)

    return shown


def _checkCallable(decorator: str, f: object) -> None:
    """Check what is to be decorated."""
    if isinstance(f, classmethod | staticmethod) or not callable(f):
        raise TypeError(
            f"{decorator} decorates functions, not {f!r}; with classmethod or"
            f" staticmethod, put {decorator} below it"
        )


def _show(text: str) -> None:
    """Print a line, whatever it has in it."""
    stdout = sys.stdout
    # There may be none, and then it's None.
    if stdout:
        encoding = getattr(stdout, "encoding", None) or "utf-8"
        stdout.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")


def _showFired(result: _T, text: str) -> _T:
    _show(f"{text} -> {describe(result)}")
    return result


def _showFailed(failure: Any, text: str) -> object:
    _show(f"{text} failed with {_named(failure.value)}")
    return failure


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {message(error)}"
