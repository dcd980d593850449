"""Watches a queue."""

from twisted.internet.task import react

from asynqueue import AsyncWorker, TaskQueue
from asynqueue.events import EventKind


def halve(number):
    """Halve an even number."""
    if number % 2:
        raise ValueError("that's odd")
    return number // 2


def tell(event):
    """Print an event."""
    reason = event.failure.getErrorMessage() if event.failure else "well"
    print(f"{event.queue}: {event.task}, {event.name}, is {event.kind.value}: {reason}")


async def main(reactor):
    """Make calls, and look at what has become of them."""
    q = TaskQueue(AsyncWorker(), name="numbers")
    q.addObserver(tell, [EventKind.DONE, EventKind.FAILED])
    for number in (8, 7):
        q.call(halve, number, name="a half").addErrback(lambda _: None)
    stats = q.stats()
    print(stats["done"], stats["failed"], stats["run"]["count"])
    await q.shutdown()


if __name__ == "__main__":
    react(main)
