#!/usr/bin/env python
"""Find the best keypoint model for your data: `python run_sweep.py sweep.yaml`; without a file, the demo.

The same as `posesweep sweep`; see `python run_sweep.py --help`.
"""

import sys

from posesweep.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
