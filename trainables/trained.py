"""A finished training, ready to be used: found in a sweep folder, an exported winner, or the folder of one training.

Nothing of the training data is read, which may not be there: settings, weights and skeleton are all it takes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor, nn

from posesweep.analysis.chosen import Chosen, chosen
from posesweep.analysis.ranked import Standings, ranked
from posesweep.analysis.results import SweepResults, read_sweep_folder
from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.errors import ConfigError, SweepError
from posesweep.trainables.checkpoint import take_weights
from posesweep.trainables.codecs import Codec
from posesweep.trainables.context import pick_device
from posesweep.trainables.layout import SKELETON_FILE
from posesweep.trainables.tasks.topdown import Config, answers, build_network, codec
from posesweep.trainables.trial import Precision
from posesweep.trainables.winner import read_config

WEIGHTS_FILE = "weights.safetensors"
EXPORTED = ("best.yaml", WEIGHTS_FILE)  # what makes a folder an exported winner


@dataclass(frozen=True)
class Origin:
    """The sweep that chose a training."""

    results: SweepResults
    table: Standings
    picked: Chosen


@dataclass(frozen=True)
class Trained:
    """Settings, weights and skeleton of one training. `config` is as trained, but asks for no weights to begin from."""

    name: str  # for sentences: 'trial 7 of runs/mice', 'winner'
    folder: Path  # best.yaml or config.yaml lies here
    settings: Path
    weights: Path
    config: Config
    skeleton: Skeleton
    origin: Origin | None = None  # None: the folder says nothing of a sweep


def find_trained(where: Path, number: int | None = None) -> Trained:
    """The training in `where`: of a sweep folder its winner, or trial `number`.

    Raises SweepError when there is none or its weights were not kept, ConfigError or DataError for a damaged file.
    """
    where = where.parent if where.is_file() else where
    if all((where / name).is_file() for name in EXPORTED):
        _refuse_number(where, number, "an exported winner")
        return _trained(str(where), where / "best.yaml", where / WEIGHTS_FILE, None)
    if (where / "config.yaml").is_file():
        _refuse_number(where, number, "the folder of one training")
        return _trained(str(where), where / "config.yaml", where / "best" / WEIGHTS_FILE, _sweep_of(where))
    if (where / "best.yaml").is_file() and not (where / "trials").is_dir():
        raise SweepError(f"{where}: has best.yaml and no {WEIGHTS_FILE}; copy the whole folder that export wrote")
    results = read_sweep_folder(where)
    table = ranked(results)
    picked = chosen(results, table, number)
    weights = picked.folder / "best" / WEIGHTS_FILE
    seed = f", seed {picked.seed}," if picked.seed is not None else ""
    name = f"trial {picked.trial}{seed} of {where}"
    found = _trained(name, picked.folder / "config.yaml", weights, results)
    return replace(found, origin=Origin(results, table, picked))


def _refuse_number(where: Path, number: int | None, what: str) -> None:
    if number is not None:
        raise SweepError(f"--trial {number}: {where} is {what}; give a sweep folder, or leave --trial out")


def _sweep_of(training: Path) -> SweepResults | None:
    """The sweep that holds this training, in trials/ or beside it."""
    sweep = training.absolute().parents[1]
    return read_sweep_folder(sweep) if (sweep / "trials").is_dir() else None


def _trained(name: str, settings: Path, weights: Path, sweep: SweepResults | None) -> Trained:
    config = read_config(settings)
    if not isinstance(config, Config):
        raise ConfigError(f"{settings}: task {config.task} has no keypoints to predict; topdown has")
    if not weights.is_file():
        raise SweepError(
            f"the weights of {name} were not kept (keep.checkpoints_of_top in the sweep file); train it again: "
            f"posesweep train {settings} --out runs/again"
        )
    folder = settings.parent
    config = config.model_copy(update={"pretrained": False, "weights": None, "weights_skeleton": None})
    return Trained(name, folder, settings, weights, config, _skeleton(folder, config, sweep))


def _skeleton(folder: Path, config: Config, sweep: SweepResults | None) -> Skeleton:
    """From beside the settings, as the sweep froze it, or by the name that the settings give."""
    if (folder / SKELETON_FILE).is_file():
        return load_skeleton(folder / SKELETON_FILE)
    if sweep is not None and sweep.skeleton is not None:
        return sweep.skeleton
    name = config.data.skeleton or ("horse26" if config.data.synthetic is not None else None)
    if name is None:
        raise SweepError(f"{folder}: has no {SKELETON_FILE}, which names the keypoints; copy it there")
    return load_skeleton(name)


@dataclass(frozen=True)
class Predictor:
    """A network with its weights on a device, answering with keypoints in image pixels."""

    network: nn.Module
    codec: Codec
    flip_index: Int[Tensor, "K"] | None  # None: no flip test
    precision: Precision

    @classmethod
    def of(cls, trained: Trained, flip_test: bool | None = None) -> "Predictor":
        """On this machine's GPU, else its CPU, in the number format that the config asks for; `flip_test` None is as
        the config says. fp16, which a CPU does not compute in, becomes float32 there."""
        config, device = trained.config, pick_device()
        flip_test = config.flip_test if flip_test is None else flip_test
        network = load_network(trained).to(device)
        return cls(
            network.to(memory_format=torch.channels_last) if config.channels_last else network,
            codec(config),
            torch.from_numpy(trained.skeleton.flip_index) if flip_test else None,
            Precision.of(amp_on(config, device), device),
        )

    @torch.no_grad()
    def __call__(self, images: UInt8[ndarray, "n H W 3"], to_image: Float[ndarray, "n 2 3"]) -> Float[ndarray, "n K 3"]:
        """x, y in image pixels and score of each keypoint, for RGB network inputs and their affines to the image."""
        device = self.precision.device
        batch = {
            "image": torch.from_numpy(images).to(device),
            "to_image": torch.from_numpy(to_image).to(device),
        }
        with self.precision.autocast():
            return answers(self.network, self.codec, batch, self.flip_index)


def amp_on(config: Config, device: torch.device) -> bool | str:
    """The config's number format on this device: a network trained in fp16 may be used where there is none."""
    return False if config.amp == "fp16" and device.type == "cpu" else config.amp


def load_network(trained: Trained) -> nn.Module:
    """The network with its weights, on the CPU. ConfigError where they do not belong together."""
    network = build_network(trained.config, len(trained.skeleton.keypoints)).eval()
    take_weights(network, trained.weights)
    return network
