"""
The programs that are servers. C{python -m asynqueue.wire DESCRIPTION UNIVERSE} is the
command line; started by its path, this is the process of a server of a manager's.
"""

import os
import sys

if __name__ == "__main__" and __package__:
    from ._command import main

    sys.exit(main())

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    # Python has put the folder of this file there, unless it was told not to.
    sys.path[:] = [root, *(path for path in sys.path if path not in (here, root))]

    from asynqueue._child.startup import begin

    begin()

    from asynqueue.wire._command import serve

    serve()
