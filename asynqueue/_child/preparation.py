"""
How the program's interpreter is set up, and making a child's like it.

Used on both sides, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from .importhook import whenImported
from .mainmodule import START_FOLDER, MainModule, mainSource

__all__ = ["adopt", "preparation"]


def preparation() -> dict[str, Any]:
    """
    Describe this interpreter.

    @return: A dict of plain values.
    """
    from multiprocessing.process import current_process

    # What comes from the main module in a child is looked up here.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
    process = current_process()
    return {
        # Debuggers put there what only looks like a string.
        "sys_path": [str(path) or START_FOLDER for path in sys.path],
        "sys_argv": [str(argument) for argument in sys.argv],
        "main": mainSource(),
        "parent": (process.name, os.getpid(), process.authkey.hex()),
    }


def adopt(preparation: dict[str, Any]) -> None:
    """
    Make this interpreter like the one that was described.
    """
    sys.path[:] = preparation["sys_path"]
    sys.argv[:] = preparation["sys_argv"]
    main = MainModule(preparation["main"])
    # The program may be itself a process that multiprocessing has spawned.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    # Not at once: importing it takes 3 ms, of some 30 until a child is ready.
    whenImported("multiprocessing.process", partial(_setProcess, preparation["parent"]))


def _setProcess(parent: tuple[str, int, str], module: Any) -> None:
    """
    Have C{multiprocessing} know that this is a child, as it does in its own.
    """
    name, pid, authkey = parent
    current = module.current_process()
    current.name = f"asynqueue-{os.getpid()}"
    current.authkey = bytes.fromhex(authkey)
    sentinel = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    module._parent_process = module._ParentProcess(name, pid, sentinel)
