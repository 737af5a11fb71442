"""Can the answers be trusted? Simulated sweeps whose truth is known, judged by the code that judges real ones.

    OMP_NUM_THREADS=1 python -m posesweep.benchmarks.trust --quick            # 60 sweeps: a minute or two
    OMP_NUM_THREADS=1 python -m posesweep.benchmarks.trust                    # 1,000
    OMP_NUM_THREADS=1 python -m posesweep.benchmarks.trust --minutes 10       # as many as fit

No network is trained. A config has a skill, a known function of its parameters; a run of it has that skill and the luck
of its seed; its error in an image is the image's difficulty, which all runs share, times what this config finds hard
(all its runs share that), times its own luck, over its skill. From the errors come per-image matches as a trial's
evidence.npz holds them. What AP a config has on endless images and endless seeds is a table, made with 100,000 images.

Real are the search (`trainables.search`, TPE or random, with ASHA), the ranking, the confirmed ranking, the importance:
50 trials, 27 epochs, rungs at 3 and 9; 3 candidates and the baseline are confirmed with 3 seeds. The spread of AP is
that of drawn horses: with 80 images its standard error is 0.034, of a difference between two networks 0.012.

Coverage and gains are asked of all sweeps; ties, and which parameter matters, of 300 in 1,000.

Shares come with the 95 % interval of Wilson (JASA 22, 1927) for the number of times a question was asked.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from posesweep.analysis import importance
from posesweep.analysis.confirmed import Run, pooled
from posesweep.analysis.keypoint_ap import THRESHOLDS, Matches, keypoint_ap
from posesweep.analysis.ranking import Bootstrap, Interval, TrialEvidence, rank
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.files import cpus
from posesweep.search_spaces.space import Sweep, read_sweep, space_json
from posesweep.trainables.search import Search

SPACE = """
name: simulated
data: {synthetic: {train: 1, val: 1, width: 64, height: 64}}
fixed: {epochs: 27}
parameters:
  lr0:          {min: 1.0e-4, max: 1.0e-1, log: true}
  weight_decay: {min: 1.0e-4, max: 1.0e-1, log: true}
  sigma:        {min: 1.0, max: 4.0}
  augment:      {values: [none, light, medium]}
  aug_strength: {min: 0.0, max: 1.0, when: {augment: [light, medium]}}
baseline: {lr0: 3.0e-3, weight_decay: 3.0e-3, sigma: 2.5, augment: light, aug_strength: 0.5}
search: {method: METHOD, trials: TRIALS, startup_trials: 10, seed: SEED}
early_terminate: {type: asha, min_epochs: 3, eta: 3}
"""
RUNGS = (3, 9, 27)
CENTRE = -0.6  # log error of a config of skill 0, at which AP is about 0.64
DIFFICULTY, OWN, LUCK, SURENESS = 0.5, 0.05, 0.05, 0.3  # standard deviations of log errors, and of log scores
GROUP_SHARE = 0.5  # of the variance of difficulty and of what is a config's own, that a whole group shares
AP_PER_SKILL = 0.6  # about, where AP is 0.64
MANY = 100_000


@dataclass(frozen=True)
class World:
    """What is simulated. `effect`: standard deviation of AP over the range of the planted parameter; the others move a
    quarter of that. `seed_sd`: standard deviation of AP between seeds."""

    images: int = 80
    groups: int = 0  # 0: images are independent
    seed_sd: float = 0.010
    effect: float = 0.0
    trials: int = 50
    method: str = "tpe"
    uneven: float = 0.0  # how much the seeds' deviation differs between configs: standard deviation of its logarithm
    top_k: int = 3
    seeds: int = 3
    resamples: int = 200


# ------------------------------------------------------------------------------------------------------------ truth


@lru_cache(maxsize=4)
def _ap_table(own: float) -> tuple[Float[np.ndarray, "g"], Float[np.ndarray, "g"]]:
    """AP on endless images by skill; `own` is the deviation of all that is not skill."""
    rng = np.random.default_rng(0)
    log_error, sureness = rng.normal(CENTRE, own, MANY), rng.normal(0, SURENESS, MANY)
    skills = np.linspace(-2.5, 1.5, 81)
    return skills, np.array([keypoint_ap(matches(log_error - s, sureness))["AP"] for s in skills])


def true_ap(skill: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """AP of trained networks on endless images."""
    skills, ap = _ap_table(float(np.sqrt(DIFFICULTY**2 + OWN**2 + LUCK**2)))
    return np.interp(skill, skills, ap)


def expected_ap(skill: float, seed_skill_sd: float) -> float:
    """AP of a config on endless images and seeds (Gauss-Hermite quadrature)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    return float(weights @ true_ap(skill + seed_skill_sd * nodes) / weights.sum())


def matches(log_error: Float[np.ndarray, "m"], sureness: Float[np.ndarray, "m"]) -> Matches:
    """One large object and one detection in each image; OKS is exp(-error^2 / 2)."""
    images = len(log_error)
    order = np.argsort(log_error - sureness, kind="stable")
    hit = np.exp(-np.exp(2 * log_error[order]) / 2) >= THRESHOLDS[:, None]
    ignored = np.zeros((3, *hit.shape), bool)
    ignored[1] = True  # none is of medium size
    one = np.zeros(1, int)
    return Matches(
        images=np.arange(images),
        categories=one,
        image=order,
        category=np.zeros(images, int),
        score=-(log_error - sureness)[order],
        matched=np.broadcast_to(hit, ignored.shape).copy(),
        ignored=ignored,
        truth_image=np.arange(images),
        truth_category=np.zeros(images, int),
        truth_count=np.tile([1, 0, 1], (images, 1)),
    )


class Nature:
    """One validation set, and what every config makes of it."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        self.rng = rng
        self.groups = np.arange(world.images) % world.groups if world.groups else None
        self.difficulty = self._field(DIFFICULTY)
        self._own: dict[int, Float[np.ndarray, "m"]] = {}
        self._seed_sd: dict[int, float] = {}

    def _field(self, deviation: float) -> Float[np.ndarray, "m"]:
        """A number for each image, in part the same for all images of a group."""
        single = self.rng.normal(0, deviation, self.world.images)
        if self.groups is None:
            return single
        shared = self.rng.normal(0, deviation, self.world.groups)[self.groups]
        return np.sqrt(GROUP_SHARE) * shared + np.sqrt(1 - GROUP_SHARE) * single

    def seed_sd(self, config: int) -> float:
        """The deviation of the skill between seeds of a config."""
        if config not in self._seed_sd:
            factor = np.exp(self.rng.normal(0, self.world.uneven)) if self.world.uneven else 1.0
            self._seed_sd[config] = self.world.seed_sd / AP_PER_SKILL * factor
        return self._seed_sd[config]

    def run(self, config: int, skill: float) -> tuple[Matches, float]:
        """Train a config of this skill with a new seed: (its evidence, the skill of this network)."""
        if config not in self._own:
            self._own[config] = self._field(OWN)
        trained = skill + self.rng.normal(0, self.seed_sd(config))
        luck = self.rng.normal(0, LUCK, self.world.images)
        log_error = CENTRE + self.difficulty + self._own[config] + luck - trained
        return matches(log_error, self.rng.normal(0, SURENESS, self.world.images)), trained


# ------------------------------------------------------------------------------------------------------------ a sweep


class Landscape:
    """The skill of a config by its parameters: the sum of a function of each, of mean 0 over its range."""

    def __init__(self, sweep: Sweep, effect: float, rng: np.random.Generator) -> None:
        self.sweep = sweep
        self.planted = str(rng.choice(list(sweep.parameters)))
        self.best = {name: rng.uniform(0.1, 0.9) for name in sweep.parameters}
        self.size = {n: effect / AP_PER_SKILL / (1 if n == self.planted else 4) for n in sweep.parameters}
        levels = rng.permutation([-1.0, 0.0, 1.0]) * np.sqrt(1.5)
        self.levels = dict(zip(sweep.parameters["augment"].values, levels, strict=True))
        self.speed = rng.uniform(0.8, 1.2)

    def skill(self, params: Mapping[str, Any]) -> float:
        """0 on average over the space."""
        return float(sum(self.size[name] * self._shape(name, value) for name, value in params.items()))

    def _shape(self, name: str, value: Any) -> float:
        """Variance 1 over the range: a parabola about the best place, or levels."""
        parameter = self.sweep.parameters[name]
        if parameter.kind == "categorical":
            return self.levels[value]
        low, high = parameter.bounds
        place = np.log(value / low) / np.log(high / low) if parameter.log else (value - low) / (high - low)
        everywhere = -((np.linspace(0, 1, 201) - self.best[name]) ** 2)
        return float((-((place - self.best[name]) ** 2) - everywhere.mean()) / everywhere.std())

    def lag(self, params: Mapping[str, Any], epoch: int) -> float:
        """How much skill is still missing after an epoch; a little more with a small learning rate."""
        slow = 1 - 0.3 * np.log(params["lr0"] / 1e-4) / np.log(1e3)
        return float(0.9 * np.exp(-epoch / (6 * slow * self.speed)) - 0.9 * np.exp(-27 / (6 * slow * self.speed)))


@dataclass(frozen=True)
class Trial:
    """One trial of a simulated sweep. `curve`: epoch -> AP, as far as it was trained."""

    number: int
    params: dict[str, Any]
    skill: float  # of the config
    trained: float  # of this network
    matches: Matches
    curve: dict[int, float]
    finished: bool


def run_sweep(sweep: Sweep, landscape: Landscape, nature: Nature, folder: Path) -> list[Trial]:
    """The real search on simulated trainings."""
    search = Search.open(sweep, folder)
    trials: dict[int, Trial] = {}
    while (proposal := search.next_trial()) is not None:
        number, before = proposal.number, trials.get(proposal.number)
        skill = landscape.skill(proposal.params)
        found, trained = (before.matches, before.trained) if before is not None else nature.run(number, skill)
        final = keypoint_ap(found)["AP"]
        curve = dict(before.curve) if before is not None else {}
        stopped = None
        for epoch in [rung for rung in RUNGS if rung not in curve]:
            behind = true_ap(trained) - true_ap(trained - landscape.lag(proposal.params, epoch))
            jitter = nature.rng.normal(0, 0.01) if epoch < RUNGS[-1] else 0.0
            curve[epoch] = float(np.clip(final - behind + jitter, 0, 1))
            stopped = search.report(number, epoch, curve[epoch])
            if stopped:
                break
        else:
            search.finish(number)
        trials[number] = Trial(number, proposal.params, skill, trained, found, curve, not stopped)
    return list(trials.values())


def as_results(sweep: Sweep, trials: Sequence[Trial]) -> SweepResults:
    """The sweep as `read_sweep_folder` would give it."""
    rows = [
        {"trial": t.number, "role": "baseline" if t.number == 0 else "search", "reason": ""}
        | {"state": "finished" if t.finished else "pruned", "value": max(t.curve.values())}
        | {PARAMS + name: t.params.get(name) for name in sweep.parameters}
        for t in trials
    ]
    curves = [{"trial": t.number, "epoch": epoch, "value": ap} for t in trials for epoch, ap in t.curve.items()]
    return SweepResults(Path("simulated"), pd.DataFrame(rows), pd.DataFrame(curves), space_json(sweep), {}, {})


# ------------------------------------------------------------------------------------------------------------ questions

Answers = dict[str, list[bool]]  # question -> right or wrong, once for each time it was asked


def simulate(world: World, seed: int) -> tuple[SweepResults, list[Trial], Landscape, Nature]:
    """One whole sweep."""
    rng = np.random.default_rng([seed, world.images, world.groups])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        words = {"TRIALS": world.trials, "SEED": seed, "METHOD": world.method}
        text = SPACE
        for word, value in words.items():
            text = text.replace(word, str(value))
        file.write_text(text, encoding="utf-8")
        sweep = read_sweep(file)
        landscape, nature = Landscape(sweep, world.effect, rng), Nature(world, rng)
        trials = run_sweep(sweep, landscape, nature, Path(folder) / "run")
    return as_results(sweep, trials), trials, landscape, nature


def ask_about_gains(seed: int) -> Answers:
    """A sweep of a world drawn at random: coverage, and what is announced."""
    world = any_world(seed)
    _, trials, _, nature = simulate(world, seed)
    bootstrap = Bootstrap(nature.groups, world.resamples, seed)
    finished = {t.number: t for t in trials if t.finished}
    ranking = rank([TrialEvidence(n, t.matches) for n, t in finished.items()], baseline=0, bootstrap=bootstrap)
    truth = {n: expected_ap(t.skill, nature.seed_sd(n)) for n, t in finished.items()}
    found = _confirm(world, nature, finished, [row.trial for row in ranking.rows], bootstrap)
    answers = _of_ranking(ranking.rows, finished, truth) | _of_confirm(found, truth)
    kind = "equal configs" if world.effect == 0 else "grouped images" if world.groups else f"{world.images} images"
    details = ("sweep: AP interval, the winner's network", "confirm: gain interval, the winner", CLAIMED)
    apart = {f"  {name} ({kind})": answers[name] for name in details if name in answers}
    return answers | apart


CLAIMED = "confirm: calls the gain confirmed"


def any_world(seed: int) -> World:
    """Small and large validation sets, a quarter of the sweeps over parameters that do not matter."""
    rng = np.random.default_rng([seed, 1])
    images, groups = [(80, 0), (200, 0), (500, 0), (200, 40)][rng.choice(4, p=[0.45, 0.25, 0.1, 0.2])]
    effect = 0.0 if rng.random() < 0.25 else float(np.exp(rng.uniform(np.log(0.005), np.log(0.08))))
    seed_sd = float(rng.choice([0.005, 0.010, 0.020]))
    return World(images, groups, seed_sd, effect, method=str(rng.choice(["tpe", "random"])), uneven=0.3)


def ask_about_importance(seed: int) -> Answers:
    """A sweep in which one parameter matters four times as much as any other."""
    results, _, landscape, _ = simulate(World(effect=0.06), seed)
    found = importance.numbers(results, resamples=20)
    return {"importance: the planted parameter comes first": [found.effects[0].axis.name == landscape.planted]}


def ask_about_ties(seed: int) -> Answers:
    """50 equal configs, all trained to the end: equally good networks, and such as differ by the luck of the seed."""
    answers: Answers = {}
    for seed_sd in (0.0, 0.010):
        world = World(seed_sd=seed_sd)
        nature = Nature(world, np.random.default_rng([seed, 2]))
        trials = {n: Trial(n, {}, 0.0, *reversed(nature.run(n, 0.0)), {}, True) for n in range(world.trials)}
        bootstrap = Bootstrap(None, world.resamples, seed)
        rows = rank([TrialEvidence(n, t.matches) for n, t in trials.items()], 0, bootstrap).rows
        what = "50 equal configs, with luck of the seed" if seed_sd else "50 equal networks"
        answers[f"sweep: {what}: all tied"] = [all(row.tied for row in rows)]
        answers[f"sweep: {what}: share of trials tied"] = [row.tied for row in rows]
        if seed_sd:
            found = _confirm(world, nature, trials, [row.trial for row in rows], bootstrap)
            answers[f"confirm: {what}: all tied"] = [all(fields["tied"] for fields in found.values())]
            best = max(found, key=lambda trial: found[trial]["ap"].value)
            answers[f"confirm: {what}: no gain is called confirmed"] = [not (best and found[best]["gain"].low > 0)]
    return answers


def holds(interval: Interval, value: float) -> bool:
    """Whether an interval covers the truth."""
    return interval.low <= value <= interval.high


def _of_ranking(rows: Sequence[Any], trials: Mapping[int, Trial], truth: Mapping[int, float]) -> Answers:
    networks = {n: float(true_ap(t.trained)) for n, t in trials.items()}
    best = rows[0]
    answers: Answers = {"sweep: AP interval, each network": [holds(r.ap, networks[r.trial]) for r in rows]}
    answers["sweep: AP interval, the winner's network"] = [holds(best.ap, networks[best.trial])]
    answers["sweep: AP interval, the winner's config"] = [holds(best.ap, truth[best.trial])]
    others = [r for r in rows if r.trial != 0]
    gain = {r.trial: networks[r.trial] - networks[0] for r in others}
    answers["sweep: gain intervals, all networks at once"] = [all(holds(r.to_baseline, gain[r.trial]) for r in others)]
    if best.trial != 0:
        answers["sweep: gain interval, the winner's network"] = [holds(best.to_baseline, gain[best.trial])]
        answers["sweep: gain interval, the winner's config"] = [holds(best.to_baseline, truth[best.trial] - truth[0])]
    announced = best.trial != 0 and best.to_baseline.low > 0
    answers["sweep: says that this network is better"] = [announced]
    if announced:
        answers["sweep: it is, on fresh images"] = [gain[best.trial] > 0]
        answers["sweep: so is its config, with fresh seeds"] = [truth[best.trial] > truth[0]]
    return answers


def _confirm(
    world: World, nature: Nature, finished: Mapping[int, Trial], order: Sequence[int], bootstrap: Bootstrap
) -> dict[int, dict[str, Any]]:
    """Train the best and the baseline again; fields of `confirmed.Candidate` by trial."""
    chosen = [*[trial for trial in order if trial != 0][: world.top_k], 0]
    runs = [
        Run(trial, seed, "finished", matches=nature.run(trial, finished[trial].skill)[0])
        for trial in chosen
        for seed in range(world.seeds)
    ]
    contenders = [t.matches for n, t in finished.items() if n != 0]
    return {t: dict(fields) for t, fields in pooled(runs, contenders, 0, bootstrap).fields.items()}


def _of_confirm(found: Mapping[int, Mapping[str, Any]], truth: Mapping[int, float]) -> Answers:
    order = sorted(found, key=lambda trial: -found[trial]["ap"].value)
    best, others = order[0], [trial for trial in order if trial != 0]
    gain = {trial: truth[trial] - truth[0] for trial in others}
    answers: Answers = {"confirm: AP interval, each config": [holds(found[t]["ap"], truth[t]) for t in order]}
    answers["confirm: AP interval, the baseline"] = [holds(found[0]["ap"], truth[0])]
    answers["confirm: AP interval, the winner"] = [holds(found[best]["ap"], truth[best])]
    answers["confirm: gain intervals, all at once"] = [all(holds(found[t]["gain"], gain[t]) for t in others)]
    answers["confirm: the truly best candidate is among the tied"] = [found[max(order, key=truth.__getitem__)]["tied"]]
    announced = best != 0 and found[best]["gain"].low > 0
    answers[CLAIMED] = [announced]
    if best != 0:
        answers["confirm: gain interval, the winner"] = [holds(found[best]["gain"], gain[best])]
    if announced:
        answers["confirm: the confirmed gain is true, on fresh images and seeds"] = [gain[best] > 0]
    return answers


# ------------------------------------------------------------------------------------------------------------ the table

AT_LEAST, AT_MOST = "at least", "at most"
GOALS = {  # question -> what was aimed at
    "sweep: AP interval, each network": (AT_LEAST, 0.95),
    "sweep: AP interval, the winner's network": (AT_LEAST, 0.95),
    "sweep: gain intervals, all networks at once": (AT_LEAST, 0.95),
    "sweep: gain interval, the winner's network": (AT_LEAST, 0.95),
    "sweep: it is, on fresh images": (AT_LEAST, 0.95),
    "confirm: AP interval, each config": (AT_LEAST, 0.95),
    "confirm: AP interval, the winner": (AT_LEAST, 0.95),
    "confirm: gain intervals, all at once": (AT_LEAST, 0.95),
    "confirm: gain interval, the winner": (AT_LEAST, 0.95),
    "confirm: the truly best candidate is among the tied": (AT_LEAST, 0.95),
    "confirm: the confirmed gain is true, on fresh images and seeds": (AT_LEAST, 0.95),
    f"  {CLAIMED} (equal configs)": (AT_MOST, 0.05),
    "sweep: 50 equal networks: all tied": (AT_LEAST, 0.95),
    "sweep: 50 equal networks: share of trials tied": (AT_LEAST, 0.95),
    "confirm: 50 equal configs, with luck of the seed: all tied": (AT_LEAST, 0.95),
    "confirm: 50 equal configs, with luck of the seed: no gain is called confirmed": (AT_LEAST, 0.95),
    "importance: the planted parameter comes first": (AT_LEAST, 0.95),
}


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z = 1.959964
    middle = (right + z**2 / 2) / (asked + z**2)
    half = z * np.sqrt(right * (asked - right) / asked + z**2 / 4) / (asked + z**2)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def gathered(ask: Callable[[int], Answers], sweeps: int, until: float) -> tuple[int, Answers]:
    """(sweeps simulated, all answers); no more are begun after `until`, on the clock of time.monotonic."""
    found: Answers = {}
    done = 0
    with ProcessPoolExecutor(cpus()) as pool:
        for answers in _in_batches(pool, ask, sweeps, until):
            done += 1
            for question, given in answers.items():
                found.setdefault(question, []).extend(given)
    return done, found


def _in_batches(
    pool: ProcessPoolExecutor, ask: Callable[[int], Answers], sweeps: int, until: float
) -> Iterator[Answers]:
    size = 4 * cpus()
    for first in range(0, sweeps, size):
        if time.monotonic() > until:
            return
        yield from pool.map(ask, range(first, min(first + size, sweeps)))


def row_of(question: str, answers: Sequence[bool]) -> list[str]:
    """question, share, its interval, how often asked, goal, whether it was met."""
    right, asked = sum(answers), len(answers)
    low, high = wilson(right, asked)
    row = [question, f"{right / asked:.3f}", f"{low:.3f} to {high:.3f}", str(asked)]
    if question not in GOALS:
        return [*row, "", ""]
    which, goal = GOALS[question]
    share, reachable = right / asked, high if which == AT_LEAST else 1 - low
    met = share >= goal if which == AT_LEAST else share <= goal
    aim = goal if which == AT_LEAST else 1 - goal
    return [*row, f"{which} {goal}", "yes" if met else "within chance" if reachable >= aim else "NO"]


def main() -> None:
    """Print a table for each kind of question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="60 sweeps")
    parser.add_argument("--sweeps", type=int, help="by default 1,000")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop when they have passed, with what there is")
    chosen = parser.parse_args()
    sweeps = chosen.sweeps or (60 if chosen.quick else 1000)
    kinds = {"ties": ask_about_ties, "importance": ask_about_importance, "gains": ask_about_gains}
    true_ap(0.0)  # the table is made once, before the processes part
    for name, ask in kinds.items():
        count, share = (sweeps, 0.6) if name == "gains" else (max(1, round(0.3 * sweeps)), 0.2)
        done, answers = gathered(ask, count, time.monotonic() + 60 * chosen.minutes * share)
        table = Table("", "share", "95 % interval", "asked", "goal", "met", title=f"{name}: {done} sweeps")
        for question in answers:
            table.add_row(*row_of(question, answers[question]))
        Console(width=150).print(table)


if __name__ == "__main__":
    main()
