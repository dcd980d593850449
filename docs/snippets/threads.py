"""Calls in threads."""

import threading

from twisted.internet.task import react

from asynqueue import ThreadQueue, deferToThread


def inReactor():
    """Tell whether this is the reactor's thread."""
    return threading.current_thread() is threading.main_thread()


async def main(reactor):
    """
    Make a call in the queue's thread, and one in the thread that all programs have.
    """
    q = ThreadQueue()
    print(await q.call(inReactor), await deferToThread(inReactor), inReactor())
    await q.shutdown()
    await deferToThread()


if __name__ == "__main__":
    react(main)
