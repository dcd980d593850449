"""
A universe for tests of servers in processes of their own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from asynqueue.wire import WireWorkerUniverse

__all__ = ["Broken", "Local"]


class Local(WireWorkerUniverse):
    """
    A universe that knows where it is.
    """

    def pid(self) -> int:
        """
        Tell in which process this is.

        @return: The process ID.
        """
        return os.getpid()

    def niceness(self) -> int:
        """
        Tell how nice the process is.

        @return: Its niceness.
        """
        return os.nice(0)

    def environment(self, name: str) -> str | None:
        """
        Look up a variable of the environment.

        @param name: Its name.

        @return: Its value.
        """
        return os.environ.get(name)

    def argv(self) -> list[str]:
        """
        Tell what the system shows of the process.

        @return: Its command line.
        """
        with open(f"/proc/{os.getpid()}/cmdline") as file:
            return file.read().split("\0")[:-1]

    def say(self, text: str) -> None:
        """
        Print something.

        @param text: It.
        """
        sys.stdout.write(f"{text}\n")
        sys.stderr.write(f"{text}!\n")

    def add(self, a: Any, b: Any) -> Any:
        """
        Add.

        @param a: One thing.

        @param b: Another.

        @return: The sum.
        """
        return a + b

    def note(self, path: str, x: int) -> int:
        """
        Note that this is run.

        @param path: The file for it.

        @param x: A number.

        @return: The number.
        """
        with open(path, "ab", buffering=0) as file:
            file.write(b"%d\n" % x)
        return x

    def read(self, path: str) -> str:
        """
        Read a file, which may be a pipe: then this waits for who writes to it.

        @param path: The file.

        @return: What's in it.
        """
        with open(path) as file:
            return file.read()

    def block(self, seconds: float) -> None:
        """
        Do something for long.

        @param seconds: How long.
        """
        time.sleep(seconds)

    def items(self, n: int, size: int) -> Iterator[bytes]:
        """
        Yield large items.

        @param n: How many.

        @param size: How large they are.

        @return: An iterator.
        """
        for _ in range(n):
            yield bytes(size)


class Broken(WireWorkerUniverse):
    """
    A universe that can't be made.
    """

    def __init__(self, wireServer: Any = None) -> None:
        """
        Fail.

        @param wireServer: The server.
        """
        sys.stderr.write("what it says before\n")
        raise RuntimeError("it can't be made")
