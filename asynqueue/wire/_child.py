"""
What the process of a server runs that a manager has started. Nobody imports it: it's
started by its path.
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

    from asynqueue.wire._process import serve

    serve()
