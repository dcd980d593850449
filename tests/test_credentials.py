"""Tests of the files by which the ends of connections know one another."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from unittest import mock

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from asynqueue.credentials import TLS, Key, main, makeKey, makePair
from asynqueue.errors import AuthenticationError

from ._certificates import SSL, Identity
from ._wire import WireTestCase

MISSING = "pyOpenSSL isn't installed" if SSL is None else None


def command(*arguments: str) -> tuple[int, str, str]:
    """Run the command."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch("sys.stdout", out), mock.patch("sys.stderr", err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


class MakingKeyTests(SynchronousTestCase):
    """Tests of making keys."""

    def test_make(self) -> None:
        """
        A key is made for its owner's eyes only, whatever the umask, and can be used.
        """
        path = Path(self.mktemp())
        self.addCleanup(os.umask, os.umask(0))
        makeKey(path)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(path.read_bytes().strip()), 64)
        Key.fromFile(path)
        other = Path(self.mktemp())
        makeKey(other)
        self.assertNotEqual(path.read_bytes(), other.read_bytes())

    def test_noOverwriting(self) -> None:
        """A file that's there is left alone."""
        path = Path(self.mktemp())
        makeKey(path)
        before = path.read_bytes()
        self.assertRaises(FileExistsError, makeKey, path)
        self.assertEqual(path.read_bytes(), before)

    def test_command(self) -> None:
        """One command makes a key, and doesn't show it."""
        path = self.mktemp()
        code, out, err = command("key", path)
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"key=Key.fromFile({path!r})", out)
        self.assertNotIn(Path(path).read_text().strip(), out)
        code, out, err = command("key", path)
        self.assertEqual((code, out), (1, ""))
        self.assertIn(path, err)

    def test_program(self) -> None:
        """The command can be run."""
        path = self.mktemp()
        program = [sys.executable, "-W", "error", "-m", "asynqueue.credentials"]
        subprocess.run([*program, "key", path], check=True, stdout=subprocess.DEVNULL)
        Key.fromFile(path)
        done = subprocess.run(program, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage: python -m asynqueue.credentials", done.stderr)


class MakingPairTests(WireTestCase):
    """Tests of making certificates."""

    skip = MISSING

    async def test_use(self) -> None:
        """One command makes a file for each end, and tasks can be run with them."""
        folder = self.folder / "tls"
        code, out, err = command("pair", str(folder))
        self.assertEqual((code, err), (0, ""))
        self.assertIn("tls=TLS.fromFiles('server.pem')", out)
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        for path in folder.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        await self.serve(description="tls:0", tls=TLS.fromFiles(folder / "server.pem"))
        q = await self.queue(tls=TLS.fromFiles(folder / "client.pem"))
        self.assertEqual(await q.call("add", 1, 2), 3)

    def test_noOverwriting(self) -> None:
        """Files that are there are left alone, both if one is."""
        server, client = makePair(self.folder / "tls")
        before = client.read_bytes()
        server.unlink()
        self.assertRaises(FileExistsError, makePair, self.folder / "tls")
        self.assertEqual(client.read_bytes(), before)
        self.assertFalse(server.exists())
        code, out, err = command("pair", str(self.folder / "tls"))
        self.assertEqual((code, out), (1, ""))
        self.assertIn("client.pem is there already", err)

    def test_days(self) -> None:
        """They're valid for as long as is said."""
        self.assertEqual(command("pair", str(self.folder / "tls"), "--days", "1")[0], 0)
        self.assertRaises(ValueError, makePair, self.folder / "other", 0)
        self.assertFalse((self.folder / "other").exists())

    def test_missing(self) -> None:
        """Without the extra, it's said what to install."""
        with mock.patch.dict(sys.modules, {"service_identity": None}):
            code, _, err = command("pair", str(self.folder / "tls"))
        self.assertEqual(code, 1)
        self.assertIn("asynqueue[tls]", err)
        self.assertFalse((self.folder / "tls").exists())


class FilesTests(WireTestCase):
    """Tests of reading certificates from files."""

    skip = MISSING

    def setUp(self) -> None:
        """Make files."""
        super().setUp()
        self.mine, self.peer = Identity("mine"), Identity("peer")
        self.own = self.mine.save(self.folder / "own.pem")
        self.public = self.folder / "peer.crt"
        self.public.write_bytes(self.peer.pem)

    def test_peers(self) -> None:
        """Accepted certificates are given as files, one or several."""
        other = self.folder / "other.crt"
        other.write_bytes(Identity("other").pem)
        for peer in (self.public, str(self.public), [self.public]):
            with self.subTest(peer=peer):
                peers = TLS.fromFiles(self.own, peer)._peers
                self.assertEqual([each.dumpPEM() for each in peers], [self.peer.pem])
        self.assertEqual(len(TLS.fromFiles(self.own, [self.public, other])._peers), 2)

    def test_givenOnes(self) -> None:
        """What is given counts, not what is in the own file."""
        server, _ = makePair(self.folder / "pair")
        self.assertEqual(len(TLS.fromFiles(server)._peers), 1)
        [given] = TLS.fromFiles(server, self.public)._peers
        self.assertEqual(given.dumpPEM(), self.peer.pem)
        self.assertEqual(TLS.fromFiles(server, ca=self.public)._peers, [])

    def test_nobody(self) -> None:
        """It must be said who is accepted, in one way."""
        with self.assertRaisesRegex(AuthenticationError, "peer=.*ca="):
            TLS.fromFiles(self.own)
        with self.assertRaisesRegex(AuthenticationError, "not both"):
            TLS.fromFiles(self.own, self.public, self.public)

    def test_wrongFiles(self) -> None:
        """Files that lack something are refused by name."""
        with self.assertRaisesRegex(
            ValueError, "peer.crt can.t be used: one private key"
        ):
            self.public.chmod(0o600)
            TLS.fromFiles(self.public, self.public)
        with self.assertRaisesRegex(ValueError, "own.pem.*1 and 0"):
            self.own.write_bytes(self.mine.secret)
            TLS.fromFiles(self.own, self.public)
        with self.assertRaisesRegex(ValueError, "own.pem.*can't be read"):
            self.own.write_bytes(
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
                + self.mine.pem
            )
            TLS.fromFiles(self.own, self.public)
        with self.assertRaisesRegex(ValueError, "own.pem.*do not match"):
            self.own.write_bytes(self.mine.secret + self.peer.pem)
            TLS.fromFiles(self.own, self.public)
        with self.assertRaisesRegex(ValueError, "own.pem.*is encrypted"):
            self.own.write_bytes(
                self.mine.secret.replace(b"PRIVATE", b"ENCRYPTED PRIVATE")
                + self.mine.pem
            )
            TLS.fromFiles(self.own, self.public)
        with self.assertRaisesRegex(ValueError, "no certificate in .*peer.crt"):
            self.public.write_bytes(b"")
            TLS.fromFiles(self.own, self.public)
        self.assertRaises(FileNotFoundError, TLS.fromFiles, self.folder / "none")

    def test_hidden(self) -> None:
        """No traceback shows a private key, not even one with all variables."""
        secret = self.mine.secret.splitlines()[1]
        wrong = (
            self.mine.secret,
            self.mine.secret * 2 + self.mine.pem,
            self.mine.secret.replace(secret[:9], b"AAAAAAAAA") + self.mine.pem,
            self.mine.secret + self.peer.pem,
            self.mine.secret + self.peer.pem.replace(b"MII", b"AAA"),
        )
        for data in wrong:
            self.own.write_bytes(data)
            try:
                TLS.fromFiles(self.own, self.public)
            except ValueError:
                failure = Failure(captureVars=True)
                frames = [frame[3:] for frame in failure.frames[1:]]
                self.assertGreater(len(frames), 0)
                self.assertNotIn(secret[10:].decode(), repr(frames))
            else:
                self.fail("It was accepted")

    def test_mode(self) -> None:
        """A file with a private key that others may read is refused."""
        self.own.chmod(0o640)
        with self.assertRaisesRegex(AuthenticationError, "chmod 600"):
            TLS.fromFiles(self.own, self.public)

    def test_shown(self) -> None:
        """The certificate's digest is shown, and the private key can't be pickled."""
        tls = TLS.fromFiles(self.own, self.public)
        self.assertRegex(repr(tls), "^<TLS [0-9A-F]{2}(:[0-9A-F]{2}){31}>$")
        self.assertRaises(TypeError, pickle.dumps, tls)
