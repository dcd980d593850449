"""A worker that runs commands."""

import shutil
from subprocess import CalledProcessError

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from zope.interface import implementer

from asynqueue import DeferredTracker, TaskQueue
from asynqueue.errors import TimeoutError
from asynqueue.interfaces import ICancellingWorker, IWorker, Status


class Command(ProcessProtocol):
    """
    A command that runs. Its Deferred fires with the exit code, C{None} after a signal.
    """

    def __init__(self, data):
        self.data, self.output, self.errors = data, b"", b""
        self.ended = Deferred()

    def connectionMade(self):
        self.transport.write(self.data)
        self.transport.closeStdin()

    def outReceived(self, data):
        self.output += data

    def errReceived(self, data):
        self.errors += data

    def processEnded(self, reason):
        self.ended.callback(reason.value.exitCode)


@implementer(IWorker, ICancellingWorker)
class CommandWorker:
    """
    Runs as many commands at a time as its capacity. A call names one, and fires with
    what it has written.
    """

    cQualified = ["command"]

    def __init__(self, capacity, reactor):
        self.iQualified = []
        self.capacity = capacity
        self.reactor = reactor
        self.commands = {}  # By task. A task that has its result has none.
        self.running = DeferredTracker(reactor=reactor)

    def setResignator(self, callableObject):
        self.resign = callableObject  # Commands can always be run, so it isn't called.

    def run(self, task):
        name, args, kw = task.callTuple
        path = shutil.which(name) if isinstance(name, str) else None
        if path is None:
            task.errback(FileNotFoundError(f"There's no command {name}"))
            return succeed(None)
        command = self.commands[task] = Command(kw.get("input", b""))
        self.reactor.spawnProcess(command, path, [name, *args], env=None)
        return self.running.put(command.ended.addCallback(self.ended, task))

    def ended(self, code, task):
        command = self.commands.pop(task, None)
        if command is None:
            return  # It was cancelled.
        if code == 0:
            task.callback((Status.RAN, command.output))
        else:
            task.errback(CalledProcessError(code, task.callTuple[0], command.errors))

    def stop(self):
        return self.running.deferToAll()

    deferUntilGone = stop

    def crash(self):
        tasks = list(self.commands)
        for task in tasks:
            self.cancelTask(task)
        return tasks

    def cancelTask(self, task):
        command = self.commands.pop(task, None)
        if command is not None:
            command.transport.signalProcess("KILL")


async def main(reactor):
    q = TaskQueue(CommandWorker(2, reactor))
    print(await q.call("sort", "-n", input=b"10\n9\n"))
    try:
        await q.call("sort", "no-such-file")
    except CalledProcessError as error:
        print(error)
    try:
        await q.call("sleep", "60", timeout=0.5)
    except TimeoutError as error:
        print(error)
    await q.shutdown()


if __name__ == "__main__":
    react(main)
