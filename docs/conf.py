"""Configuration of Sphinx."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "docs" / "_build"
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]  # the latter for apidocs.py

from asynqueue import __version__  # noqa: E402 - found by the line above

project = "asynqueue"
copyright = "The asynqueue contributors"
release = version = __version__

extensions = [
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "pydoctor.sphinx_ext.build_apidocs",
]
exclude_patterns = ["_build", "README.md"]
nitpicky = True
default_role = "literal"
highlight_language = "python3"

html_theme = "furo"
html_title = f"asynqueue {release}"
html_show_sphinx = False
html_copy_source = False

# The names of Twisted and of the standard library that pages link to. Their
# inventories are made by docs/inventories.py, so that no network is needed.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(BUILD / "python.inv")),
    "twisted": (
        "https://docs.twisted.org/en/stable/api",
        str(BUILD / "twisted.inv"),
    ),
}

pydoctor_args = [
    f"--config={ROOT / 'pyproject.toml'}",
    f"--project-base-dir={ROOT}",
    "--system-class=apidocs.System",
    "--project-url=../index.html",
    f"--template-dir={ROOT / 'docs' / 'apitemplates'}",
    "--html-output={outdir}/api",
    str(ROOT / "asynqueue"),
]
pydoctor_url_path = "api/"

# Only directives are run, in the order of the page, with one namespace a page.
doctest_test_doctest_blocks = ""
doctest_default_flags = doctest.ELLIPSIS
doctest_global_setup = f"""
import os, pathlib, re, socket, subprocess, sys, tempfile

ROOT = pathlib.Path({str(ROOT)!r})

def run(path, *arguments, cwd=ROOT):
    # Programs with a reactor, and children of their own, need an interpreter of theirs.
    # Twisted gives pyOpenSSL certificates in a way that this warns of.
    warnings = ["-W", "error", "-W", "ignore:Passing pyOpenSSL:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, path, *arguments],
        cwd=cwd,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    print(done.stdout, end="")
    if done.returncode:
        print("exit code", done.returncode, done.stderr)

def runReadme():
    # The one program in it, saved to a file as its readers do.
    text = (ROOT / "README.md").read_text()
    (program,) = re.findall("```python\\n(.*?)```", text, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "program.py")
        path.write_text(program)
        run(path)

def runMachines():
    # The two machines of the page on remote workers, as one.
    snippets = ROOT / "docs" / "snippets"
    environment = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        python = [sys.executable, "-m"]
        pair = [*python, "asynqueue.credentials", "pair", folder + "/tls"]
        subprocess.run(
            pair, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
        )
        place = f"tls:{{port}}:interface=127.0.0.1"
        tls = ["--tls", folder + "/tls/server.pem"]
        serve = [*python, "asynqueue.wire", *tls, place, "primes.Primes"]
        server = subprocess.Popen(
            serve,
            cwd=snippets,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = folder + "/tls/client.pem"
            run(snippets / "ask.py", f"tls:127.0.0.1:{{port}}", client)
        finally:
            server.terminate()
            server.wait(20)
"""
