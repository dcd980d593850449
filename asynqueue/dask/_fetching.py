"""
Fetching what Dask's tasks have returned.

All of it runs in the loop of the worker's thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: A question takes the scheduler, two workers and the client some 7 ms of computing
#: together, whatever it asks for. While many tasks run, it's put off by so many seconds
#: for each of them,
_DELAY_SECONDS = 0.001

#: but not by more than so many.
_MAX_DELAY_SECONDS = 0.05


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
        self._ended: dict[Any, asyncio.Future[Any]] = {}
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
