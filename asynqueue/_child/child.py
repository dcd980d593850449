"""
What a child process runs. Nobody imports it: it's started by its path.

There's as little in it as can be, for it's C{__main__}, which is to be the user's.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # Python has put the folder of this file there, unless it was told not to.
    sys.path[:] = [path for path in sys.path if path != here]
    # By its place, not by way of sys.path: the folder that it's in may have modules
    # that only look like those of the standard library.
    package = os.path.dirname(here)
    spec = spec_from_file_location("asynqueue", os.path.join(package, "__init__.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["asynqueue"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["asynqueue"])

    from asynqueue._child.startup import begin, openOutput

    begin()
    openOutput()

    if len(sys.argv) > 1:
        from asynqueue._child.childreactor import run
    else:
        from asynqueue._child.callserver import run
    run()
