"""The losses. Both are means over the batch, so gradients averaged over ranks equal those of the joint batch."""

import torch
from jaxtyping import Float
from torch import Tensor


def heatmap_mse(
    heatmaps: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Squared error times the keypoint's weight, averaged over all B * K * h * w elements whether they count or not
    (mmpose's KeypointMSELoss with target weights)."""
    squared = (heatmaps.float() - target) ** 2
    return (squared.mean(dim=(-2, -1)) * weights).mean()


def simcc_kl(
    logits: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], weights: Float[Tensor, "B K"], beta: float = 10.0
) -> Float[Tensor, ""]:
    """KL(softmax(beta * target) || softmax(beta * logits)), averaged over an axis's bins, summed over both axes, times
    the keypoint's weight, averaged over B * K. mmpose's KLDiscretLoss sums over the batch instead of averaging, so
    its gradients grow with the batch; ours at batch B are its divided by B."""
    per_axis = [_divergence(p.float(), t, beta).mean(-1) for p, t in zip(logits, target, strict=True)]
    return ((per_axis[0] + per_axis[1]) * weights).mean()


def _divergence(logits: Float[Tensor, "B K n"], target: Float[Tensor, "B K n"], beta: float) -> Float[Tensor, "B K n"]:
    log_target = (beta * target).log_softmax(-1)
    log_predicted = torch.log_softmax(beta * logits, -1)
    return log_target.exp() * (log_target - log_predicted)
