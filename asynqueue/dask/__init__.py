"""
Workers on a cluster of Dask's: a queue with a cluster behind it, made on the spot for
trying out, or one that is there already. Needs the extra C{asynqueue[dask]}.

The names are looked up when they're first used: Dask's own processes import this
package for what they run, and need nothing of Twisted for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._queue import DaskQueue
    from ._worker import DaskWorker

__all__ = ["DaskQueue", "DaskWorker"]

if not TYPE_CHECKING:  # so that a misspelt name is found by type checkers

    def __getattr__(name: str) -> object:
        """Import a public name when it's first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import _queue

        value = globals()[name] = getattr(_queue, name)
        return value
