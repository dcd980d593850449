"""ampoule: a pool of children that are spoken to by AMP commands."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.amp import Command, String

from .base import CannotDo
from .deferreds import TwistedPool

#: Loaded like this because type checkers needn't have it.
AMPChild: Any = import_module("ampoule.child").AMPChild

#: The most that a value may have.
LARGEST = 0xFFFF


class RunCall(Command):
    """A call, pickled, and its result."""

    arguments = [(b"call", String())]  # noqa: RUF012 - AMP declares them so
    response = [(b"result", String())]  # noqa: RUF012


class Child(AMPChild):
    """The children's side: runs calls."""

    @RunCall.responder
    def run(self, call: bytes) -> dict[str, bytes]:
        """Run a call."""
        f, args = pickle.loads(call)
        return {"result": pickle.dumps(f(*args), 5)}


class AmpoulePool(TwistedPool):
    """A pool of ampoule, whose children never are recycled."""

    def __init__(self) -> None:
        self._pool: Any = None

    async def start(self, children: int) -> None:
        starter = import_module("ampoule.main").ProcessStarter(
            env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        self._pool = import_module("ampoule.pool").ProcessPool(
            Child,
            min=children,
            max=children,
            recycleAfter=0,
            starter=starter,
        )
        await self._pool.start()

    async def stop(self) -> None:
        await self._pool.stop()

    def begin(self, f: Callable[..., Any], *args: Any) -> Deferred[Any]:
        call = pickle.dumps((f, args), 5)
        if len(call) > LARGEST:
            raise CannotDo(f"takes no more than {LARGEST:,} bytes")
        d: Deferred[Any] = self._pool.doWork(RunCall, call=call)
        return d.addCallback(_result)


def _result(response: dict[str, bytes]) -> Any:
    """Take the result out of a response."""
    return pickle.loads(response["result"])
