"""
What a child process runs. Nobody imports it: it's started by its path.

There's as little in it as can be, for it's C{__main__}, which is to be the user's.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    # Python has put the folder of this file there, unless it was told not to.
    sys.path[:] = [root, *(path for path in sys.path if path not in (here, root))]

    from asynqueue._child.startup import begin

    begin()

    from asynqueue._child.loop import run

    run()
