"""A reactor in memory that can shut down."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock


class StoppingReactor(MemoryReactorClock):
    """
    A reactor with triggers that can be removed, and are run when it begins to shut
    down.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shutdownTriggers: list[Any] = []

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        callable: Any,  # noqa: A002 - its name there
        *args: Any,
        **kw: Any,
    ) -> Any:
        assert (phase, eventType) == ("before", "shutdown")
        self.shutdownTriggers.append(trigger := (callable, args, kw))
        return trigger

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        self.shutdownTriggers.remove(triggerID)

    def beginShutdown(self) -> None:
        """
        Run the triggers, those too that are added meanwhile, as the reactor does; but
        not for ever.
        """
        for _ in range(100):
            if self.shutdownTriggers:
                f, args, kw = self.shutdownTriggers.pop(0)
                f(*args, **kw)
        assert not self.shutdownTriggers
