"""The page, with a queue that has something to do: C{python -m asynqueue.monitor}."""

import sys

from ._demo import main

if __name__ == "__main__":
    main(sys.argv[1:])
