"""The end of a sweep: ranked table, best.yaml, report; and training one config again."""

import sys
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from posesweep.analysis.chosen import Chosen
from posesweep.analysis.confirmed import Confirmed, confirmed
from posesweep.analysis.promoted import Promoted, Promotion, promotions
from posesweep.analysis.ranked import Standings
from posesweep.analysis.report import build_report
from posesweep.analysis.results import SweepResults, read_sweep_folder, write_results_csv
from posesweep.analysis.story import Story
from posesweep.analysis.tested import lines_of_test
from posesweep.errors import ConfigError
from posesweep.files import write_text
from posesweep.search_spaces.document import apply_overrides
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.context import in_this_process
from posesweep.trainables.debug import print_epoch
from posesweep.trainables.latency import measure_latency
from posesweep.trainables.layout import placed
from posesweep.trainables.progress import params_text
from posesweep.trainables.status import read_status
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import dump_config, run_trial

SAME_NETWORK = "all ranked trials have the same network"  # so nothing was to be measured: no news for the terminal
PIPED_WIDTH = 140  # columns, where there is no terminal to ask


def conclude(folder: Path) -> None:
    """Rank a sweep folder, print the table, and write best.yaml, results.csv and report.html into it.

    Raises SweepError when `folder` is no sweep. A sweep without a winner gets its report, which says why.
    """
    story = Story.of(read_sweep_folder(folder))
    results, table, found, picked = story.results, story.table, story.confirmed, story.picked
    promoted = promotions(results)
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    console.print(ranking_table(table, results.metric, "Ranking" if found is None else "Ranking of the search"))
    if found is not None:
        console.print(confirmed_table(found, results.metric))
    for promotion in promoted:
        console.print(promoted_table(promotion, results))
    for note in (*table.notes, *_notes(story, promoted)):
        console.print(f"note: {note}", markup=False)
    write_results_csv(results, folder / "results.csv")
    if picked is not None:
        seed = f", seed {picked.seed}" if picked.seed is not None else ""
        if lacking := _lacking(results, picked):
            console.print(f"winner: trial {picked.trial}{seed}; no best.yaml: {lacking}", markup=False)
        else:
            write_text(folder / "best.yaml", best_yaml(results, table, picked, found))
            console.print(f"winner: trial {picked.trial}{seed}; {folder / 'best.yaml'} trains it again", markup=False)
    said = measure_latency(results, [row.trial for row in table.rows if row.rank is not None])
    if said and not said.endswith(SAME_NETWORK):
        console.print(f"note: {said}", markup=False)
    for line in lines_of_test(folder, picked.trial if picked is not None else None):
        console.print(line, markup=False)
    console.print(f"report: {build_report(folder, story)}", markup=False)


def ranking_table(standings: Standings, metric: str, title: str = "Ranking") -> Table:
    """The ranking for a terminal: the best on top, below the ranked trials those that were stopped, and why."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("#", "trial", metric.removeprefix("val/"), "95 % interval", "P(best)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("gain over baseline", justify="right", min_width=7)
    table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("settings, or why it ended", overflow="fold", min_width=20)
    for row in standings.rows:
        table.add_row(
            "" if row.rank is None else f"{row.rank}{'=' if row.tied and row.rank > 1 else ''}",
            str(row.trial),
            "" if row.value is None else f"{row.value:.3f}",
            "" if row.ap is None else f"{row.ap.low:.3f} to {row.ap.high:.3f}",
            "" if row.p_best is None else f"{row.p_best:.0%}",
            "" if row.gain is None else f"{row.gain.value:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}]",
            str(row.epochs),
            ("baseline  " if row.role == "baseline" else "")
            + escape(params_text(row.params) if row.rank is not None else row.reason),
            style="bold" if row.rank == 1 else "" if row.rank is not None else "dim",
        )
    if standings.tied:
        table.caption = "= cannot be told from the winner by this validation set"
    return table


def promoted_table(promotion: Promotion, results: SweepResults) -> Table:
    """What the trials that were trained longer reached, beside what they had in the search."""
    table = Table(title=f"Promoted to {promotion.epochs} epochs", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("#", "trial", results.metric.removeprefix("val/"), "95 % interval", "gain over baseline", "before"):
        table.add_column(name, justify="right", no_wrap=True)
    before = results.trials.set_index("trial")["value"]
    for place, row in enumerate(promotion.rows, start=1):
        table.add_row(
            f"{place}{'=' if row.tied and place > 1 else ''}",
            f"{row.trial}{' baseline' if row.role == 'baseline' else ''}",
            f"{row.value:.3f}",
            "" if row.ap is None else f"{row.ap.low:.3f} to {row.ap.high:.3f}",
            "" if row.gain is None else f"{row.gain.value:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}]",
            f"{before[row.trial]:.3f}",
            style="bold" if place == 1 else "",
        )
    return table


def _notes(story: Story, promoted: list[Promotion]) -> list[str]:
    """What the reader must know of the confirmation and of what was trained longer."""
    notes = list(story.confirmed.notes) if story.confirmed is not None else []
    if undecided := story.undecided:
        notes.append(undecided)
    for promotion in promoted:
        notes += promotion.notes
        if promotion.left:
            notes.append(f"{promotion.left} of those promoted to {promotion.epochs} epochs have not ended")
    return notes


def confirmed_table(found: Confirmed, metric: str) -> Table:
    """What the best of the search reached when they were trained again, beside what the search had seen."""
    table = Table(title="Confirmed with other seeds", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in (
        "#",
        "trial",
        metric.removeprefix("val/"),
        "95 % interval",
        "P(best)",
        "gain over baseline",
        "in the search",
        "each seed",
    ):
        table.add_column(name, justify="left" if name == "each seed" else "right", no_wrap=name != "each seed")
    for place, row in enumerate(found.rows, start=1):
        table.add_row(
            "" if row.reason else f"{place}{'=' if row.tied and place > 1 else ''}",
            f"{row.trial}{' baseline' if row.role == 'baseline' else ''}",
            "" if row.value is None else f"{row.value:.3f}",
            "" if row.ap is None else f"{row.ap.low:.3f} to {row.ap.high:.3f}",
            "" if row.p_best is None else f"{row.p_best:.0%}",
            "" if row.gain is None else f"{row.gain.value:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}]",
            "" if row.sweep_value is None else f"{row.sweep_value:.3f}",
            escape(row.reason) or ", ".join(f"{seed}: {value:.3f}" for seed, value in (row.seed_values or {}).items()),
            style="bold" if place == 1 else "",
        )
    if any(row.tied for row in found.rows[1:]):
        table.caption = "= cannot be told from the winner by these images and seeds"
    return table


def _lacking(results: SweepResults, picked: Chosen) -> str:
    """Why best.yaml cannot be written, as of a half copied folder or one of an older version; "" when it can."""
    config = picked.folder / "config.yaml"
    if not config.is_file():
        return f"{config} is missing"
    if "hash" not in results.split or "val" not in results.split:
        return "split.json is missing, or only partly copied"
    status = read_status(picked.folder)
    missing = [name for name in ("device", "workers", "threads", "versions", "best_epoch") if name not in status]
    return f"{picked.folder / 'status.json'} does not say {', '.join(missing)}" if missing else ""


def best_yaml(results: SweepResults, table: Standings, picked: Chosen, found: Confirmed | None = None) -> str:
    """The training's full config, headed by what it reached, against what, and with what.

    `found`: the confirmation where it was read already.
    """
    config = yaml.safe_load((picked.folder / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["split_hash"] = results.split["hash"]  # training refuses other data than it was chosen on
    status = read_status(picked.folder)
    exact = status["device"] == "cpu" and status["workers"] == 1
    ran_with = ", ".join(f"{name} {version}" for name, version in status["versions"].items())
    reached = _reached(results, table, picked)
    if picked.candidate is not None:
        reached = _confirmed(results, picked, status, found or confirmed(results))
    if picked.promoted is not None:
        reached = _promoted(results, picked.promoted, status)
    header = [
        *reached,
        f"validation split: {results.split['hash']}, {len(results.split['val'])} objects",
        f"ran on: {status['device']}, {status['threads']} threads, {ran_with}",
        f"train it again{' (bit for bit the same on this machine)' if exact else ''}: "
        "posesweep train best.yaml --out runs/again",
    ]
    return "".join(f"# {line}\n" for line in header) + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _reached(results: SweepResults, table: Standings, picked: Chosen) -> list[str]:
    """What a trial of the search reached, for the header of its config."""
    trial = next(row for row in table.rows if row.trial == picked.trial)
    status = results.statuses[trial.trial]
    reached = f"{results.metric} {trial.value:.4f}" if trial.value is not None else "no score"
    if trial.ap is not None:
        reached = f"AP {trial.ap.value:.4f}, 95 % interval {trial.ap.low:.4f} to {trial.ap.high:.4f}"
    tied = ", ".join(str(other.trial) for other in table.tied) if trial.rank == 1 else ""
    return [
        f"The best of sweep '{results.name}': trial {trial.trial}" if trial.rank == 1 else f"Trial {trial.trial}",
        f"reached: {reached}, at epoch {status['best_epoch']} of {status['epochs']}",
        *([f"tied with trials {tied}: the validation set cannot tell them apart"] if tied else []),
    ]


def _confirmed(results: SweepResults, picked: Chosen, status: dict[str, Any], found: Confirmed | None) -> list[str]:
    """What a confirmed trial reached with all its seeds, and what the search had seen of it."""
    row = picked.candidate
    assert found is not None
    assert row is not None
    seeds = ", ".join(map(str, row.seed_values or {}))
    reached = f"{results.metric} {picked.value:.4f}, the mean of its seeds"
    if row.ap is not None:
        reached = f"AP {row.ap.value:.4f}, 95 % interval {row.ap.low:.4f} to {row.ap.high:.4f} over images and seeds"
    lines = [
        f"The best of sweep '{results.name}': trial {row.trial}, confirmed with seeds {seeds}",
        f"reached: {reached}",
        f"this is seed {picked.seed}, the best of them: {results.metric} {status['best']:.4f}, at epoch "
        f"{status['best_epoch']} of {status['epochs']}",
    ]
    if row.sweep_value is not None:
        lines.append(f"in the search: {results.metric} {row.sweep_value:.4f}, the number that it was picked by")
    if row.gain is not None and row.role != "baseline":
        gain = row.gain
        lines.append(f"gain over the baseline: {gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}")
    cheapest = found.cheapest_tied
    if found.tied:
        tied = f"trial{'s' if len(found.tied) > 1 else ''} {', '.join(str(other.trial) for other in found.tied)}"
        cheap = f"; the cheapest of all: trial {cheapest.trial}" if cheapest is not None else ""
        lines.append(f"tied with {tied}: these images and seeds cannot tell them apart{cheap}")
    return lines


def _promoted(results: SweepResults, row: Promoted, status: dict[str, Any]) -> list[str]:
    """What a trial reached when it was trained longer."""
    reached = f"{results.metric} {row.value:.4f}"
    if row.ap is not None:
        reached = f"AP {row.ap.value:.4f}, 95 % interval {row.ap.low:.4f} to {row.ap.high:.4f}"
    lines = [
        f"The best of sweep '{results.name}': trial {row.trial}, promoted to {row.epochs} epochs with seed {row.seed}",
        f"reached: {reached}, at epoch {status['best_epoch']} of {status['epochs']}",
    ]
    if row.gain is not None and row.role != "baseline":
        gain = row.gain
        text = f"gain over the baseline trained as long: {gain.value:+.4f}"
        lines.append(f"{text}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}")
    return lines


def read_config(path: Path, settings: list[str] | None = None) -> TrialConfig:
    """The config of one training from best.yaml or config.yaml, with `key=value` settings over it.

    Raises ConfigError for a file that is not one, with every mistake in it.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not there; give the best.yaml of a sweep folder, or a trial's config.yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict) or "data" not in values:
        raise ConfigError(f"{path} is not the config of one training; best.yaml in a sweep folder is one")
    return make_config(apply_overrides(values, settings or []))


def train_alone(path: Path, settings: list[str], out: Path) -> None:
    """Train one config in this process, into `out`; repeated, it goes on from the last epoch. Prints each epoch."""
    config = placed(read_config(path, settings), path.parent)
    begun = out / "config.yaml"
    if begun.is_file() and begun.read_text(encoding="utf-8") != dump_config(config):
        raise ConfigError(f"{out} holds a training with other settings ({begun}); choose another --out, or remove it")
    loop = run_trial(config, in_this_process(out, print_epoch))
    best = f"{config.metric.name} {loop.best:.4f} at epoch {loop.best_epoch}" if loop.best is not None else "no score"
    print(f"{out}: trained {loop.epoch} epochs, best {best}; weights in {out / 'best'}")
