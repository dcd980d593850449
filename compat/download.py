"""Source distributions from the package index."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from .processes import runCommand

__all__ = ["REFERENCE", "fetchSource"]

#: The reference, as pip is told of it.
REFERENCE = "asynqueue==0.9.9"


def fetchSource(requirement: str, folder: Path) -> Path:
    """
    Download a source distribution with pip and unpack it, if that isn't done yet.

    @param requirement: Its name and version, as in C{asynqueue==0.9.9}.

    @param folder: Where such sources are kept.

    @return: The folder with its C{setup.py}.
    """
    unpacked = folder / requirement.replace("==", "-")
    if not unpacked.exists():
        loading = folder / "loading"
        shutil.rmtree(loading, ignore_errors=True)
        loading.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        name = requirement.partition("==")[0]
        runCommand(*pip, "--no-binary", name, "-d", loading, requirement)
        (archive,) = loading.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(loading, filter="data")
            else:
                tar.extractall(loading)
        archive.unlink()
        loading.rename(unpacked)
    (source,) = unpacked.iterdir()
    return source
