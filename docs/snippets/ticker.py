"""A program with a reactor of its own."""

from twisted.internet import reactor

from asynqueue import ProcessQueue


def start():
    """Make the queue, and use it."""
    q = ProcessQueue(ProcessQueue.cores())
    reactor.addSystemEventTrigger("before", "shutdown", q.shutdown, timeout=5)
    q.call(sum, range(101)).addCallback(print).addBoth(lambda _: reactor.stop())


if __name__ == "__main__":
    reactor.callWhenRunning(start)
    reactor.run()
