"""The command line: `posesweep VERB`, `python -m posesweep VERB`, and run_sweep.py (the verb `sweep`)."""

import argparse
import sys
from collections.abc import Sequence

from posesweep import __version__
from posesweep.errors import PoseSweepError
from posesweep.verbs import data, results, running, sweep, winner

EXAMPLES = """examples:
  posesweep init data/                                 look at your data and write sweep.yaml
  posesweep check sweep.yaml                           faults in labels and images, with pictures
  python run_sweep.py                                  the demo: synthetic horses, minutes on a CPU
  python run_sweep.py sweep.yaml                       start a sweep, or go on with it
  posesweep status runs/horse26                        how far it is, from any machine that sees the folder
  posesweep stop runs/horse26                          finish the running epochs and stop; the same command goes on
  posesweep report runs/horse26                        rank it again and rebuild report.html
  posesweep compare runs/before runs/after             the winners of two sweeps on the same images
  posesweep export runs/horse26 winner/                best.yaml, weights and skeleton of the winner
  posesweep predict runs/horse26 clip.mp4 --out found/ keypoints in images and videos
  posesweep train runs/horse26/best.yaml --out runs/again
  posesweep eval runs/horse26                          score the winner's weights again
posesweep VERB --help says more of each
"""
RESUMES = ("sweep", "train", "datacurve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 faults found, 2 for the user to put right, 130 interrupted."""
    asked = _parse(arguments)
    try:
        return asked.run(asked) or 0
    except PoseSweepError as error:
        print(f"posesweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "nothing is lost, the same command goes on" if asked.verb in RESUMES else "nothing half-written is left"
        print(f"posesweep: interrupted; {kept}", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None:
            raise
        print(f"posesweep: {error.filename}: {error.strerror}; look at the path and its permissions", file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; settings (key=value) may also stand after options."""
    top = parser()
    asked, rest = top.parse_known_args(arguments)
    if rest and (not hasattr(asked, "settings") or any(r.startswith("-") or "=" not in r for r in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        asked.settings = [*asked.settings, *rest]
    return asked


def parser() -> argparse.ArgumentParser:
    """Every verb and option."""
    top = argparse.ArgumentParser(
        prog="posesweep",
        description="Finds the best keypoint model for your own data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"posesweep {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for kind in (sweep, running, results, winner, data):
        kind.add(verbs)
    return top
