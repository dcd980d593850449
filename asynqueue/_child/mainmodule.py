"""
The main module of a program, as seen by its child processes.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

from .describe import message
from .importhook import whenImported

__all__ = [
    "START_FOLDER",
    "MainModule",
    "checkNotImporting",
    "isImporting",
    "isOfHiddenMain",
    "mainSource",
]

#: Where relative paths of this program start.
START_FOLDER = ""
with suppress(OSError):  # it may have been removed
    START_FOLDER = os.getcwd()

#: What programs are told that do more than they should when they're imported.
_GUARD = 'What it does when it\'s run must be under if __name__ == "__main__"'

#: How a pickle of our protocol names the main module.
_MARK = b"\x8c\x08__main__"


def mainSource() -> tuple[str, str] | None:
    """
    Tell how children can import the main module: by C{"name"} or C{"path"}, and which.

    @return: C{None} if they can't, for it was typed in, piped in, or given by C{-c}.
    """
    return _sourceOf(sys.modules["__main__"])


def isOfHiddenMain(data: bytes, f: object = None) -> bool:
    """
    Tell whether a pickle refers to something of a main module that children can't
    import.

    @param f: A function that is in the pickle. It may have been typed in besides a
        main module that they can.
    """
    if _MARK not in data:
        return False
    if mainSource() is None:
        return True
    return getattr(getattr(f, "__code__", None), "co_filename", "").startswith("<")


@lru_cache(1)
def _sourceOf(main: ModuleType) -> tuple[str, str] | None:
    name = getattr(getattr(main, "__spec__", None), "name", "__main__")
    if name != "__main__":
        return "name", str(name)
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return None
    path = os.path.normpath(os.path.join(START_FOLDER, str(file)))
    for candidate in (path, os.path.dirname(path)):  # the latter of a zip file
        if os.path.isfile(candidate):
            return "path", candidate
    return None


def isImporting() -> bool:
    """
    Tell whether this is a child that is importing the program's main module, or has
    failed to.
    """
    main = sys.modules["__main__"]
    return isinstance(main, MainModule) and main.isImporting


def checkNotImporting(what: str) -> None:
    """
    Refuse to do what only the program itself should do when it's run.

    @param what: What is refused, the beginning of a sentence.

    @raise RuntimeError: If L{isImporting}.
    """
    if isImporting():
        raise RuntimeError(
            f"{what} while a child process imports the main program. {_GUARD}"
        )


class MainModule(ModuleType):
    """
    Stands for the program's main module until something of it is needed.

    Functions of it are looked up in C{__main__} when they're unpickled. Only then is
    the main module imported, in the way of C{multiprocessing}, so that what it imports
    delays no child that needs nothing of it.
    """

    def __init__(self, source: tuple[str, str] | None) -> None:
        super().__init__("__main__")
        self.isImporting = False
        # Names that are nobody else's. The source goes when it has been tried.
        self.__source = source
        self.__error: ImportError | None = None

    def __repr__(self) -> str:
        """
        Say what is wrong with it. This is part of the message when a function isn't
        found.
        """
        return (
            "the main program, which children can't import. What it defines can be"
            " sent to them where the extra asynqueue[cloudpickle] is installed"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__error is not None:
            raise self.__error
        source, self.__source = self.__source, None
        if source is not None:
            try:
                with _guarded(self):
                    _importMain(*source)
            except BaseException as error:  # whatever the program raises
                text = f"{type(error).__name__}: {message(error)}".removesuffix(_GUARD)
                self.__error = ImportError(
                    f"The main program can't be imported in a child ({source[1]}):"
                    f" {text.rstrip(' .')}. {_GUARD}"
                )
                raise self.__error from error
        main = sys.modules["__main__"]
        if main is self:
            raise AttributeError(name)
        return getattr(main, name)


@contextmanager
def _guarded(main: MainModule) -> Iterator[None]:
    """
    Have programs refused that would run a reactor, or start processes, when they're
    imported. For one that can't be imported it stays so: there may be more to come.
    """
    from multiprocessing.process import current_process

    process: Any = current_process()
    process._inheriting = True  # has multiprocessing refuse to start any
    main.isImporting = True
    whenImported("twisted.internet.base", _refuseToRun)
    whenImported("twisted.internet.main", _installOnce)
    try:
        yield
        main.isImporting = False
    finally:
        del process._inheriting


def _refuseToRun(base: Any) -> None:
    """
    Have reactors refuse to run while the main module is being imported.
    """
    startRunning: Callable[..., None] = base.ReactorBase.startRunning

    def startUnlessImporting(*args: Any, **kw: Any) -> None:
        checkNotImporting("reactor.run() was called")
        startRunning(*args, **kw)

    base.ReactorBase.startRunning = startUnlessImporting


def _installOnce(main: Any) -> None:
    """
    Have programs that choose a reactor left with the one that is there.
    """
    installReactor: Callable[..., None] = main.installReactor

    def installIfNone(*args: Any, **kw: Any) -> None:
        if not (isImporting() and "twisted.internet.reactor" in sys.modules):
            installReactor(*args, **kw)

    main.installReactor = installIfNone


def _importMain(how: str, which: str) -> None:
    """
    Import the program's main module.
    """
    import runpy

    if how == "name":
        content = runpy.run_module(which, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(which, run_name="__mp_main__")
    main = ModuleType("__mp_main__")
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
