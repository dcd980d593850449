"""
Writes the inventories of outside names that docstrings and pages link to.

Sphinx and pydoctor would otherwise fetch those of Python and Twisted from the network.
Run it from the root of the checkout before the docs are built; a name that is linked
and isn't listed here is an error of the build.
"""

from __future__ import annotations

import zlib
from pathlib import Path

BUILD = Path(__file__).resolve().parent / "_build"

#: Pages of Python's library reference, each with the names that it documents.
PYTHON = {
    "asyncio-future": "class:asyncio.Future",
    "collections.abc": "class:collections.abc.Callable class:collections.abc.Hashable",
    "concurrent.futures": "class:concurrent.futures.Executor",
    "exceptions": "exception:StopIteration exception:TimeoutError exception:ValueError",
    "logging": "module:logging",
    "pickle": "module:pickle exception:pickle.PicklingError",
}

#: Names of Twisted and Zope Interface, as Twisted's API documentation has them.
TWISTED = """
    class:twisted.internet.defer.CancelledError
    class:twisted.internet.defer.Deferred
    method:twisted.internet.defer.Deferred.addBoth
    method:twisted.internet.defer.Deferred.addCallback
    method:twisted.internet.defer.Deferred.addCallbacks
    method:twisted.internet.defer.Deferred.addErrback
    class:twisted.internet.interfaces.IConsumer
    class:twisted.internet.interfaces.IPullProducer
    class:twisted.internet.interfaces.IPushProducer
    method:twisted.internet.interfaces.IPushProducer.pauseProducing
    method:twisted.internet.interfaces.IPushProducer.resumeProducing
    method:twisted.internet.interfaces.IPushProducer.stopProducing
    class:twisted.internet.interfaces.IReactorTime
    class:twisted.internet.task.Clock
    class:twisted.python.failure.Failure
    class:twisted.web.guard.HTTPAuthSessionWrapper
"""


def write(project: str, lines: list[str]) -> None:
    """
    Write an inventory, in version 2 of Sphinx's format.

    @param project: The name of the project, and of the file.

    @param lines: The entries.
    """
    head = (
        "# Sphinx inventory version 2\n"
        f"# Project: {project}\n"
        "# Version: 0\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    body = zlib.compress("".join(f"{line}\n" for line in lines).encode())
    BUILD.mkdir(exist_ok=True)
    (BUILD / f"{project}.inv").write_bytes(head.encode() + body)


def main() -> None:
    """Write them all."""
    python = []
    for page, entries in PYTHON.items():
        for entry in entries.split():
            kind, _, name = entry.partition(":")
            anchor = f"module-{name}" if kind == "module" else name
            python.append(f"{name} py:{kind} 1 library/{page}.html#{anchor} -")
    write("python", python)
    twisted = []
    for entry in TWISTED.split():
        kind, _, name = entry.partition(":")
        owner, _, member = name.rpartition(".")
        page = f"{owner}.html#{member}" if kind == "method" else f"{name}.html"
        twisted.append(f"{name} py:{kind} 1 {page} -")
    write("twisted", twisted)


if __name__ == "__main__":
    main()
