"""
The program's interpreter as its child processes see it: its main module above all, its
paths, and modules that they may never import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial, wraps
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .describe import message

# Where relative paths of this program start.
_startFolder = ""
with suppress(OSError):  # it may have been removed
    _startFolder = os.getcwd()

#: What programs are told that do more than they should when they're imported.
_GUARD = 'What it does when it\'s run must be under if __name__ == "__main__"'
#: How a pickle of our protocol names the main module.
_MARK = b"\x8c\x08__main__"


def preparation() -> dict[str, object]:
    """Describe this interpreter by plain values."""
    from multiprocessing.process import current_process

    # What comes from the main module in a child is looked up here.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    process = current_process()
    return {
        # Debuggers put there what only looks like a string.
        "sys_path": [str(path) or _startFolder for path in sys.path],
        "sys_argv": [str(argument) for argument in sys.argv],
        "main": mainSource(),
        "parent": (process.name, os.getpid(), process.authkey.hex()),
    }


def adopt(preparation: dict[str, Any]) -> None:
    sys.path[:] = preparation["sys_path"]
    sys.argv[:] = preparation["sys_argv"]
    main = MainModule(preparation["main"])
    # The program may be itself a process that multiprocessing has spawned.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    # Not at once: importing it takes 3 ms, of some 30 until a child is ready.
    _whenImported(
        "multiprocessing.process", partial(_setProcess, preparation["parent"])
    )


def leaveAttachedAlone() -> None:
    """
    Have blocks of C{multiprocessing.shared_memory} that calls only attach to stay when
    this process ends. Each interpreter removes those that it knows of, and would take
    the program's for its own.
    """
    _whenImported("multiprocessing.shared_memory", _patchSharedMemory)


def mainSource() -> tuple[str, str] | None:
    """
    Tell how children can import the main module: by C{"name"} or C{"path"}, and which.
    C{None} if they can't, for it was typed in, piped in, or given by C{-c}.
    """
    return _sourceOf(sys.modules["__main__"])


def isOfHiddenMain(data: bytes, f: object = None) -> bool:
    """
    Tell whether a pickle refers to something of a main module that children can't
    import. A function may have been typed in besides one that they can.
    """
    if _MARK not in data:
        return False
    if mainSource() is None:
        return True
    return getattr(getattr(f, "__code__", None), "co_filename", "").startswith("<")


def isImporting() -> bool:
    main = sys.modules["__main__"]
    return isinstance(main, MainModule) and main.isImporting


def checkNotImporting(what: str) -> None:
    """Refuse to do what only the program itself should do when it's run."""
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
        """Say what is wrong with it, in the message when a function isn't found."""
        return (
            "the main program, which children can't import. What it defines can be"
            " sent to them where the extra asynqueue[cloudpickle] is installed"
        )

    def __getattr__(self, name: str) -> object:
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


@lru_cache(1)
def _sourceOf(main: ModuleType) -> tuple[str, str] | None:
    name = getattr(getattr(main, "__spec__", None), "name", "__main__")
    if name != "__main__":
        return "name", str(name)
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return None
    path = os.path.normpath(os.path.join(_startFolder, str(file)))
    for candidate in (path, os.path.dirname(path)):  # the latter of a zip file
        if os.path.isfile(candidate):
            return "path", candidate
    return None


def _importMain(how: str, which: str) -> None:
    import runpy

    if how == "name":
        content = runpy.run_module(which, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(which, run_name="__mp_main__")
    main = ModuleType("__mp_main__")
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


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
    _whenImported("twisted.internet.base", _refuseToRun)
    _whenImported("twisted.internet.main", _installOnce)
    try:
        yield
        main.isImporting = False
    finally:
        del process._inheriting


def _refuseToRun(base: ModuleType) -> None:
    """Have reactors refuse to run while the main module is being imported."""
    startRunning: Callable[..., None] = base.ReactorBase.startRunning

    def startUnlessImporting(*args: object, **kw: object) -> None:
        checkNotImporting("reactor.run() was called")
        startRunning(*args, **kw)

    base.ReactorBase.startRunning = startUnlessImporting


def _installOnce(main: Any) -> None:
    """Have programs that choose a reactor left with the one that is there."""
    installReactor: Callable[..., None] = main.installReactor

    def installIfNone(*args: object, **kw: object) -> None:
        if not (isImporting() and "twisted.internet.reactor" in sys.modules):
            installReactor(*args, **kw)

    main.installReactor = installIfNone


def _setProcess(parent: tuple[str, int, str], module: Any) -> None:
    """Have C{multiprocessing} know that this is a child, as it does in its own."""
    name, pid, authkey = parent
    current = module.current_process()
    current.name = f"asynqueue-{os.getpid()}"
    current.authkey = bytes.fromhex(authkey)
    sentinel = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    module._parent_process = module._ParentProcess(name, pid, sentinel)


def _patchSharedMemory(module: ModuleType) -> None:
    original = module.SharedMemory.__init__

    @wraps(original)
    def init(
        self: Any,
        name: str | None = None,
        create: bool = False,
        *args: object,
        **kw: object,
    ) -> None:
        original(self, name, create, *args, **kw)
        # From Python 3.13, it can be told to be left alone.
        if not create and getattr(self, "_track", True):
            from multiprocessing.resource_tracker import unregister

            unregister(self._name, "shared_memory")

    module.SharedMemory.__init__ = init


def _whenImported(name: str, f: Callable[[ModuleType], object]) -> None:
    """Call a function with a module: now if it's imported, or else when it is."""
    if name in sys.modules:
        f(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, f))


class _Finder:
    def __init__(self, name: str, f: Callable[[ModuleType], object]) -> None:
        self._name = name
        self._f = f

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)  # by whatever other finder
        loader: Any = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def executeAndCall(module: ModuleType) -> None:
                execute(module)
                self._f(module)

            loader.exec_module = executeAndCall
        return spec
