"""`python -m posesweep`: the same verbs as the `posesweep` command."""

import sys

from posesweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
