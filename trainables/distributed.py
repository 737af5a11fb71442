"""What the ranks of one training share; without a process group everything here is for one rank, itself."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_over_ranks(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each value over the ranks, the same on all of them. Every rank brings the same keys; `device` is
    where the backend works (NCCL: the rank's GPU)."""
    if world_size() == 1:
        return dict(values)
    names = sorted(values)
    # MPS and others have no doubles, but no process groups either
    total = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(names, (total / world_size()).tolist(), strict=True))


def gather_predictions(predictions: dict[int, Any]) -> dict[int, Any] | None:
    """All ranks' predictions by sample id on rank 0, None on the others. A sample that several ranks predicted is there
    once, as the lowest rank has it."""
    if world_size() == 1:
        return predictions
    parts: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(predictions, parts, dst=0)
    if parts is None:
        return None
    return {key: value for part in reversed(parts) for key, value in part.items()}


def from_rank_zero(value: Any) -> Any:
    """Rank 0's `value`, on every rank; what the others pass is ignored."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def convert_sync_batchnorm(model: nn.Module) -> nn.Module:
    """The model with batch-norms that use the statistics of the joint batch of all ranks, on GPU and on CPU.

    Move the model to its device first: on a GPU torch's own are taken, which refuse CPU tensors. The names of the
    weights do not change. Converts in place and returns the model (a new module only if it is a batch-norm itself).
    """
    if next(model.parameters()).device.type == "cuda":
        from timm.layers import convert_sync_batchnorm as convert  # torch's drops the activation of timm's batch-norms

        return convert(model)
    if isinstance(model, nn.BatchNorm2d):
        return SyncBatchNorm2d.of(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SyncBatchNorm2d.of(child))
    return model


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d whose training statistics are those of the joint batch of all ranks. Any backend, any device.

    timm's BatchNormAct2d drops and activates its output; so does what replaces it.
    """

    drop: nn.Module
    act: nn.Module

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SyncBatchNorm2d":
        """Like `norm`, sharing its weights and running statistics."""
        ours = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters():
            ours.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers():
            ours.register_buffer(name, buffer)
        ours.drop, ours.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        return ours.train(norm.training)

    def forward(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return self.act(self.drop(self._normalised(input)))

    def _normalised(self, input: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        if not self.training or world_size() == 1:
            return super().forward(input)
        output, mean, var, count = _JointNorm.apply(input, self.weight, self.bias, self.eps)
        self._track(mean, var * count / (count - 1))
        return output

    @torch.no_grad()
    def _track(self, mean: Float[Tensor, "C"], unbiased_var: Float[Tensor, "C"]) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return  # built with track_running_stats=False
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased_var, share)


class _JointNorm(torch.autograd.Function):
    """Batch normalisation over the joint batch: one exchange forward, one backward (Ioffe and Szegedy, 2015)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _joint_statistics(x.float())
        inverse = torch.rsqrt(var + eps)
        normalised = (x.float() - _wide(mean)) * _wide(inverse)
        output = normalised
        if weight is not None and bias is not None:
            output = normalised * _wide(weight) + _wide(bias)
        ctx.save_for_backward(normalised, inverse, weight, count)
        ctx.mark_non_differentiable(mean, var, count)
        return output.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        normalised, inverse, weight, count = ctx.saved_tensors
        g = gradient.float()
        sums = torch.stack([g.sum((0, 2, 3)), (g * normalised).sum((0, 2, 3))])
        grad_bias, grad_weight = sums.clone()  # of this rank; DDP averages them like all others
        dist.all_reduce(sums)
        mean_g, mean_gx = sums / count
        scale = inverse if weight is None else inverse * weight
        grad_x = (g - _wide(mean_g) - normalised * _wide(mean_gx)) * _wide(scale)
        if weight is None:
            return grad_x.to(gradient.dtype), None, None, None
        return grad_x.to(gradient.dtype), grad_weight, grad_bias, None


def _joint_statistics(x: Float[Tensor, "B C h w"]) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"], Float[Tensor, ""]]:
    """Mean, biased variance and number of values of the joint batch. Each rank's own mean and spread are combined, not
    sums of squares, whose difference loses all digits where the mean is large (Chan et al., 1979)."""
    channels = x.shape[1]
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    mine = torch.cat([mean, var, mean.new_tensor([x.numel() / channels])])
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(parts, mine)
    means, variances, counts = torch.stack(parts).split([channels, channels, 1], dim=1)
    total = counts.sum()
    joint = (means * counts).sum(0) / total
    spread = (variances + (means - joint) ** 2) * counts
    return joint, spread.sum(0) / total, total


def _wide(per_channel: Tensor) -> Tensor:
    return per_channel[None, :, None, None]
