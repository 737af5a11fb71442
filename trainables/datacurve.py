"""`posesweep datacurve`: the winner's config trained on parts of the training data, to see what more data would buy.

runs/<name>/datacurve/<share>-s<seed>/   one training each, as `posesweep train` leaves it, without its checkpoint
runs/<name>/datacurve/datacurve.json     {"trial", "config": whose and which, "points": [...]}
runs/<name>/datacurve/datacurve.csv      the points as a table

A part is whole groups, and lies inside every larger part. All trainings take about as many optimizer steps as the
winner's: with equal epochs the smaller parts would be trained less, and data would seem to buy what steps buy. Their
seeds are others than the winner's, which was chosen for its luck with its own, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from posesweep.analysis.chosen import chosen
from posesweep.analysis.datacurve import FILE, datacurve
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import SweepResults, read_sweep_folder
from posesweep.errors import ConfigError, SweepError
from posesweep.files import read_json, replacing, write_json
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import in_this_process
from posesweep.trainables.debug import print_epoch
from posesweep.trainables.folder import lease, remove_last
from posesweep.trainables.layout import placed
from posesweep.trainables.status import read_status
from posesweep.trainables.task import DivergedError
from posesweep.trainables.tasks import build_task, make_config
from posesweep.trainables.trial import run_trial
from posesweep.trainables.winner import read_config

SHARES = (0.25, 0.5, 0.75, 1.0)
IN_EPOCHS = ("warmup", "final_epochs", "cycle_epochs")  # settings that are counted in epochs


def run_datacurve(folder: Path, shares: Sequence[float] = SHARES, seeds: int = 1) -> None:
    """Train what is not there yet, in this process, and print what more data would buy. Called again it goes on.

    Raises SweepError where there is no winner, or where its data were changed or its trainings made otherwise;
    ConfigError for a share that is none.
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong:
        raise ConfigError(
            f"--shares: {wrong[0]:g} is no share of the data; give numbers above 0 and up to 1: 0.25 0.5 1"
        )
    results = read_sweep_folder(folder)
    out = folder / "datacurve"
    with lease(out):
        trial, file = _whose(results, out)
        settings = [f"data.split_hash={results.split['hash']}"]
        config = placed(read_config(folder / file, settings), (folder / file).parent)
        wanted = [(share, config.seed + 1 + i) for share in sorted(set(shares)) for i in range(seeds)]
        print(f"datacurve: {len(wanted)} trainings of trial {trial}'s config{_how_long(results, trial, len(wanted))}")
        for share, seed in wanted:
            point = _train(_part(config, share, seed), out / name_of(share, seed), share)
            _note_point(out, {"trial": trial, "config": file}, point)
    print(datacurve(read_sweep_folder(folder)).sentence)


def name_of(share: float, seed: int) -> str:
    """The folder of one training."""
    return f"{share:g}-s{seed}"


def _whose(results: SweepResults, out: Path) -> tuple[int, str]:
    """(the trial, its config.yaml below the sweep folder) of the winner, or of what an earlier call began with."""
    if "hash" not in results.split:
        raise SweepError(
            f"{results.folder}/split.json is missing or damaged, so its data cannot be told; copy it again"
        )
    winner = chosen(results, ranked(results))
    if not (out / FILE).is_file():
        return winner.trial, str((winner.folder / "config.yaml").relative_to(results.folder))
    begun = read_json(out / FILE)
    if begun["trial"] != winner.trial:
        goes_on = f"{out} was begun with trial {begun['trial']} and goes on with it"
        print(f"note: {goes_on}; the winner is trial {winner.trial} now: to begin with that, remove {out}")
    return int(begun["trial"]), str(begun["config"])


def _how_long(results: SweepResults, trial: int, count: int) -> str:
    row = results.trials.loc[results.trials["trial"] == trial].iloc[0]
    seconds = row["train_s"] + row["val_s"]
    return f", about {count * seconds / 60:.0f} min if they run as fast as in the sweep" if seconds > 0 else ""


def _part(config: TrialConfig, share: float, seed: int) -> TrialConfig:
    """The config on a share of its training data, for about as many steps: epochs, and what is counted in epochs, are
    stretched, and validation is as often by steps as before."""
    values: dict[str, Any] = config.model_dump(mode="json")
    if "train_share" not in values:
        raise ConfigError(f"task: {config.task} cannot train on a share of its data, so it has no data curve")
    stretch = 1 / share
    values |= {"train_share": share * values["train_share"], "seed": seed}
    values |= {name: max(1, round(values[name] * stretch)) for name in ("epochs", "val_every")}
    for name in IN_EPOCHS:
        if values.get(name):
            stretched = values[name] * stretch
            values[name] = round(stretched) if isinstance(values[name], int) else stretched
    return make_config({name: value for name, value in values.items() if value is not None})


def _train(config: TrialConfig, out: Path, share: float) -> dict[str, Any]:
    """Train one config to its end, or go on with it; returns its point, without a value where it diverged."""
    begun = out / "config.yaml"
    if begun.is_file() and _recipe(read_config(begun)) != _recipe(config):
        raise SweepError(f"{out} was trained with other settings than this sweep's winner has; remove {out.parent}")
    if read_status(out).get("state") not in ("finished", "diverged"):
        print(f"{out.name}: {share:.0%} of the training data, seed {config.seed}, {config.epochs} epochs", flush=True)
        try:
            run_trial(config, in_this_process(out, print_epoch))
        except DivergedError as error:
            print(f"note: {out.name}: {error}")
    remove_last(out)
    status = read_status(out)
    ended = status["state"] == "finished"
    return {
        "share": share,
        "seed": config.seed,
        "objects": len(build_task(config).datasets()[0]),
        "metric": config.metric.name,
        "value": status.get("best") if ended else None,
        "best_epoch": status.get("best_epoch"),
        "epochs": status.get("epochs"),
        "state": status["state"],
        "folder": out.name,
    }


def _recipe(config: TrialConfig) -> dict[str, Any]:
    """The config without its paths: the folder may have moved, and the split's hash says that the data are the same."""
    return config.model_dump(exclude={"data": {"train", "val", "images", "val_images", "skeleton"}, "weights": True})


def _note_point(out: Path, whose: dict[str, Any], point: dict[str, Any]) -> None:
    """Put the point among those there are, in datacurve.json and datacurve.csv."""
    known = read_json(out / FILE)["points"] if (out / FILE).is_file() else []
    points = [one for one in known if one["folder"] != point["folder"]] + [point]
    points.sort(key=lambda one: (one["share"], one["seed"]))
    write_json(out / FILE, {**whose, "points": points})
    with replacing(out / "datacurve.csv") as temporary:
        pd.DataFrame(points).to_csv(temporary, index=False)
