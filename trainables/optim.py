"""Which parameters are trained, and how fast each layer learns.

A model states its layers in order from the input (`model.layers()`, the head last). torch's optimizers know nothing of
a learning-rate scale, so every parameter group carries "lr_scale" and `set_lr` multiplies it in.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import nn

from posesweep.errors import ConfigError, did_you_mean

# (name, its modules), in order from the input; a parameter that is in no module of its own stands for itself
Layers = Sequence[tuple[str, Sequence[nn.Module | nn.Parameter]]]
OptimizerName = Literal["adam", "adamw", "sgd", "nadamw", "lion", "lamb", "adan"]
FROM_TIMM = ("nadamw", "lion", "lamb", "adan")
HEAD = "head"


@runtime_checkable
class LayeredModel(Protocol):
    """An nn.Module that states its layers in order from the input; the last one is the head."""

    def layers(self) -> Layers: ...


@runtime_checkable
class KeepsFromDecay(Protocol):
    """A module, the model or any inside it, with parameters that weight decay would harm (position embeddings)."""

    def no_weight_decay(self) -> Collection[str]:
        """Their names as its own `named_parameters` has them; names of parameters it does not have are harmless."""
        ...


@dataclass(frozen=True)
class OptimizerSettings:
    """`lr0` is the head's learning rate before `head_lr_mult`; see `lr_scales` for the layers before it.

    `betas` and `eps` None: those of the optimizer's own class.
    """

    name: OptimizerName = "adamw"
    lr0: float = 5e-4
    weight_decay: float = 0.0
    decay_norm_bias: bool = False
    head_lr_mult: float = 1.0
    layer_decay: float = 1.0
    lr_mult: Mapping[str, float] = field(default_factory=dict)  # layer -> factor
    betas: tuple[float, ...] | None = None  # not sgd
    eps: float | None = None  # neither sgd nor lion
    momentum: float = 0.9  # sgd only
    nesterov: bool = True  # sgd only


def frozen_layers(names: list[str], freeze: int, lr_mult: Mapping[str, float]) -> list[str]:
    """The layers that are not trained: the first `freeze` and those whose `lr_mult` is 0. `names`: head last.

    ConfigError when the backbone has fewer layers, a name in `lr_mult` is no layer, or nothing is left to train.
    """
    *backbone, _head = names
    if freeze > len(backbone):
        raise ConfigError(f"freeze: {freeze} is more than the network's {len(backbone)} layers ({', '.join(backbone)})")
    for name in lr_mult:
        if name not in names:
            raise ConfigError(f"lr_mult: the network has no layer '{name}'{did_you_mean(name, names)}")
    frozen = [name for i, name in enumerate(names) if i < freeze or lr_mult.get(name) == 0]
    if len(frozen) == len(names):
        raise ConfigError("lr_mult: every layer is frozen, so nothing would be trained; give one a factor above 0")
    return frozen


def freeze_layers(model: nn.Module, frozen: Collection[str]) -> None:
    """These layers take no gradient. With `train_mode` they stay bit for bit as they are."""
    for part in _parts(model, frozen):
        part.requires_grad_(False)


def train_mode(model: nn.Module, frozen: Collection[str]) -> None:
    """`model.train()`, except that the frozen layers' batch-norms keep their running statistics, and none of their
    dropout is active."""
    model.train()
    for part in _parts(model, frozen):
        if isinstance(part, nn.Module):
            part.eval()


def lr_scales(
    names: list[str], layer_decay: float, head_lr_mult: float, lr_mult: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """Each layer's share of lr0: the head `head_lr_mult`, the last backbone layer layer_decay, the one before it
    layer_decay^2, and so on to the input (BEiT's and timm's convention; the head does not decay); each times its own
    `lr_mult` where it has one."""
    *backbone, head = names
    scales = {name: layer_decay ** (len(backbone) - i) for i, name in enumerate(backbone)}
    return {name: scale * lr_mult.get(name, 1.0) for name, scale in {**scales, head: head_lr_mult}.items()}


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """One or two groups per layer, with "name", "lr_scale" and lr = lr0 * lr_scale: "stage2" with weight decay, and
    "stage2/no_decay" for norms, biases and what a module keeps from it (`KeepsFromDecay`). Frozen parameters are in
    none, so freeze first.

    Raises ConfigError for Nesterov's rule without momentum.
    """
    layers = cast(LayeredModel, model).layers()
    scales = lr_scales(layer_names_of(model), settings.layer_decay, settings.head_lr_mult, settings.lr_mult)
    kept = {id(p) for p in _kept_from_decay(model)}
    groups = []
    for name, parts in layers:
        trained = [p for part in parts for p in _parameters(part) if p.requires_grad]
        plain = {id(p) for p in trained if id(p) in kept or (p.ndim <= 1 and not settings.decay_norm_bias)}
        split = {
            name: ([p for p in trained if id(p) not in plain], settings.weight_decay),
            f"{name}/no_decay": ([p for p in trained if id(p) in plain], 0.0),  # norms and biases are the vectors
        }
        for group_name, (parameters, decay) in split.items():
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "name": group_name,
                        "lr_scale": scales[name],
                        "lr": settings.lr0 * scales[name],
                        "weight_decay": decay,
                    }
                )
    return _optimizer(groups, settings)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its "lr_scale"."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def layer_names_of(model: nn.Module) -> list[str]:
    """The model's layers in order from the input, the head last."""
    return [name for name, _ in cast(LayeredModel, model).layers()]


def _optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    if settings.name == "sgd":
        if settings.nesterov and not settings.momentum:
            raise ConfigError("nesterov: true needs momentum above 0; set nesterov: false or momentum: 0.9")
        return torch.optim.SGD(groups, settings.lr0, momentum=settings.momentum, nesterov=settings.nesterov)
    given: dict[str, Any] = {"betas": settings.betas, "eps": settings.eps}
    chosen = {name: value for name, value in given.items() if value is not None}
    if settings.name in FROM_TIMM:
        from timm.optim import get_optimizer_class  # here, not above: the other optimizers do without it

        make: Any = get_optimizer_class(settings.name)  # with the defaults of the name bound
        if settings.name == "lamb":
            chosen["max_grad_norm"] = None  # timm's clips at 1 unasked; `clip` is the setting
        return make(groups, lr=settings.lr0, **chosen)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name](groups, settings.lr0, **chosen)


def _parts(model: nn.Module, names: Collection[str]) -> list[nn.Module | nn.Parameter]:
    """What the named layers are made of."""
    return [part for name, parts in cast(LayeredModel, model).layers() if name in names for part in parts]


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def _kept_from_decay(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, KeepsFromDecay):
            named = dict(module.named_parameters())
            yield from (named[name] for name in module.no_weight_decay() if name in named)
