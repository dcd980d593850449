"""Tests of the example programs, run as users run them."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ._dask import Cluster
from ._servers import Program, environment, freePort, runPython

ROOT = Path(__file__).resolve().parent.parent


async def run(name: str, *args: str) -> tuple[str, str, int]:
    """
    Run an example. Returns what it has written to stdout and to stderr, and its exit
    code.
    """
    return await runPython(str(ROOT / "examples" / name), *args)


class Terminal(ProcessProtocol):
    """
    A program in a terminal of its own, hence in a process group of its own. C{ended}
    fires with its exit code.
    """

    def __init__(self, name: str, *args: str) -> None:
        self.output = ""
        self.ended: Deferred[int | None] = Deferred()
        self._expected = ""
        self._found: Deferred[None] | None = None
        self._process: Any = reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, str(ROOT / "examples" / name), *args],
            env=environment(),
            usePTY=True,
        )
        self.group: int = self._process.pid

    def expect(self, text: str) -> Deferred[None]:
        """Wait for a text to be written."""
        self._expected = text
        self._found = Deferred()
        self.outReceived(b"")
        return self._found

    def pressCtrlC(self) -> None:
        """Do what a user does who wants the program to end."""
        self._process.write(b"\x03")

    def outReceived(self, data: bytes) -> None:
        """Take what was written."""
        self.output += data.decode()
        if self._found is not None and self._expected in self.output:
            found, self._found = self._found, None
            found.callback(None)

    def processEnded(self, reason: Failure) -> None:
        """Note that the program has ended."""
        value: Any = reason.value
        self.ended.callback(0 if reason.check(ProcessDone) else value.exitCode)


def readPNG(path: Path) -> tuple[int, int, list[bytes]]:
    """
    Decode an RGB picture whose lines have no filter or the one for differences to the
    pixel before. Returns width, height and the lines.
    """
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n"), "no signature"
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        [check] = struct.unpack_from(">I", data, at + 8 + length)
        assert check == zlib.crc32(kind + content), f"wrong checksum of {kind!r}"
        chunks.append((kind, content))
        at += length + 12
    assert chunks[0][0] == b"IHDR" and chunks[-1] == (b"IEND", b""), "wrong order"
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0], "not of 8-bit RGB"
    raw = zlib.decompress(b"".join(content for kind, content in chunks[1:-1]))
    assert len(raw) == height * (1 + 3 * width), "wrong number of pixels"
    lines = []
    for start in range(0, len(raw), 1 + 3 * width):
        line = bytearray(raw[start + 1 : start + 1 + 3 * width])
        assert raw[start] in (0, 1), "another filter"
        if raw[start] == 1:
            for i in range(3, len(line)):
                line[i] = (line[i] + line[i - 3]) & 0xFF
        lines.append(bytes(line))
    return width, height, lines


class ExampleTestCase(TestCase):
    """A test that has a folder for its files."""

    timeout = 60

    def setUp(self) -> None:
        """Make the folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def path(self, name: str) -> str:
        """Name a file in the folder."""
        return str(self.folder / name)

    def assertGroupGone(self, group: int) -> None:
        """Fail if there's a process left in a process group."""
        self.assertRaises(ProcessLookupError, os.killpg, group, 0)


class MandelbrotTests(ExampleTestCase):
    """Tests of C{mandelbrot.py}."""

    if find_spec("numpy") is None:
        skip = "numpy isn't installed"

    #: A small picture whose middle line is the real axis from -2.2 to 0.8.
    SMALL = ("--size", "90x61", "--center", "-0.7,0", "--width", "3")

    async def test_picture(self) -> None:
        """
        The file is a PNG of the size that was asked for, with the Mandelbrot set on it:
        black inside, not so outside, the lower half the image of the upper.
        """
        output = self.path("m.png")
        out, err, code = await run("mandelbrot.py", *self.SMALL, "--output", output)
        self.assertEqual((code, err.split("\n")[-2]), (0, "100 %"))
        self.assertIn("5,490 pixels in", out)
        self.assertIn("pixels/s", out)
        width, height, lines = readPNG(Path(output))
        self.assertEqual((width, height), (90, 61))
        self.assertEqual(lines, lines[::-1])
        inside = [(0, 0), (-1, 0), (-0.12, 0.74), (-0.1, -0.5)]
        outside = [(0.5, 0), (-1, 0.5), (-0.6, -0.7), (-2.1, 0.1)]
        for x, y in inside + outside:
            column = 3 * round((x + 0.7) * 30 + 44.5)
            pixel = lines[round(30 - y * 30)][column : column + 3]
            self.assertEqual(pixel == b"\0\0\0", (x, y) in inside, f"at {x}, {y}")
        self.assertEqual(os.listdir(self.folder), ["m.png"])

    async def test_serial(self) -> None:
        """
        The picture is the same, pixel for pixel, in this process or in children, also
        when there are so many strips that not all are queued at once.
        """
        view = ("--center=-0.7,0.1", "--width=1.5", "--size=200x600")
        outputs = [self.path("serial.png"), self.path("parallel.png")]
        for how, output in zip(["--serial", "--workers=2"], outputs, strict=True):
            out, _, code = await run(
                *("mandelbrot.py", *view, "--iterations=99"),
                *(how, "--output", output),
            )
            self.assertEqual(code, 0)
            self.assertIn("2 workers" if how == "--workers=2" else "serial", out)
        serial, parallel = (readPNG(Path(output)) for output in outputs)
        self.assertEqual(serial, parallel)
        self.assertGreater(len(set(serial[2])), 200)

    async def test_compare(self) -> None:
        """
        With C{--compare} the speed-up is printed, and whether the pictures are equal.
        """
        output = self.path("m.png")
        out, _, code = await run(
            "mandelbrot.py", *self.SMALL, "--compare", "--workers=2", "--output", output
        )
        self.assertEqual(code, 0)
        self.assertRegex(out, r"speed-up: \d+\.\d\d, the pictures are the same\n")
        readPNG(Path(output))

    async def test_ctrlC(self) -> None:
        """
        Ctrl-C ends the program with exit code 130 and a word about it, without a
        traceback, half a picture, or a child that lives on.
        """
        terminal = Terminal(
            *("mandelbrot.py", "--output", self.path("m.png"), "--workers=2"),
            *("--size=400x4000", "--center=-0.16,1.04", "--width=0.0001"),
            "--iterations=100000",
        )
        await terminal.expect("[#")
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 130)
        self.assertIn("Interrupted", terminal.output)
        self.assertNotIn("Traceback", terminal.output)
        self.assertNotIn("Unhandled", terminal.output)
        self.assertEqual(os.listdir(self.folder), [])
        self.assertGroupGone(terminal.group)

    async def test_badOptions(self) -> None:
        """What makes no sense on the command line is named, with exit code 2."""
        for option in ["--size=0x5", "--center=1", "--width=nan", "--workers=0"]:
            _, err, code = await run("mandelbrot.py", option)
            self.assertEqual(code, 2, option)
            self.assertIn(f"argument {option.split('=')[0]}: invalid", err)

    async def test_badOutput(self) -> None:
        """If the picture can't be written, that is said, with exit code 1."""
        output = self.path("missing/m.png")
        _, err, code = await run("mandelbrot.py", "--output", output)
        self.assertEqual(code, 1)
        self.assertIn("The picture can't be written", err)
        self.assertNotIn("Traceback", err)


class RemoteTests(ExampleTestCase):
    """Tests of C{remote.py}."""

    if find_spec("numpy") is None or find_spec("OpenSSL") is None:
        skip = "numpy or pyOpenSSL isn't installed"

    #: A picture of many strips.
    VIEW = ("--center=-0.7,0.1", "--width=1.5", "--size=200x600", "--iterations=99")

    async def serial(self) -> Any:
        """Render the picture without servers."""
        output = self.path("serial.png")
        _, err, code = await run(
            "mandelbrot.py", *self.VIEW, "--serial", "--output", output
        )
        self.assertEqual(code, 0, err)
        return readPNG(Path(output))

    async def test_killed(self) -> None:
        """
        Though one of the servers is killed half-way, the picture is the same as without
        servers, pixel for pixel, and nothing is left.
        """
        temporary = self.folder / "t"
        temporary.mkdir()
        self.patch(os, "environ", {**os.environ, "TMPDIR": str(temporary)})
        output = self.path("m.png")
        out, err, code = await run("remote.py", *self.VIEW, "--output", output)
        self.assertEqual(code, 0, err)
        self.assertRegex(err, r"5\d %\nServer \d+ was killed\.\n(.|\n)*100 %\n")
        self.assertIn("2 servers: 120,000 pixels in", out)
        self.assertEqual(os.listdir(temporary), [])
        self.assertEqual(readPNG(Path(output)), await self.serial())

    async def test_elsewhere(self) -> None:
        """It's rendered on servers that are there already, started as the docs say."""
        folder = self.path("tls")
        made = await runPython("-m", "asynqueue.credentials", "pair", folder)
        self.assertEqual(made[2], 0, made[1])
        port = freePort()
        server = Program(
            *("-m", "asynqueue.wire", f"--tls={folder}/server.pem"),
            *(f"tls:{port}:interface=127.0.0.1", "remote.Fractal"),
            env=environment(ROOT / "examples"),
        )
        try:
            await server.errorWith("is there")
            output = self.path("m.png")
            _, err, code = await run(
                *("remote.py", *self.VIEW, "--output", output),
                *(f"--tls={folder}/client.pem", f"--at=tls:127.0.0.1:{port}"),
            )
        finally:
            await server.kill()
        self.assertEqual(code, 0, err)
        self.assertEqual(readPNG(Path(output)), await self.serial())

    async def test_ctrlC(self) -> None:
        """
        Ctrl-C ends the program with exit code 130 and a word about it, without a
        traceback, half a picture, or a server that lives on.
        """
        terminal = Terminal(
            *("remote.py", "--output", self.path("m.png"), "--size=400x4000"),
            *("--center=-0.16,1.04", "--width=0.0001", "--iterations=100000"),
        )
        await terminal.expect("[#")
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 130, terminal.output)
        self.assertIn("Interrupted", terminal.output)
        self.assertNotIn("Traceback", terminal.output)
        self.assertNotIn("Unhandled", terminal.output)
        self.assertEqual(os.listdir(self.folder), [])
        self.assertGroupGone(terminal.group)


class MakeLogTests(ExampleTestCase):
    """Tests of C{makelog.py}."""

    async def test_seed(self) -> None:
        """
        Equal seeds make equal logs, plain or gzip, of as many lines as was said;
        another seed makes another.
        """
        facts = {}
        for name, seed in [("a.log", "5"), ("b.log.gz", "5"), ("c.log", "6")]:
            out, _, code = await run(
                *("makelog.py", "--lines=500", "--seed", seed, "--facts"),
                self.path(name),
            )
            self.assertEqual(code, 0)
            facts[name] = json.loads(out)
        a = Path(self.path("a.log")).read_bytes()
        self.assertEqual(a.count(b"\n"), 500)
        self.assertEqual(gzip.decompress(Path(self.path("b.log.gz")).read_bytes()), a)
        self.assertNotEqual(Path(self.path("c.log")).read_bytes(), a)
        self.assertEqual(facts["a.log"], facts["b.log.gz"])
        self.assertNotEqual(facts["a.log"], facts["c.log"])

    async def test_malformed(self) -> None:
        """The share of malformed lines is as was said, from none to all."""
        for share, count in [("0", None), ("1", 40)]:
            out, _, _ = await run(
                *("makelog.py", "--lines=40", "--malformed", share, "--facts"),
                self.path("a.log"),
            )
            self.assertEqual(json.loads(out)["total"].get("malformed"), count)


class LogsTests(ExampleTestCase):
    """Tests of C{logs.py}."""

    async def make(self, *names: str) -> Any:
        """Make logs of 12,000 lines, which is more than one batch."""
        out, _, code = await run(
            *("makelog.py", "--lines=12000", "--malformed=0.01", "--facts"),
            *map(self.path, names),
        )
        self.assertEqual(code, 0)
        return json.loads(out)

    async def summarise(self, *paths: str) -> tuple[Any, str, int]:
        """
        Summarise logs as JSON. Returns the results, what was written to stderr, and the
        exit code.
        """
        out, err, code = await run("logs.py", "--json", "--workers=2", *paths)
        return json.loads(out), err, code

    async def test_json(self) -> None:
        """
        The summary of a folder of plain and compressed files has the very numbers that
        they were made with.
        """
        facts = await self.make("a.log", "deep/b.log.gz", "c.log")
        results, err, code = await self.summarise(str(self.folder))
        self.assertEqual(code, 0)
        self.assertIn("36,000 lines", err)
        self.assertEqual(results["lines"], 36_000)
        for name in ("bytes", "malformed", "requests"):
            self.assertEqual(results[name], facts["total"][name], name)
        self.assertEqual(results["statuses"], facts["statuses"])
        self.assertEqual(
            {row["hour"]: (row["requests"], row["errors"]) for row in results["hours"]},
            {hour: (n, facts["errors"][hour]) for hour, n in facts["hours"].items()},
        )
        top = sorted(facts["hosts"].items(), key=lambda item: (-item[1], item[0]))[:10]
        self.assertEqual(
            [(row["host"], row["requests"]) for row in results["hosts"]], top
        )
        self.assertEqual(
            [(Path(file["path"]).name, file["lines"]) for file in results["files"]],
            [("a.log", 12_000), ("c.log", 12_000), ("b.log.gz", 12_000)],
        )

    async def test_table(self) -> None:
        """
        The table has the numbers, and an example of the malformed lines of each file.
        """
        facts = await self.make("a.log")
        out, _, code = await run("logs.py", "--top=3", self.path("a.log"))
        self.assertEqual(code, 0)
        total = facts["total"]
        self.assertIn(f" {total['requests']:,} requests\n", out)
        self.assertIn(f" {total['bytes']:,} bytes\n", out)
        self.assertIn(f" {facts['statuses']['404']:,} 404\n", out)
        self.assertRegex(out, rf"a\.log: {total['malformed']} malformed, line \d+: '")
        hosts = out.split(" host\n")[1].split("\n\n")[0]
        self.assertEqual(len(hosts.split("\n")), 3)

    async def test_malformed(self) -> None:
        """
        Whatever is in a file, it's counted and not fatal: no text, an endless line,
        impossible dates and numbers, no line at all. Blank lines don't count.
        """
        good = b'::1 - - [29/Feb/2024:10:00:00 +0000] "GET / HTTP/1.1" 500 7\r\n'
        contents = {
            "blank": b"\n\r\n" + good + b"\n",
            "date": good.replace(b"2024", b"2023"),
            "empty": b"",
            "endless": b"x" * 200_000,
            "hostile": b"\x1b[2J\x00\xff\n" + good.rstrip(),
            "number": good.replace(b"500", b"999"),
        }
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)
        results, _, code = await self.summarise(str(self.folder))
        self.assertEqual(code, 0)
        self.assertEqual(
            [
                (Path(f["path"]).name, f["lines"], f["malformed"])
                for f in results["files"]
            ],
            [
                ("blank", 1, 0),
                ("date", 1, 1),
                ("empty", 0, 0),
                ("endless", 4, 4),
                ("hostile", 2, 1),
                ("number", 1, 1),
            ],
        )
        self.assertEqual(results["files"][4]["example"], r"line 1: '\x1b[2J\x00\ufffd'")
        self.assertEqual(
            results["hours"], [{"hour": "2024-02-29 10:00", "requests": 2, "errors": 2}]
        )

    async def test_unreadable(self) -> None:
        """
        A file that isn't there, and one that is cut off, are reported, and what could
        be read is counted.
        """
        await self.make("a.log", "b.log.gz")
        cut = self.folder / "b.log.gz"
        cut.write_bytes(cut.read_bytes()[:-1000])
        missing = self.path("missing.log")
        results, _, code = await self.summarise(self.path("a.log"), str(cut), missing)
        self.assertEqual(code, 0)
        a, b, c = results["files"]
        self.assertEqual((a["lines"], a["problem"]), (12_000, None))
        self.assertGreater(b["lines"], 10_000)
        self.assertLess(b["lines"], 12_000)
        self.assertIn("EOFError", b["problem"])
        self.assertEqual(c["lines"], 0)
        self.assertIn("FileNotFoundError", c["problem"])

    async def test_nothing(self) -> None:
        """If there's nothing to be read at all, the exit code is 1."""
        for path, text in [
            (str(self.folder), "No files are in"),
            (self.path("missing.log"), "None of the files could be read"),
        ]:
            _, err, code = await run("logs.py", path)
            self.assertEqual(code, 1)
            self.assertIn(text, err)

    async def test_ctrlC(self) -> None:
        """
        Ctrl-C ends the program with exit code 130 and a word about it, without a
        traceback or a child that lives on, though one is reading a file at the time.
        """
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        terminal = Terminal("logs.py", pipe)
        # This returns when the child has opened the other end.
        writer = await deferToThread(os.open, pipe, os.O_WRONLY)
        self.addCleanup(os.close, writer)
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 130)
        self.assertIn("Interrupted", terminal.output)
        self.assertNotIn("Traceback", terminal.output)
        self.assertNotIn("Unhandled", terminal.output)
        self.assertGroupGone(terminal.group)


class FilesTests(ExampleTestCase):
    """Tests of C{files.py}."""

    async def make(self) -> Any:
        """Make a log of 20,000 lines, which is unpacked in several pieces."""
        out, _, code = await run(
            *("makelog.py", "--lines=20000", "--malformed=0", "--facts"),
            self.path("a.log.gz"),
        )
        self.assertEqual(code, 0)
        return json.loads(out)

    async def test_count(self) -> None:
        """
        The values of the field are counted, over all pieces, with none lost where two
        of them meet.
        """
        facts = await self.make()
        out, err, code = await run("files.py", self.path("a.log.gz"), "--field=7")
        self.assertEqual(code, 0)
        rows = re.findall(r"^ *([\d,]+) '(\d+)'$", out, re.MULTILINE)
        counts = {status: int(text.replace(",", "")) for text, status in rows}
        ranked = sorted(facts["statuses"].items(), key=lambda item: -item[1])
        self.assertEqual(sorted(counts.values()), sorted(n for _, n in ranked[:10]))
        for status, number in counts.items():
            self.assertEqual(facts["statuses"][status], number)
        size = len(gzip.decompress(Path(self.path("a.log.gz")).read_bytes()))
        self.assertIn("20,000 rows", err)
        self.assertIn(f"{size:,} bytes unpacked", err)

    async def test_memory(self) -> None:
        """Memory stays small, however large the file is."""
        line = b"x" * 49 + b"\n"
        with gzip.open(self.path("large.gz"), "wb", compresslevel=1) as file:
            for _ in range(100):
                file.write(line * 20_000)
        _, err, code = await run("files.py", self.path("large.gz"))
        self.assertEqual(code, 0)
        self.assertIn("100,000,000 bytes unpacked", err)
        peak = re.search(r"(\d+) MB of memory at most", err)
        assert peak is not None, err
        self.assertLess(int(peak[1]), 90)

    async def test_delimiter(self) -> None:
        """
        Fields may be separated by another character, and quoted. A last line needs no
        end, and a row may lack the field.
        """
        with gzip.open(self.path("a.csv.gz"), "wb") as file:
            file.write(b'1,"a,\nb"\n2,c\r\n3\n4,c')
        out, err, code = await run(
            *("files.py", "--delimiter=,", "--field=2"), self.path("a.csv.gz")
        )
        self.assertEqual(code, 0)
        self.assertEqual(
            [line.split(maxsplit=1) for line in out.splitlines()],
            [["2", "'c'"], ["1", r"'a,\nb'"]],
        )
        self.assertIn("4 rows, 1 of them without the field", err)

    async def test_cutOff(self) -> None:
        """
        If the file ends too early, what could be read is counted, that's said, and the
        exit code is 1.
        """
        await self.make()
        path = Path(self.path("a.log.gz"))
        path.write_bytes(path.read_bytes()[:-2000])
        out, err, code = await run("files.py", str(path), "--field=7")
        self.assertEqual(code, 1)
        self.assertIn(" '200'\n", out)
        self.assertIn("can't be read to its end: EOFError", err)
        self.assertNotIn("Traceback", err)

    async def test_unreadable(self) -> None:
        """What isn't there, isn't compressed, or has no lines, is named."""
        Path(self.path("plain")).write_bytes(b"plain\n")
        Path(self.path("endless")).write_bytes(gzip.compress(b"x" * 3_000_000))
        for name, text in [
            ("missing", "can't be read to its end: FileNotFoundError"),
            ("plain", "can't be read to its end: BadGzipFile"),
            ("endless", "can't be parsed: a line is longer than 1,000,000 bytes"),
        ]:
            out, err, code = await run("files.py", self.path(name))
            self.assertEqual((out, code), ("", 1))
            self.assertIn(text, err)
            self.assertNotIn("Traceback", err)

    async def test_badOptions(self) -> None:
        """What makes no sense on the command line is named, with exit code 2."""
        for option in ["--field=0", "--delimiter=", "--delimiter=ab", "--top=x"]:
            _, err, code = await run("files.py", option, "a.gz")
            self.assertEqual(code, 2, option)
            self.assertIn(f"argument {option.split('=')[0]}: invalid", err)

    async def test_ctrlC(self) -> None:
        """
        Ctrl-C ends the program with exit code 130 and a word about it, though a thread
        is blocked in reading the file.
        """
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        terminal = Terminal("files.py", pipe)
        # This returns when the thread has opened the other end.
        writer = await deferToThread(os.open, pipe, os.O_WRONLY)
        self.addCleanup(os.close, writer)
        terminal.pressCtrlC()
        self.assertEqual(await terminal.ended, 130)
        self.assertIn("Interrupted", terminal.output)
        self.assertNotIn("Traceback", terminal.output)
        self.assertNotIn("Unhandled", terminal.output)


class ClusterTests(ExampleTestCase):
    """Tests of C{cluster.py}."""

    skip = None if find_spec("distributed") else "Dask isn't installed"

    async def test_picture(self) -> None:
        """A cluster that is made on the spot renders the picture."""
        output = self.path("c.png")
        out, err, code = await run(
            "cluster.py", "picture", "--size", "60x40", "--output", output
        )
        self.assertEqual((out, code), ("", 0), err)
        self.assertIn("2,400 pixels", err)
        width, height, lines = readPNG(Path(output))
        self.assertEqual((width, height), (60, 40))
        self.assertGreater(len(set(lines)), 30)

    async def test_logs(self) -> None:
        """
        A cluster that is there summarises logs, whose module it gets by an update.
        """
        cluster = Cluster(1)
        self.addCleanup(cluster.close)
        await run("makelog.py", "--lines=6000", self.path("a.log"))
        out, err, code = await run(
            "cluster.py", "--scheduler", cluster.address, "logs", str(self.folder)
        )
        self.assertEqual(code, 0, err)
        self.assertIn("6,000 lines", err)
        self.assertIn("requests", out)

    async def test_refused(self) -> None:
        """It doesn't connect where others could be on the way."""
        _, err, code = await run("cluster.py", "--scheduler=10.0.0.1:8786", "picture")
        self.assertEqual(code, 1)
        self.assertIn("isn't on this machine", err)
