"""
Having calls made in the cluster, and fetching what they have come to.

All of it runs in the loop of the worker's thread.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from typing import Any, TypeAlias

from distributed.client import FutureCancelledError
from twisted.python.failure import Failure

from .._child.parcels import unpack
from .._child.protocol import Kind
from .._child.status import StatusResult
from .._support.answers import loadsAnswer
from ..errors import WorkerLost
from ._buffers import MIN_SCATTERED, Scattering
from ._bundles import Bundle, ClusterCall
from ._connection import ClusterOptions
from ._iterations import HeldItems
from ._remote import Answer, RemoteCalls, execute

#: A call whose arguments were lost with the worker that had them is sent so often.
_MAX_ATTEMPTS = 3

#: Dask's reason for giving up all calls.
DISCONNECTED = "scheduler-connection-lost"

#: A question takes the scheduler, two workers and the client some 7 ms of computing
#: together, whatever it asks for. While many tasks run, it's put off by so many seconds
#: for each of them,
_DELAY_SECONDS = 0.001

#: but not by more than so many.
_MAX_DELAY_SECONDS = 0.05

#: What a call has come to: the result of its task, why there's none, or an iterator.
Outcome: TypeAlias = StatusResult | Failure | HeldItems


class BundleRunner:
    """
    Has a Dask task make the calls of each bundle.

    @ivar sent: Dask's future of each bundle that has no answer.
    """

    # _held has the future of a bundle whose calls have returned iterators, which are
    # held in the cluster as long as it's there. _large names the functions whose
    # results have been large.

    def __init__(self, client: Any, options: ClusterOptions, topic: str) -> None:
        """@param topic: Dask's topic by which bundles tell that they have begun."""
        self.sent: dict[Bundle, object] = {}
        self._held: dict[str, Any] = {}
        self._large: set[str] = set()
        self._client = client
        self._options = options
        self._topic = topic
        self._scattering = Scattering(client)
        self._fetching = Fetching(client)

    async def hold(self, call: ClusterCall) -> None:
        """Copy the large buffers of a call."""
        payload: Any = call.payload
        # Updates aren't Dask tasks, for which buffers could be brought there before.
        call.payload, call.large = await self._scattering.hold(
            payload, isWhole=call.task.direct
        )

    def drop(self, call: ClusterCall) -> None:
        """Forget the large buffers of a call."""
        large, call.large = call.large, {}
        self._scattering.release(large)

    async def run(self, bundle: Bundle) -> list[tuple[float, Outcome]]:
        """Have the calls of a bundle be made, and get what they have come to."""
        try:
            return await self._run(bundle)
        finally:
            self.drop(bundle.calls[0])

    def release(self, bundle: Bundle) -> None:
        """End the iterations that the calls of a bundle have led to."""
        future = self._held.pop(bundle.key, None)
        if future is not None:
            future.release()

    async def _run(self, bundle: Bundle) -> list[tuple[float, Outcome]]:
        first = bundle.calls[0]
        large = first.large
        calls = RemoteCalls(
            [call.payload for call in bundle.calls],
            self._scattering.places(large),
            # The time of a call starts when it's begun.
            None if first.task.timeout is None else self._topic,
        )
        for attempt in range(_MAX_ATTEMPTS):
            pieces = [await self._scattering.scatter(copy) for copy in large.values()]
            key = f"{bundle.key}-{attempt}" if attempt else bundle.key
            future = self._client.submit(
                execute,
                bundle.key,
                calls,
                *pieces,
                key=key,
                pure=False,
                priority=bundle.priority,
                **self._options.placement(first.task.series),
            )
            self.sent[bundle] = future
            try:
                return await self._result(bundle, future)
            except FutureCancelledError as error:
                # The worker may have gone that had the buffers.
                if error.reason == DISCONNECTED or not (large and bundle.isWanted):
                    raise
                for copy in large.values():
                    self._scattering.renew(copy)
            finally:
                del self.sent[bundle]
        raise WorkerLost(f"Its arguments were lost {_MAX_ATTEMPTS} times")

    async def _result(
        self, bundle: Bundle, future: object
    ) -> list[tuple[float, Outcome]]:
        # What is large comes from the worker itself. That takes a question more, so
        # it's done where it's likely.
        call = bundle.calls[0]
        isLarge = bool(call.large) or call.name in self._large
        if isLarge and await self._scattering.isDirect():
            answers = await self._client.gather(future, direct=True)
        else:
            answers = await self._fetching.fetch(future)
        if isinstance(answers, bytes):
            found = pickle.loads(answers)
        else:
            found = answers.answers
            if sys.getsizeof(answers) >= MIN_SCATTERED:
                self._large.add(call.name)
        outcomes = [
            outcomeOf(answer, call.task)
            for call, answer in zip(bundle.calls, found, strict=True)
        ]
        if any(type(outcome) is HeldItems for _, outcome in outcomes):
            self._held[bundle.key] = future
        return outcomes


class Fetching:
    """
    Fetches results, together those of all tasks that have ended meanwhile.

    Each question goes to the scheduler and from there to workers. By itself, the client
    asks 697 times for 1,000 results of calls that do nothing.
    """

    # _running counts those that haven't ended. _ended has those that are to be fetched
    # next. One question is asked at a time.

    def __init__(self, client: Any) -> None:
        self._client = client
        self._running = 0
        self._ended: dict[object, asyncio.Future[object]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def fetch(self, future: Any) -> Any:
        """Wait for what a task returns. What has become of it otherwise is raised."""
        # There's no public way to wait for the end of a task, but not for its result,
        # without making the client the default one of the whole process.
        self._running += 1
        try:
            await future._state.wait()
        finally:
            self._running -= 1
        if future.status == "finished":
            result = self._ended[future] = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
            found = await result
            if found is not None:
                return found
        return await future

    async def _ask(self) -> None:
        while self._ended:
            await asyncio.sleep(min(self._running * _DELAY_SECONDS, _MAX_DELAY_SECONDS))
            ended, self._ended = self._ended, {}
            try:
                found = await self._client.gather(list(ended), direct=False)
            except Exception:  # noqa: BLE001 - each will be told its own
                found = [None] * len(ended)
            for result, value in zip(ended.values(), found, strict=True):
                if not result.done():
                    result.set_result(value)
        self._asking = None


def outcomeOf(found: Answer, task: object) -> tuple[float, Outcome]:
    """Get how many seconds a call took, and what it has come to."""
    kind, answer = found
    if kind == Kind.ITERATOR:
        return 0.0, HeldItems(*pickle.loads(answer))  # type: ignore[arg-type]  # it's small
    outcome: tuple[float, Outcome] = loadsAnswer(kind, unpack(answer), task)
    return outcome
