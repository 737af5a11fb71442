"""The losses, one function each; `loss_sum` names them in a config and adds them up.

Each is a mean over the batch, whatever is labelled in it, so gradients averaged over ranks, or over the parts of an
accumulated batch, equal those of the joint batch. `weights` [B, K] say how much a keypoint counts; with 0 it gives no
gradient. Half-precision outputs are compared in float32.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from posesweep.trainables.codecs import float32_or_finer

# ---------------------------------------------------------------------------------------------- heatmaps, cell by cell


def heatmap_mse(
    heatmaps: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Squared error times the keypoint's weight, averaged over all B * K * h * w elements whether they count or not
    (mmpose's KeypointMSELoss with target weights)."""
    return (_squared_error(heatmaps, target) * weights).mean()


def heatmap_l1(
    heatmaps: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Absolute error, averaged as in `heatmap_mse`."""
    return ((float32_or_finer(heatmaps) - target).abs().mean(dim=(-2, -1)) * weights).mean()


def heatmap_focal(
    logits: Float[Tensor, "B K h w"],
    target: Float[Tensor, "B K h w"],
    weights: Float[Tensor, "B K"],
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """-|t - p|^gamma (alpha t log p + (1 - alpha) (1 - t) log(1 - p)), p = sigmoid(logits), averaged as `heatmap_mse`.

    RetinaNet's focal loss (Lin et al., 2017, eq. 5), whose alpha and gamma these are, made for targets t between 0 and
    1 as in the quality focal loss (Li et al., 2020, eq. 4). For t of 0 or 1 it is the former, for alpha 1/2 half the
    latter. It is 0 where p = t and nowhere less; with gamma below 1 it has no finite gradient there. (CornerNet's
    variant wants targets of exactly 1, which UDP has not.)
    """
    logits = float32_or_finer(logits)
    log_p, log_not_p = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    entropy = -alpha * target * log_p - (1 - alpha) * (1 - target) * log_not_p
    per_cell = (target - logits.sigmoid()).abs() ** gamma * entropy
    return (per_cell.mean(dim=(-2, -1)) * weights).mean()


def heatmap_ohkm(
    heatmaps: Float[Tensor, "B K h w"],
    target: Float[Tensor, "B K h w"],
    weights: Float[Tensor, "B K"],
    share: float = 0.5,
) -> Float[Tensor, ""]:
    """`heatmap_mse` of each sample's hardest keypoints only: see `hardest`."""
    return hardest(_squared_error(heatmaps, target) * weights, share)


# ---------------------------------------------------------------------------------------------- SimCC


def simcc_kl(
    logits: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], weights: Float[Tensor, "B K"], beta: float = 10.0
) -> Float[Tensor, ""]:
    """KL(softmax(beta * target) || softmax(beta * logits)), averaged over an axis's bins, summed over both axes, times
    the keypoint's weight, averaged over B * K. mmpose's KLDiscretLoss sums over the batch instead of averaging, so
    its gradients grow with the batch; ours at batch B are its divided by B."""
    return (_divergences(logits, target, beta) * weights).mean()


def simcc_ohkm(
    logits: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    weights: Float[Tensor, "B K"],
    beta: float = 10.0,
    share: float = 0.5,
) -> Float[Tensor, ""]:
    """`simcc_kl` of each sample's hardest keypoints only: see `hardest`."""
    return hardest(_divergences(logits, target, beta) * weights, share)


# ---------------------------------------------------------------------------------------------- coordinates


def smooth_l1(
    points: Float[Tensor, "B K 2"], truth: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"], beta: float = 1.0
) -> Float[Tensor, ""]:
    """d^2 / (2 beta) where the error d along an axis is below beta, else |d| - beta / 2 (Girshick, 2015; Huber's loss
    divided by beta), summed over x and y, averaged over B * K. Points and beta in network-input pixels."""
    distance = _distances(points, truth, weights)
    per_axis = torch.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)
    return (per_axis.sum(-1) * weights).mean()


def wing(
    points: Float[Tensor, "B K 2"],
    truth: Float[Tensor, "B K 2"],
    weights: Float[Tensor, "B K"],
    width: float = 10.0,
    epsilon: float = 2.0,
) -> Float[Tensor, ""]:
    """width * ln(1 + |d| / epsilon) where the error d along an axis is below width, else |d| - C, with C such that both
    meet (Feng et al., 2018, eq. 5), summed over x and y, averaged over B * K. All in network-input pixels."""
    distance = _distances(points, truth, weights)
    offset = width - width * math.log(1 + width / epsilon)
    per_axis = torch.where(distance < width, width * torch.log1p(distance / epsilon), distance - offset)
    return (per_axis.sum(-1) * weights).mean()


# ---------------------------------------------------------------------------------------------- what they are made of


def hardest(losses: Float[Tensor, "B K"], share: float) -> Float[Tensor, ""]:
    """The mean of the ceil(share * K) largest losses of each sample: online hard keypoint mining (Chen et al., 2018,
    take 8 of 17). Keypoints that weigh nothing have loss 0 and fill up where fewer are labelled."""
    count = max(1, math.ceil(share * losses.shape[1] - 1e-9))  # 0.28 * 25 is 7.000000000000001
    return losses.topk(count, dim=1).values.mean()


def _squared_error(heatmaps: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K"]:
    return ((float32_or_finer(heatmaps) - target) ** 2).mean(dim=(-2, -1))


def _divergences(logits: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], beta: float) -> Float[Tensor, "B K"]:
    x, y = (_divergence(float32_or_finer(p), t, beta).mean(-1) for p, t in zip(logits, target, strict=True))
    return x + y


def _divergence(logits: Float[Tensor, "B K n"], target: Float[Tensor, "B K n"], beta: float) -> Float[Tensor, "B K n"]:
    log_target = (beta * target).log_softmax(-1)
    log_predicted = torch.log_softmax(beta * logits, -1)
    return log_target.exp() * (log_target - log_predicted)


def _distances(
    points: Float[Tensor, "B K 2"], truth: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, "B K 2"]:
    """|points - truth|, 0 where a keypoint does not count: what is not labelled may be anywhere, or NaN."""
    return torch.where(weights[..., None] > 0, float32_or_finer(points) - truth, 0.0).abs()
