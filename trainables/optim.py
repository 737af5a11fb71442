"""Which parameters are trained, and how fast each layer learns.

A model states its layers in order from the input (`model.layers()`, the head last). torch's optimizers know nothing of
a learning-rate scale, so every parameter group carries "lr_scale" and `set_lr` multiplies it in.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import nn

from posesweep.errors import ConfigError

Layers = list[tuple[str, list[nn.Module]]]  # (name, its modules), in order from the input


@runtime_checkable
class LayeredModel(Protocol):
    """An nn.Module that states its layers in order from the input; the last one is the head."""

    def layers(self) -> Layers: ...


@dataclass(frozen=True)
class OptimizerSettings:
    """`lr0` is the head's learning rate before `head_lr_mult`; see `lr_scales` for the layers before it."""

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    lr0: float = 5e-4
    weight_decay: float = 0.0
    head_lr_mult: float = 1.0
    layer_decay: float = 1.0
    momentum: float = 0.9  # sgd only
    nesterov: bool = True  # sgd only


def freeze_layers(model: nn.Module, count: int) -> None:
    """The first `count` backbone layers take no gradient. With `train_mode` they stay bit for bit as they are.

    Raises ConfigError when the backbone has fewer layers.
    """
    for parameter in (p for module in _first_modules(model, count) for p in module.parameters()):
        parameter.requires_grad_(False)


def train_mode(model: nn.Module, frozen: int) -> None:
    """`model.train()`, except that the batch-norms of the first `frozen` layers keep their running statistics."""
    model.train()
    for module in _first_modules(model, frozen):
        module.eval()


def lr_scales(names: list[str], layer_decay: float, head_lr_mult: float) -> dict[str, float]:
    """Each layer's share of lr0: the head `head_lr_mult`, the last backbone layer layer_decay, the one before it
    layer_decay^2, and so on to the input (BEiT's and timm's convention; the head does not decay)."""
    *backbone, head = names
    scales = {name: layer_decay ** (len(backbone) - i) for i, name in enumerate(backbone)}
    return {**scales, head: head_lr_mult}


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """One or two groups per layer, with "name", "lr_scale" and lr = lr0 * lr_scale: "stage2" with weight decay, and
    "stage2/no_decay" for norms and biases. Frozen parameters are in none, so freeze first.

    Raises ConfigError for Nesterov's rule without momentum.
    """
    layers = _layers(model)
    scales = lr_scales([name for name, _ in layers], settings.layer_decay, settings.head_lr_mult)
    groups = []
    for name, modules in layers:
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        split = {
            name: ([p for p in trained if p.ndim > 1], settings.weight_decay),
            f"{name}/no_decay": ([p for p in trained if p.ndim <= 1], 0.0),  # norms and biases are the vectors
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


def _optimizer(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    if settings.name == "sgd":
        if settings.nesterov and not settings.momentum:
            raise ConfigError("nesterov: true needs momentum above 0; set nesterov: false or momentum: 0.9")
        return torch.optim.SGD(groups, settings.lr0, momentum=settings.momentum, nesterov=settings.nesterov)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name](groups, settings.lr0)


def _layers(model: nn.Module) -> Layers:
    return cast(LayeredModel, model).layers()


def _first_modules(model: nn.Module, count: int) -> list[nn.Module]:
    """The modules of the first `count` backbone layers."""
    *backbone, _head = _layers(model)
    if count > len(backbone):
        names = ", ".join(name for name, _ in backbone)
        raise ConfigError(f"freeze: {count} is more than the network's {len(backbone)} layers ({names})")
    return [module for _, modules in backbone[:count] for module in modules]
