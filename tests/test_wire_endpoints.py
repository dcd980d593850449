"""Tests of what is checked before anything is opened: keys, descriptions, folders."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.errors import AuthenticationError
from asynqueue.wire import Key, WireServer, WireWorker
from asynqueue.wire._endpoints import (
    Address,
    _checkFolder,
    _checkUser,
    _isLoopback,
)

from ._wire import Universe, WireTestCase

SECRET = bytes(range(32))


def verbose(f: Callable[[], object]) -> str:
    """Show how something fails, with all variables."""
    try:
        f()
    except (TypeError, ValueError):
        return str(Failure(captureVars=True).getTraceback(detail="verbose"))
    raise AssertionError("It doesn't fail")


class KeyTests(SynchronousTestCase):
    """Tests of keys."""

    def setUp(self) -> None:
        """Make a file with a key."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(SECRET.hex().encode() + b"\n")
        self.path.chmod(0o600)

    def test_proof(self) -> None:
        """A proof holds for one key, one role, and what it was made for."""
        key = Key(SECRET)
        proof = key.prove(b"client", b"a", b"b")
        self.assertEqual(len(proof), 32)
        self.assertTrue(Key(SECRET).check(proof, b"client", b"a", b"b"))
        for other in (
            Key(SECRET[::-1]).prove(b"client", b"a", b"b"),
            key.prove(b"server", b"a", b"b"),
            key.prove(b"client", b"a", b"c"),
            key.prove(b"client", b"b", b"a"),
            b"",
            proof[:-1],
        ):
            self.assertFalse(key.check(other, b"client", b"a", b"b"))

    def test_constantTime(self) -> None:
        """Proofs are compared in a time that doesn't depend on where they differ."""
        with mock.patch("hmac.compare_digest", return_value=True) as compare:
            self.assertTrue(Key(SECRET).check(b"x", b"client"))
        compare.assert_called_once()

    def test_file(self) -> None:
        """A key can be read from a file that is its owner's alone."""
        key = Key.fromFile(self.path)
        proof = Key(SECRET.hex().encode()).prove(b"client")
        self.assertTrue(key.check(proof, b"client"))

    def test_fileOfOthers(self) -> None:
        """A file that others may read or write is refused, with what to do about it."""
        for mode in (0o640, 0o604, 0o620, 0o602, 0o601):
            self.path.chmod(mode)
            with self.assertRaisesRegex(AuthenticationError, f"{mode:03o}.*chmod 600"):
                Key.fromFile(self.path)

    def test_fileOfAnother(self) -> None:
        """So is one that belongs to another user."""
        with (
            mock.patch("os.geteuid", return_value=4711),
            mock.patch("os.fstat", return_value=mock.Mock(st_uid=4712)),
        ):
            error = self.assertRaises(AuthenticationError, Key.fromFile, self.path)
        self.assertIn("another user (4712)", str(error))

    def test_noFile(self) -> None:
        """That there's no file is said as ever."""
        self.assertRaises(FileNotFoundError, Key.fromFile, "/nonexistent/key")

    def test_environment(self) -> None:
        """A key can be taken from the environment."""
        with mock.patch.dict(os.environ, {"SOME_KEY": f" {SECRET.hex()}\n"}):
            key = Key.fromEnvironment("SOME_KEY")
        proof = Key(SECRET.hex().encode()).prove(b"client")
        self.assertTrue(key.check(proof, b"client"))
        with self.assertRaisesRegex(AuthenticationError, "OTHER_KEY isn't set"):
            Key.fromEnvironment("OTHER_KEY")

    def test_wrong(self) -> None:
        """What can't be a key is refused, and isn't shown, as it may be a secret."""
        with self.assertRaisesRegex(ValueError, "at least 32 bytes") as caught:
            Key(b"sesame")
        self.assertNotIn("sesame", str(caught.exception))
        with self.assertRaisesRegex(TypeError, "Key.fromFile") as wrong:
            Key("sesame" * 10)  # type: ignore[arg-type]
        self.assertNotIn("sesame", str(wrong.exception))

    def test_hidden(self) -> None:
        """
        A key is shown nowhere: neither by itself, nor in a traceback with all
        variables, nor in a pickle.
        """
        key = Key(b"sesame" * 10)
        texts = [repr(key), str(key), f"{key}"]
        self.path.write_text("sesame")
        texts += [verbose(lambda: Key.fromFile(self.path))]
        texts += [verbose(lambda: pickle.dumps(key))]
        self.assertEqual(len(texts), 5)
        self.assertNotIn("sesame", "".join(texts))
        self.assertIn("<Key>", texts[-1])


class AddressTests(SynchronousTestCase):
    """Tests of descriptions of addresses."""

    def test_understood(self) -> None:
        """Descriptions are Twisted's, with names for what may be left out."""
        for description, isServer, fields in (
            ("unix:/a/b", True, {"path": "/a/b"}),
            ("unix:/a\\:b", True, {"path": "/a:b"}),
            ("unix:address=/a=b", True, {"path": "/a=b"}),
            ("unix:/a=b", False, {"path": "/a=b"}),
            ("tcp:80", True, {"port": 80}),
            ("tcp:port=80:interface=\\:\\:1", True, {"port": 80, "host": "::1"}),
            ("tls:host:80", False, {"host": "host", "port": 80}),
        ):
            with self.subTest(description=description):
                kind = description.partition(":")[0]
                self.assertEqual(
                    Address.parse(description, isServer),
                    Address(description, kind, isServer, **fields),
                )

    def test_notUnderstood(self) -> None:
        """Others are refused, with what would be understood."""
        for description in (
            "",
            "unix",
            "unix:",
            "unix:/a:/b",
            "tcp:80:90",
            "tcp:http",
            "ssl:80",
            "tcp:80:interface=a:interface=b",
            "unix:/a:mode=600",
            "tcp:80:backlog=5",
            "stdio:",
            "/a/b",
        ):
            with (
                self.subTest(description=description),
                self.assertRaisesRegex(ValueError, "unix:ADDRESS.*tcp:PORT"),
            ):
                Address.parse(description, True)
        with self.assertRaisesRegex(TypeError, "unix:PATH"):
            Address.parse(5, True)  # type: ignore[arg-type]

    def test_loopback(self) -> None:
        """This machine is known by its addresses."""
        for host in ("127.0.0.1", "127.9.9.9", "::1"):
            self.assertTrue(_isLoopback(host))
        for host in ("", "0.0.0.0", "10.0.0.1", "::", "127.0.0.1.evil.example", "x"):
            self.assertFalse(_isLoopback(host))


class ConstructionTests(WireTestCase):
    """Tests of what is refused before anything is opened."""

    def ends(self, description: str, **kw: Any) -> None:
        """Make a server and a worker."""
        WireServer(description, self.universe, **kw)
        kind, _, rest = description.partition(":")
        if kind != "unix":
            description = f"{kind}:127.0.0.1:{rest}"
        worker = WireWorker(Universe, description, **kw)
        worker.crash()

    async def test_nobody(self) -> None:
        """Neither end begins over TCP without identities, and both say what helps."""
        with self.assertRaisesRegex(AuthenticationError, "tls=.*key=.*unix:PATH"):
            WireServer("tcp:0", self.universe)
        with self.assertRaisesRegex(AuthenticationError, "tls=.*key=.*unix:PATH"):
            self.worker(description="tcp:127.0.0.1:9")
        with self.assertRaisesRegex(AuthenticationError, "asynqueue.credentials pair"):
            WireServer("tls:0", self.universe, key=Key(SECRET))
        with self.assertRaisesRegex(AuthenticationError, "asynqueue.credentials pair"):
            self.worker(description="tls:127.0.0.1:9")

    async def test_elsewhere(self) -> None:
        """
        Neither does one with a key alone, or with nothing, that isn't this machine's.
        """
        options: list[dict[str, Any]] = [{"key": Key(SECRET)}, {"insecure": True}]
        for kw in options:
            for interface in ("0.0.0.0", "10.1.2.3", "\\:\\:", "example.org"):
                with self.assertRaisesRegex(AuthenticationError, "this machine only"):
                    WireServer(f"tcp:0:interface={interface}", self.universe, **kw)
                with self.assertRaisesRegex(AuthenticationError, "this machine only"):
                    self.worker(description=f"tcp:{interface}:9", **kw)

    async def test_contradictions(self) -> None:
        """What doesn't go together is refused."""
        options: list[dict[str, Any]] = [
            {"description": self.description, "insecure": True},
            {"description": "tls:1", "insecure": True},
            {"description": "tcp:1", "insecure": True, "key": Key(SECRET)},
        ]
        for kw in options:
            with self.assertRaisesRegex(ValueError, "leave it out"):
                self.ends(**kw)
        with self.assertRaisesRegex(ValueError, "leave out key="):
            self.ends(self.description, key=Key(SECRET))

    async def test_kinds(self) -> None:
        """Something else in the place of a key is refused, and isn't shown."""
        for wrong in ("sesame", b"sesame", Path("sesame")):
            with self.assertRaisesRegex(TypeError, "Key.fromFile") as caught:
                self.ends("tcp:1", key=wrong)
            self.assertNotIn("sesame", str(caught.exception))
        with self.assertRaisesRegex(TypeError, "TLS.fromFiles"):
            self.ends("tls:1", tls="sesame")

    async def test_pickle(self) -> None:
        """Pickles are not for connections that others could get into."""
        options: list[dict[str, Any]] = [{"key": Key(SECRET)}, {"insecure": True}]
        for kw in options:
            with self.assertRaisesRegex(AuthenticationError, "pickles can run"):
                self.ends("tcp:1", pickle=True, **kw)

    async def test_abstract(self) -> None:
        """A Unix socket without a file, which any user could connect to, is refused."""
        with self.assertRaisesRegex(AuthenticationError, "use a file"):
            self.ends("unix:\0abstract")


class UnixTests(WireTestCase):
    """Tests of Unix sockets."""

    async def test_mode(self) -> None:
        """Only the user can open the socket, or see it."""
        await self.serve()
        self.assertEqual((self.folder / "s").stat().st_mode & 0o777, 0o600)

    async def test_folder(self) -> None:
        """A folder that isn't there is made, for the user alone."""
        description = f"unix:{self.folder}/new/s"
        await self.serve(description=description)
        self.assertEqual((self.folder / "new").stat().st_mode & 0o777, 0o700)
        q = await self.queue(description=description)
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_noParent(self) -> None:
        """One whose own folder isn't there isn't."""
        server = WireServer(f"unix:{self.folder}/a/b/s", self.universe)
        await self.assertFailure(server.start(), FileNotFoundError)
        await server.stop()

    async def test_openFolder(self) -> None:
        """A folder that lets others in is refused, with what to do about it."""
        for mode in (0o1777, 0o755, 0o750, 0o710, 0o701):
            self.folder.chmod(mode)
            with self.assertRaisesRegex(
                AuthenticationError, f"mode {mode:03o}.*/asynqueue/s.*chmod 700"
            ):
                WireServer(self.description, self.universe)
        self.folder.chmod(0o700)
        server = WireServer(self.description, self.universe)
        self.folder.chmod(0o755)
        await self.assertFailure(server.start(), AuthenticationError)
        await server.stop()

    async def test_othersFolder(self) -> None:
        """So is a folder of another user."""
        with (
            mock.patch("os.geteuid", return_value=4711),
            mock.patch.object(
                Path, "stat", return_value=mock.Mock(st_uid=4712, st_mode=0o700)
            ),
        ):
            error = self.assertRaises(AuthenticationError, _checkFolder, "/a/s")
        self.assertIn("user 4712", str(error))

    def test_user(self) -> None:
        """The other end must be the same user's, or root's."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        transport = mock.Mock()
        transport.getHandle.return_value = ours
        _checkUser(transport)
        for user, isGood in ((0, True), (4711, True), (4712, False), (65534, False)):
            handle = mock.Mock()
            handle.getsockopt.return_value = b"".join(
                n.to_bytes(4, "little") for n in (1, user, 1)
            )
            transport.getHandle.return_value = handle
            with mock.patch("os.geteuid", return_value=4711):
                if isGood:
                    _checkUser(transport)
                else:
                    error = self.assertRaises(
                        AuthenticationError, _checkUser, transport
                    )
                    self.assertIn(f"another user's ({user})", str(error))


class AbandonedTests(WireTestCase):
    """Tests of sockets whose server was killed."""

    def abandon(self, seconds: float = 5.0) -> None:
        """
        Leave a socket and its lock as a killed server does, some time ago. The process
        ID that the lock names is this process's, as the first one's is in each run of a
        container.
        """
        path = self.folder / "s"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        os.symlink(str(os.getpid()), f"{path}.lock")
        then = time.time() - seconds
        os.utime(path, (then, then))

    async def test_taken(self) -> None:
        """
        A server listens there again, though the killed one's process ID is in use.
        """
        self.abandon()
        await self.serve()
        q = await self.queue()
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_inUse(self) -> None:
        """A server that's there isn't disturbed, and the error names the lock."""
        await self.serve()
        then = time.time() - 5
        os.utime(self.folder / "s", (then, then))
        second = WireServer(self.description, self.universe)
        with self.assertRaisesRegex(CannotListenError, "has left .*/s.lock"):
            await second.start()
        q = await self.queue()
        self.assertEqual(await q.call("add", 1, 2), 3)

    async def test_starting(self) -> None:
        """A server that has made the socket, and is about to listen, isn't either."""
        self.abandon(seconds=0)
        second = WireServer(self.description, self.universe)
        await self.assertFailure(second.start(), CannotListenError)
        self.assertTrue((self.folder / "s.lock").is_symlink())
