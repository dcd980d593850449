"""
The main module of a program, as seen by its child processes.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .describe import message

__all__ = ["MainModule", "preparation"]


def preparation() -> dict[str, Any]:
    """
    Describe how this interpreter is set up, for a child to be like it.

    It's what C{multiprocessing} tells its children, so the rules for C{__main__} are
    the well-known ones.

    @return: A dict of plain values.
    """
    from multiprocessing.spawn import get_preparation_data

    data = get_preparation_data("asynqueue")
    # What comes from the main module in a child is looked up here. That was set when
    # multiprocessing was imported, and another may be the main module by now.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    for name in ("authkey", "log_level", "log_to_stderr", "start_method", "name"):
        data.pop(name, None)
    # The child starts where the parent is, and may go elsewhere.
    data.pop("dir", None)
    data.setdefault("sys_path", list(sys.path))
    return data


class MainModule(ModuleType):
    """
    Stands for the parent's main module until something of it is needed.

    Functions of it are looked up in C{__main__} when they're unpickled. Only then is
    the main module imported, in the way of C{multiprocessing}, so that what it imports
    delays no child that needs nothing of it.
    """

    def __init__(self, preparation: dict[str, Any]) -> None:
        """
        Stand for it.

        @param preparation: What C{multiprocessing} tells its children.
        """
        super().__init__("__main__")
        # Names that are nobody else's.
        self.__preparation: dict[str, Any] | None = preparation
        self.__error: ImportError | None = None

    def __repr__(self) -> str:
        """
        Say what is wrong with it. This is part of the message when a function isn't
        found.
        """
        return "the main program, which has no file of that name to be imported from"

    def __getattr__(self, name: str) -> Any:
        """
        Look something up in the parent's main module.

        @param name: Its name.

        @return: It.

        @raise AttributeError: If there's no main module that could be imported, or
            nothing of that name in it.

        @raise ImportError: If it can't be imported.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__error is not None:
            raise self.__error
        preparation, self.__preparation = self.__preparation, None
        if preparation is not None:
            try:
                _importMain(preparation)
            except BaseException as error:  # whatever the program raises
                self.__error = ImportError(
                    "The main program can't be imported in a child: "
                    f"{type(error).__name__}: {message(error)}."
                    ' Is what it does, when it\'s run, under if __name__ == "__main__"?'
                )
                raise self.__error from error
        main = sys.modules["__main__"]
        if main is self:
            raise AttributeError(name)
        return getattr(main, name)


def _importMain(preparation: dict[str, Any]) -> None:
    """
    Import the parent's main module.

    @param preparation: What C{multiprocessing} tells its children.
    """
    from multiprocessing.process import current_process
    from multiprocessing.spawn import prepare

    # Has children refused, with a message that many know, to a program that starts
    # some without being asked whether it's C{__main__}.
    process: Any = current_process()
    process._inheriting = True
    try:
        prepare(preparation)
    finally:
        del process._inheriting
