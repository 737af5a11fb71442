"""`posesweep sweep`, which is run_sweep.py, and what goes with it: train, fit, hosts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from posesweep.errors import ConfigError
from posesweep.verbs import Verbs, add_settings, add_verb, count

if TYPE_CHECKING:
    from posesweep.search_spaces.space import Sweep
    from posesweep.trainables.retraining import Promote

SWEEP = """
python run_sweep.py                                  the demo: synthetic horses, minutes on a CPU
python run_sweep.py sweep.yaml                       start a sweep, or go on with it
python run_sweep.py sweep.yaml search.trials=20      with a setting changed
python run_sweep.py sweep.yaml --debug               one short trial here, without Ray; breakpoints work
python run_sweep.py sweep.yaml --extend 20           20 more trials on a sweep
python run_sweep.py sweep.yaml --promote 3 --epochs 300   the best 3 of a sweep and the baseline, trained longer
"""


def add(verbs: Verbs) -> None:
    """sweep, train, hosts, fit."""
    sweep = add_verb(verbs, "sweep", run_sweep, "search, train and rank; the same command resumes", SWEEP)
    sweep.add_argument("file", nargs="?", help="a sweep file; without one, the demo on synthetic horses")
    add_settings(sweep)
    sweep.add_argument("--runs", type=Path, default=Path("runs"), help="where sweep folders are kept (default: runs)")
    sweep.add_argument("--debug", action="store_true", help="one short trial in this process, no Ray, little data")
    sweep.add_argument("--extend", type=count, default=0, metavar="N", help="N more trials on a sweep that was started")
    sweep.add_argument("--promote", type=count, metavar="K", help="train the K best of a finished sweep longer")
    sweep.add_argument("--epochs", type=count, metavar="E", help="how long --promote trains")

    train = add_verb(
        verbs,
        "train",
        run_train,
        "train one config, such as best.yaml, in this process",
        "posesweep train runs/mice/best.yaml --out runs/again epochs=300",
    )
    train.add_argument("config", type=Path, help="best.yaml, or any trial's config.yaml")
    add_settings(train)
    train.add_argument("--out", type=Path, required=True, help="the folder of this training; repeated, it resumes")

    hosts = add_verb(
        verbs,
        "hosts",
        run_hosts,
        "before `ray up`: can every machine of a cluster file be reached, and has it what it needs?",
        "posesweep hosts cluster.yaml",
    )
    hosts.add_argument("file", type=Path, help="a cluster file of machines to ssh to, like cluster.yaml")

    fit = add_verb(
        verbs,
        "fit",
        run_fit,
        "find the largest batch that fits into memory; changes nothing",
        "posesweep fit sweep.yaml model=hrnet_w48",
    )
    fit.add_argument("config", type=Path, help="best.yaml, a trial's config.yaml, or a sweep file (its baseline)")
    add_settings(fit)
    fit.add_argument("--fraction", type=float, default=0.9, help="share of the memory that may be used (default: 0.9)")


def run_sweep(asked: argparse.Namespace) -> None:
    """Start or resume a sweep; ends with the ranked table, best.yaml and report.html."""
    sweep = _read_sweep(asked.file, asked.settings)
    folder = asked.runs / sweep.name
    if asked.debug:
        from posesweep.trainables.debug import run_debug

        run_debug(sweep, folder.with_name(f".{folder.name}-debug"))  # no sweep can have this name
        return
    from posesweep.trainables import sweep as sweeping

    sweeping.run_sweep(sweep, folder, asked.extend, _promote(asked))


def _promote(asked: argparse.Namespace) -> "Promote | None":
    """What --promote and --epochs ask for together."""
    if (asked.promote is None) != (asked.epochs is None):
        raise ConfigError(
            "--promote K says how many are trained longer and --epochs E how long; give both"
            + (", or epochs=E for the length of every trial" if asked.promote is None else "")
        )
    if asked.promote is None:
        return None
    if asked.extend:
        raise ConfigError("--extend and --promote: extend the sweep first, then promote its best")
    from posesweep.trainables.retraining import Promote

    return Promote(asked.promote, asked.epochs)


def _read_sweep(file: str | None, settings: list[str]) -> "Sweep":
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.tasks import check_values, defaults_of

    if file is not None and "=" in file:  # run_sweep.py key=value: the demo with a setting changed
        settings = [file, *settings]
        file = None
    sweep = read_sweep(Path(file) if file else None, settings, check_values, defaults_of)
    for note in sweep.notes:
        print(f"note: {note}")
    return sweep


def run_train(asked: argparse.Namespace) -> None:
    """Train one config here."""
    from posesweep.trainables.winner import train_alone

    train_alone(asked.config, asked.settings, asked.out)


def run_hosts(asked: argparse.Namespace) -> None:
    """Ask every machine of a cluster file over ssh."""
    from posesweep.trainables.hosts import check_hosts

    print(check_hosts(asked.file))


def run_fit(asked: argparse.Namespace) -> None:
    """Find the batch that fits."""
    from posesweep.trainables.fit import run

    run(asked.config, asked.settings, asked.fraction)
