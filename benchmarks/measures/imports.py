"""
How long it takes to import the package with the names in its root, beyond what it
takes from other packages.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from .pools import Report

#: The names that an application may get from the root of the package.
NAMES = """
    AsyncWorker DeferredLock DeferredTracker Info ProcessBase ProcessQueue ProcessWorker
    TaskQueue ThreadQueue ThreadWorker deferToDelay deferToThread showResult
"""

#: Lists the modules of other packages in the order in which they're imported.
LIST = """
import sys
import asynqueue
for name in sys.argv[1].split():
    getattr(asynqueue, name, None)
for name, module in list(sys.modules.items()):
    if "site-packages" in (getattr(module, "__file__", None) or ""):
        if name.partition(".")[0] != "asynqueue":
            print(name)
"""

#: Prints the seconds that it takes to import these, and then the package.
TIME = """
import sys
from importlib import import_module
from time import perf_counter
start = perf_counter()
for name in sys.argv[2].split():
    import_module(name)
between = perf_counter()
package = import_module("asynqueue")
for name in sys.argv[1].split():
    getattr(package, name, None)
print(between - start, perf_counter() - between)
"""


def python(program: str, *args: str) -> str:
    """Run a program in an interpreter of its own. Returns what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program, *args],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def run(contender: str, sizes: dict[str, Any], report: Report) -> None:
    """Take the figures."""
    modules = python(LIST, NAMES)
    others, own = map(float, python(TIME, NAMES, modules).split())
    report({"own": own * 1e3, "others": others * 1e3})
