"""
The commands of the two ends of a connection, as AMP has them.

They're sent and answered as boxes by L{asynqueue.wire._peer}, which is quicker than
AMP's own way from arguments to boxes; who has a protocol of AMP's can use them as they
are. Numbers are decimal.

A task is named by the number that the client has given it, its C{ID}. So is what
belongs to it: the stream of its arguments, or of its result, or its iteration.
"""

from __future__ import annotations

from twisted.protocols import amp

__all__ = [
    "VERSION",
    "Beat",
    "Cancel",
    "Chunk",
    "Close",
    "Credit",
    "GetNext",
    "Held",
    "Hello",
    "Leaving",
    "Prove",
    "RunTask",
    "Start",
]

#: The version of what the two ends say to one another. It's part of each proof.
VERSION = b"1"


class Hello(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Say what version the client speaks, and whether it accepts pickles, and ask for what
    the server does.

    If the ends have a key, each sends 32 bytes, its C{nonce}, that it has never sent
    before, for the other to prove that it has the key, too.
    """

    arguments = [  # noqa: RUF012 - AMP has it so
        (b"version", amp.String()),
        (b"pickle", amp.String(optional=True)),
        (b"nonce", amp.String(optional=True)),
    ]
    response = [  # noqa: RUF012
        (b"version", amp.String()),
        (b"pickle", amp.String(optional=True)),
        (b"nonce", amp.String(optional=True)),
    ]


class Prove(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Prove that one has the key, by what L{Key.prove<asynqueue.wire.Key.prove>}
    makes of the end's role (C{client} or C{server}), the version, the client's nonce,
    the server's, and under TLS what both certificates are known by.
    """

    arguments = [(b"proof", amp.String())]  # noqa: RUF012
    response = [(b"proof", amp.String())]  # noqa: RUF012


class RunTask(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Run a task: call a method by its name.

    The answer's status is that of a worker. With C{b'i'}, items are pushed if the task
    has an ID, else the result is an ID for L{GetNext}. With C{b'c'}, the result is the
    size of the value, which is pushed.
    """

    arguments = [  # noqa: RUF012 - AMP has it so
        (b"methodName", amp.String()),
        (b"args", amp.String(optional=True)),
        (b"kw", amp.String(optional=True)),
        (b"ID", amp.String(optional=True)),
        (b"size", amp.String(optional=True)),
        (b"thread", amp.String(optional=True)),
        (b"raw", amp.String(optional=True)),
    ]
    response = [  # noqa: RUF012
        (b"status", amp.String()),
        (b"result", amp.String(optional=True)),
    ]


class GetNext(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Get the next item of an iteration.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    response = [  # noqa: RUF012
        (b"value", amp.String()),
        (b"isValid", amp.Boolean()),
        (b"moreLeft", amp.Boolean()),
    ]


class _Notice(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    A command about a task that isn't answered.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012
    requiresAnswer = False


class Chunk(_Notice):
    """
    Take a chunk of a stream.
    """

    commandName = b"Chunk"
    arguments = [  # noqa: RUF012
        (b"ID", amp.String()),
        (b"data", amp.String()),
    ]


class Credit(_Notice):
    """
    Send so many more bytes of a stream, or items of an iteration.
    """

    commandName = b"Credit"
    arguments = [  # noqa: RUF012
        (b"ID", amp.String()),
        (b"bytes", amp.String(optional=True)),
        (b"items", amp.String(optional=True)),
    ]


class Held(_Notice):
    """
    Know that a task is held back, and won't be run before L{Start} has been answered.
    """

    commandName = b"Held"


class Start(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Know that a task that was held back is run now, unless the answer is an error.
    """

    arguments = [(b"ID", amp.String())]  # noqa: RUF012


class Cancel(_Notice):
    """
    Stop the work on a task, and forget it.
    """

    commandName = b"Cancel"


class Close(_Notice):
    """
    End an iteration, or the sending of a result.
    """

    commandName = b"Close"


class Beat(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Know that this end is there.
    """

    requiresAnswer = False


class Leaving(amp.Command):  # type: ignore[misc, unused-ignore]
    """
    Send no more tasks: this server is about to go. Answered when none will come.
    """
