"""Gradient checkpointing (Chen et al., 2016): less memory for a second forward pass, with the same gradients."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from posesweep.trainables.optim import Layers


def recompute(layers: Layers) -> None:
    """What the blocks of these layers compute is not kept for the backward pass but computed again there.

    Parameters, their names, outputs and gradients stay as they are. A copy of the model recomputes as well.
    """
    modules = [part for _, parts in layers for part in parts if isinstance(part, nn.Module)]
    for block in (block for module in modules for block in _blocks(module)):
        # in place of the class's method, so that no name in the state dict changes; a bound method is copied with its
        # module (a closure would go on calling the module it was made for)
        block.forward = partial(_forward, block.forward, partial(_contexts, block))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The smallest modules worth recomputing: a container of blocks is not one, a single convolution is not either."""
    children = list(module.children())
    is_container = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
    if is_container and (not isinstance(module, nn.Sequential) or all(any(c.children()) for c in children)):
        for child in children:
            yield from _blocks(child)
    elif children:
        yield module


def _forward(forward: Callable[..., Any], contexts: Callable[[], Any], *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    return checkpoint(_on_copies, forward, *arguments, use_reentrant=False, context_fn=contexts)


def _on_copies(forward: Callable[..., Any], *arguments: Any) -> Any:
    """timm's HRNet writes into the list it is given, which must be the same the second time."""
    return forward(*(list(argument) if isinstance(argument, list) else argument for argument in arguments))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """One around the forward pass, one around its repetition."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms do not count the batch a second time: they write into copies of their statistics."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    statistics = [(norm, name, value) for norm in norms for name, value in norm.named_buffers(recurse=False)]
    for norm, name, value in statistics:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in statistics:
            setattr(norm, name, value)
