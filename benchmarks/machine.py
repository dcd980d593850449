"""What the measures are taken on, and with what."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

#: The packages whose versions are told.
_WANTED = ("Twisted", "ampoule", "loky", "mpire", "numpy", "ray")

#: Prints the versions of packages as JSON.
_VERSIONS = """
import json
from importlib.metadata import distributions
print(json.dumps({it.name: it.version for it in distributions()}))
"""


def processor() -> str:
    """Find out what processor it is."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    models = [
        line.partition(":")[2].strip()
        for line in text.splitlines()
        if line.startswith("model name")
    ]
    return models[0] if models else platform.processor() or platform.machine()


def memoryBytes() -> int | None:
    """
    Find out how much memory there is, in bytes. C{None} if the system doesn't tell.
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def referenceVersions(python: str | None) -> dict[str, str]:
    """Find out the versions that the reference is measured with."""
    if python is None:
        return {}
    output = subprocess.run(
        [python, "-c", _VERSIONS], stdout=subprocess.PIPE, text=True
    )
    versions: dict[str, str] = json.loads(output.stdout or "{}")
    return {
        name: versions[name] for name in ("AsynQueue", "Twisted") if name in versions
    }


def describe(reference: str | None) -> dict[str, Any]:
    """
    Describe the machine, what's on it, and how busy it is before anything is measured,
    in plain values.
    """
    versions = {it.name: it.version for it in distributions()}
    return {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory": memoryBytes(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: versions[name] for name in _WANTED if name in versions},
        "reference": referenceVersions(reference),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def inWords(machine: dict[str, Any]) -> str:
    """Say what the measures were taken on, in a sentence or two."""
    memory = machine["memory"]
    size = f", {memory / 2**30:.0f} GiB" if memory else ""
    packages = ", ".join(f"{name} {it}" for name, it in machine["packages"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores{size}; {machine['python']};"
        f" {packages or 'no peers'}; load at the start {machine['load'][0]:g};"
        f" {machine['time']}."
    )
