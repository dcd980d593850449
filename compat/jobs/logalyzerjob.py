"""A use of logalyzer, which reads the logs of web servers."""

from __future__ import annotations

from pathlib import Path

from logalyzer.logread import Reader
from twisted.trial.unittest import TestCase

LINE = (
    '{ip} - - [0{log}/Mar/2015:10:{minute:02d}:00 -0700] "GET /{page} HTTP/1.1" 200 '
    '512 "-" "Mozilla/5.0 (X11; Linux)"\n'
)


class JobTests(TestCase):
    """The test."""

    timeout = 60

    async def test_logs(self) -> None:
        """
        Two logs are parsed in child processes, their records are fed to consumers, and
        the addresses are collected from which something came that only attackers want.
        """
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        names = ["access.log.1", "access.log.2"]
        for log, name in enumerate(names, 1):
            lines = [
                LINE.format(ip=f"10.{log}.0.{n}", log=log, minute=n, page=f"{n}.html")
                for n in range(1, 51)
            ]
            attack = LINE.format(
                ip=f"10.9.9.{log}", log=log, minute=51, page="login.php"
            )
            (folder / name).write_text("".join([*lines, attack]))
        reader = Reader({"BotMatcher": [r"login\.php"]}, "sqlite://", cores=2)
        self.addCleanup(reader.shutdown)
        reader.myDir = str(folder)
        rejected = await reader.run(names)
        hits = await reader.rk.t.hitsForIP("10.2.0.7")
        ((total,),) = await reader.rk.t.sql("SELECT COUNT(*) FROM entries")
        self.assertEqual(sorted(rejected), ["10.9.9.1", "10.9.9.2"])
        self.assertEqual((hits, total), (1, 100))
