"""
The command line of a server: C{python -m asynqueue.wire DESCRIPTION UNIVERSE}.
"""

import sys

from ._command import main

if __name__ == "__main__":
    sys.exit(main())
