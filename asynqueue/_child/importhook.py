"""
Doing something with modules that may never be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["whenImported"]


def whenImported(name: str, f: Callable[[Any], object]) -> None:
    """
    Call a function with a module: now if it's imported, or else when it is.

    @param name: The module's name.

    @param f: The function.
    """
    if name in sys.modules:
        f(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, f))


class _Finder:
    """
    Finds one module, once, and has a function called when it's been executed.
    """

    def __init__(self, name: str, f: Callable[[Any], object]) -> None:
        self._name = name
        self._f = f

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
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
