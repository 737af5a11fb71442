"""An exponential moving average of the weights: what is validated and saved when `ema` is set."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """`model` is the averaged copy, always in eval mode; batch-norm statistics are copied, not averaged.

    The decay warms up as min(decay, (1 + n) / (10 + n)) at update n from 0 (TensorFlow's rule): a training of a few
    hundred steps is not held back by the random weights it began with.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one optimizer step. `model` is the bare network, not a DDP wrapper."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates; the decay belongs to the config."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
