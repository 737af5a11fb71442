"""What a config's `loss:` names: one loss, `mse`, or a weighted sum of several, `focal + 0.1 l1`.

The sum is text, so it is a value like any other: fixed, one of the `values` that a sweep searches, or on the command
line. NAMED is all that is known of each loss; the formulas are in `losses`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from posesweep.errors import ConfigError, did_you_mean
from posesweep.trainables.codecs import Codec, HeatmapCodec, Outputs, SimCCCodec
from posesweep.trainables.losses import (
    heatmap_focal,
    heatmap_l1,
    heatmap_mse,
    heatmap_ohkm,
    simcc_kl,
    simcc_ohkm,
    smooth_l1,
    wing,
)
from posesweep.trainables.task import LossParts

# The mean of a target, and of one half as high, is then within 1 px of its centre; at 10 the background of a heatmap
# pulls it 4 px to the middle, at half the height 65 px
SOFTARGMAX_BETA = 25.0
BALANCE = "loss_log_variances"  # the name of the learned balance among the head's parameters
OTHER_NAMES = {"l2": "mse", "heatmap_mse": "mse", "huber": "smooth_l1", "focal_l1": "focal + 0.1 l1", "simcc_kl": "kl"}

_TERM = re.compile(r"(?:(?P<weight>[\d.]+(?:e-?\d+)?)\s*\*?\s*)?(?P<name>[a-z]\w*)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What a loss looks at: the network's outputs for a batch, and the truth."""

    codec: Codec
    outputs: Outputs
    targets: Outputs  # as the codec encodes `points`
    points: Float[Tensor, "B K 2"]  # network-input pixels, xy
    weights: Float[Tensor, "B K"]


# ---------------------------------------------------------------------------------------------- each loss by its name


def _heatmaps(answer: Answer) -> Float[Tensor, "B K h w"]:
    assert isinstance(answer.codec, HeatmapCodec), "held by misfits()"
    return answer.codec.heatmaps(answer.outputs)


def _mse(answer: Answer) -> Float[Tensor, ""]:
    return heatmap_mse(_heatmaps(answer), answer.targets, answer.weights)


def _l1(answer: Answer) -> Float[Tensor, ""]:
    return heatmap_l1(_heatmaps(answer), answer.targets, answer.weights)


def _focal(answer: Answer, focal_alpha: float, focal_gamma: float) -> Float[Tensor, ""]:
    assert isinstance(answer.codec, HeatmapCodec), "held by misfits()"
    logits = answer.codec.logits(answer.outputs)
    return heatmap_focal(logits, answer.targets, answer.weights, focal_alpha, focal_gamma)


def _kl(answer: Answer) -> Float[Tensor, ""]:
    assert isinstance(answer.codec, SimCCCodec), "held by misfits()"
    return simcc_kl(answer.outputs, answer.targets, answer.weights, answer.codec.beta)


def _ohkm(answer: Answer, ohkm_top: float) -> Float[Tensor, ""]:
    if isinstance(answer.codec, SimCCCodec):
        return simcc_ohkm(answer.outputs, answer.targets, answer.weights, answer.codec.beta, ohkm_top)
    return heatmap_ohkm(_heatmaps(answer), answer.targets, answer.weights, ohkm_top)


def _smooth_l1(answer: Answer, softargmax_beta: float, smooth_l1_beta: float) -> Float[Tensor, ""]:
    points = answer.codec.expectation(answer.outputs, softargmax_beta)
    return smooth_l1(points, answer.points, answer.weights, smooth_l1_beta)


def _wing(answer: Answer, softargmax_beta: float, wing_width: float, wing_epsilon: float) -> Float[Tensor, ""]:
    points = answer.codec.expectation(answer.outputs, softargmax_beta)
    return wing(points, answer.points, answer.weights, wing_width, wing_epsilon)


@dataclass(frozen=True)
class Named:
    """All that is known of a loss besides its formula.

    `variance_share`: under a learned balance a loss counts share * exp(-s) + s / 2, with s the log of a variance:
    1/2 for a distance (a Gaussian's log-likelihood, Kendall et al., 2018, eq. 7), 1 for the cross-entropy of a
    classification (eq. 10).
    """

    codecs: tuple[str, ...]
    compute: Callable[..., Tensor]  # of an Answer and the loss's own settings
    variance_share: float
    settings: Mapping[str, float] = field(default_factory=dict)  # that exist only with this loss, and their defaults


NAMED = {
    "mse": Named(("heatmap",), _mse, 0.5),
    "focal": Named(("heatmap",), _focal, 1.0, {"focal_alpha": 0.25, "focal_gamma": 2.0}),
    "l1": Named(("heatmap",), _l1, 0.5),
    "kl": Named(("simcc",), _kl, 1.0),
    "ohkm": Named(("heatmap", "simcc"), _ohkm, 0.5, {"ohkm_top": 0.5}),
    "smooth_l1": Named(
        ("heatmap", "simcc"), _smooth_l1, 0.5, {"softargmax_beta": SOFTARGMAX_BETA, "smooth_l1_beta": 1.0}
    ),
    "wing": Named(
        ("heatmap", "simcc"),
        _wing,
        0.5,
        {"softargmax_beta": SOFTARGMAX_BETA, "wing_width": 10.0, "wing_epsilon": 2.0},
    ),
}
SETTINGS = {name: loss for loss, named in reversed(NAMED.items()) for name in named.settings}  # setting -> a loss


# ---------------------------------------------------------------------------------------------- reading `loss:`


def read_loss(text: str) -> dict[str, float]:
    """'focal + 0.1 l1' -> {'focal': 1.0, 'l1': 0.1}. Raises ConfigError with one sentence."""
    weights: dict[str, float] = {}
    for part in text.split("+"):
        name, weight = _read_term(part.strip(), text)
        if name in weights:
            raise ConfigError(f"'{text}' has {name} twice; keep one")
        weights[name] = weight
    return weights


def _read_term(part: str, text: str) -> tuple[str, float]:
    found = _TERM.fullmatch(part)
    try:
        weight = float(found["weight"] or 1.0) if found else math.nan
    except ValueError:  # 1.2.3
        found = None
    if found is None:
        raise ConfigError(
            f"'{text}' is no sum of losses; write one loss, such as mse, or a sum, such as mse + 0.1 wing"
        )
    name = found["name"]
    if name not in NAMED:
        meant = f"; write '{OTHER_NAMES[name]}'" if name in OTHER_NAMES else did_you_mean(name, NAMED)
        raise ConfigError(f"there is no loss '{name}'{meant}")
    if not 0 < weight < math.inf:
        raise ConfigError(f"'{part}' must weigh more than 0; take it out, or write 0.1 {name}")
    return name, weight


def settings_of(losses: Iterable[str]) -> dict[str, float]:
    """The settings that the named losses have, and their defaults."""
    return {setting: default for name in losses for setting, default in NAMED[name].settings.items()}


def misfit(losses: Iterable[str], codec: str) -> str | None:
    """What is wrong with using these losses with a codec, in one sentence."""
    fitting = [name for name, named in NAMED.items() if codec in named.codecs]
    foreign = next((name for name in losses if name not in fitting), None)
    if foreign is None:
        return None
    choice = f"{', '.join(fitting[:-1])} or {fitting[-1]}"
    return f"{foreign} needs codec: {NAMED[foreign].codecs[0]}; with codec: {codec} use {choice}"


# ---------------------------------------------------------------------------------------------- adding up


class LossSum:
    """The weighted sum of losses. `settings` are the values of `settings_of(weights)`."""

    def __init__(self, weights: Mapping[str, float], settings: Mapping[str, Any]) -> None:
        self.weights = dict(weights)
        self._settings = {name: {key: settings[key] for key in NAMED[name].settings} for name in weights}

    def __call__(self, answer: Answer, log_variances: Float[Tensor, "n"] | None = None) -> LossParts:
        """The total, and each loss by itself, unweighted, where there are several.

        With `log_variances` s the total is sum_i share_i exp(-s_i) w_i L_i + s_i / 2 (Kendall et al., 2018; shares in
        `Named`), and the factors w_i * share_i * exp(-s_i) are logged, too.
        """
        parts = {name: NAMED[name].compute(answer, **own) for name, own in self._settings.items()}
        if log_variances is None:
            total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
            return LossParts(total, parts if len(parts) > 1 else {})
        shares = [NAMED[name].variance_share for name in parts]
        factors = {
            name: self.weights[name] * share * (-s).exp()
            for (name, share, s) in zip(parts, shares, log_variances, strict=True)
        }
        total = torch.stack([factors[name] * part for name, part in parts.items()]).sum() + log_variances.sum() / 2
        return LossParts(total, parts | {f"factor_{name}": factor for name, factor in factors.items()})


def add_balance(network: nn.Module, count: int) -> None:
    """Give a network's head `count` log-variances, 0 at first, as parameters: optimizer, checkpoints, averages of the
    weights and DDP treat them as any other, and they learn as fast as the head."""
    network.get_submodule("head").register_parameter(BALANCE, nn.Parameter(torch.zeros(count)))


def balance_of(model: nn.Module) -> Float[Tensor, "n"]:
    """The log-variances that `add_balance` gave a network, which may stand in a DDP wrapper by now."""
    network = model.module if isinstance(model, DistributedDataParallel) else model
    return network.get_submodule("head").get_parameter(BALANCE)


# ---------------------------------------------------------------------------------------------- weights of keypoints


def importance(
    visibility: UInt8[Tensor, "B K"], hidden_weight: float, keypoint_weights: Float[Tensor, "K"]
) -> Float[Tensor, "B K"]:
    """Each keypoint's own weight, times `hidden_weight` where it is labelled but hidden (visibility 1)."""
    return torch.where(visibility == 1, hidden_weight, 1.0) * keypoint_weights


def weights_by_name(weights: Mapping[str, float], keypoints: Iterable[str]) -> list[float]:
    """The weight of each keypoint, 1 where none is given. Raises ConfigError for a name the skeleton does not have."""
    names = list(keypoints)
    for name in weights:
        if name not in names:
            raise ConfigError(f"keypoint_weights: there is no keypoint '{name}'{did_you_mean(name, names)}")
    return [float(weights.get(name, 1.0)) for name in names]
