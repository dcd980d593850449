"""
What may be said of a call besides the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from .._support.checks import checkCount, checkSeconds
from ..tasks._task import Task
from ._policy import ErrorPolicy

__all__ = [
    "OWN_KEYWORDS",
    "CallDefaults",
    "CallOptions",
    "RetryDelay",
]

#: The keywords of a call that are the queue's own, besides C{consumer} and C{raw},
#: which workers see.
OWN_KEYWORDS = frozenset(
    [
        "doLast",
        "doNext",
        "niceness",
        "retries",
        "retryDelay",
        "returnFailure",
        "series",
        "timeout",
    ]
)

#: Seconds, or a callable that is given the number of the attempt, from 1.
RetryDelay: TypeAlias = "float | Callable[[int], float]"


@frozen
class CallOptions:
    """
    What was said of a call.

    @ivar policy: What its Deferred comes to when it fails.

    @ivar retries: How many further attempts it has.

    @ivar retryDelay: Seconds before each.

    @ivar moves: How many workers have gone away before they ran it.
    """

    policy: ErrorPolicy
    retries: int
    retryDelay: RetryDelay
    moves: int = 0


class CallDefaults:
    """
    What holds for a call of which nothing else is said.

    @ivar warn: Whether errors are logged, and Deferreds fire with the text.

    @ivar policy: What the Deferred of a failed call comes to.

    @ivar retries: How many further attempts a call has, C{None} for none, or one for
        calls with a time limit.

    @ivar retryDelay: Seconds before each.
    """

    def __init__(
        self,
        warn: bool,
        returnFailure: bool | None,
        retries: int | None,
        retryDelay: RetryDelay,
    ) -> None:
        """
        Say what holds.

        @param warn: See L{TaskQueue<asynqueue.base.TaskQueue>}, as for the others.

        @param returnFailure: See there.

        @param retries: See there.

        @param retryDelay: See there.

        @raise ValueError: If a number is out of range.
        """
        if retries is not None:
            checkCount("retries", retries, 0)
        _checkDelay(retryDelay)
        self.warn = warn
        self.retries = retries
        self.retryDelay = retryDelay
        self.policy = self.policyOf(returnFailure)
        self._options = CallOptions(self.policy, retries or 0, retryDelay)

    def policyOf(self, returnFailure: Any) -> ErrorPolicy:
        """
        Find the policy for errors.

        @param returnFailure: What was said of it.

        @return: The policy.
        """
        if returnFailure is None:
            return ErrorPolicy.WARN if self.warn else ErrorPolicy.RAISE
        if returnFailure:
            return ErrorPolicy.WRAP
        return ErrorPolicy.WARN if self.warn else ErrorPolicy.STOP

    def optionsOf(
        self, own: dict[str, Any], timeout: float | None
    ) -> CallOptions | None:
        """
        Gather what was said of a call.

        @param own: The queue's own keywords.

        @param timeout: The time limit.

        @return: The options, C{None} if all are as usual.
        """
        if timeout is None and own.keys().isdisjoint(
            ("retries", "retryDelay", "returnFailure")
        ):
            return None
        retries = own.get("retries", self.retries)
        if retries is None:
            retries = 0 if timeout is None else 1
        checkCount("retries", retries, 0)
        delay = own.get("retryDelay", self.retryDelay)
        _checkDelay(delay)
        policy = self.policy
        if "returnFailure" in own:
            said = own["returnFailure"]
            policy = ErrorPolicy.RAISE if said is None else self.policyOf(said)
        return CallOptions(policy, retries, delay)

    def optionsOfTask(self, task: Task) -> CallOptions:
        """
        Find out what holds for a task.

        @param task: The task.

        @return: The options.
        """
        options: CallOptions | None = task.options
        return options or self._options


def _checkDelay(value: Any) -> None:
    """
    Check that something is a delay before further attempts.

    @param value: The delay.

    @raise ValueError: If it isn't.
    """
    if not callable(value):
        checkSeconds("retryDelay", value, zero=True)
