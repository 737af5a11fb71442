"""Keypoints <-> what the network puts out: heatmaps (MSRA, UDP, DARK) and SimCC, a whole batch at a time on its device.

Points are network-input pixels, xy, the centre of the first pixel at (0, 0). The formulas follow mmpose's codecs where
the docstrings do not say otherwise.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Heatmaps [B, K, h, w], or a pair: logits over x [B, K, bins] and over y. No union: a codec takes its own kind only.
Outputs = Any
DARK_KERNEL = 11  # cells, as DARK's and UDP's for sigma 2; UDP takes 17 for sigma 3
DARK_LIMITS, UDP_LIMITS = (1e-10, math.inf), (1e-3, 50.0)  # of the blurred map before its logarithm (mmpose)
PRIOR = 0.01  # what an untrained network whose outputs are logits says of every cell (Lin et al., 2017)


@dataclass(frozen=True)
class Targets:
    """`values` has the shape of the network's outputs; `weights` is 1 where a keypoint counts, else 0."""

    values: Outputs
    weights: Float[Tensor, "B K"]


@runtime_checkable
class Codec(Protocol):
    """How keypoints are written for the loss and read from the network."""

    def encode(self, points: Float[Tensor, "B K 2"], visible: Bool[Tensor, "B K"]) -> Targets:
        """Targets on the device of `points`; a keypoint whose Gaussian lies wholly outside gets weight 0."""
        ...

    def decode(self, outputs: Outputs) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Points and scores (1 = as sharp as a target, 0 = nothing found)."""
        ...

    def expectation(self, outputs: Outputs, beta: float) -> Float[Tensor, "B K 2"]:
        """The mean position under softmax(beta * outputs): points with a gradient (Sun et al., 2018)."""
        ...

    def flip(self, outputs: Outputs, flip_index: Int[Tensor, "K"]) -> Outputs:
        """Outputs for the mirrored image, as outputs for the image itself: mirrored back, left and right exchanged."""
        ...


@dataclass(frozen=True)
class HeatmapCodec:
    """A map per keypoint with a Gaussian of `sigma` cells and peak 1.

    | udp | dark | cell of pixel x | the Gaussian | the maximum is refined by |
    |---|---|---|---|---|
    | no | no | x / stride | about the nearest cell, cut off at 3 sigma along x and y | a quarter cell |
    | no | yes | x / stride | not rounded, not cut off | DARK's Newton step |
    | yes | no | x * (w - 1) / (W - 1) | not rounded, cut off 3 sigma from the nearest cell | a quarter cell |
    | yes | yes | the same | the same | UDP's Newton step |

    These are MSRA (Xiao et al., 2018), DARK (Zhang et al., 2020) and UDP (Huang et al., 2020; its code and mmpose's
    have the last row only). Where 3 sigma is no whole number, mmpose's window ends a cell earlier on one side.
    """

    imgsz: tuple[int, int]  # network input, width and height in pixels
    sigma: float = 2.0
    udp: bool = False
    dark: bool = False
    stride: int = 4  # input pixels per cell
    blur_kernel: int = DARK_KERNEL  # cells, odd; of the blur before a Newton step
    sigmoid: bool = False  # the outputs are logits, 0 for PRIOR; the heatmaps are their sigmoid

    @property
    def map_size(self) -> tuple[int, int]:
        """Width and height of a heatmap in cells."""
        return self.imgsz[0] // self.stride, self.imgsz[1] // self.stride

    def encode(self, points: Float[Tensor, "B K 2"], visible: Bool[Tensor, "B K"]) -> Targets:
        """Heatmaps [B, K, h, w]: the product of a Gaussian along x and one along y, so no patch is ever copied."""
        points = points.float().where(visible[..., None], 0.0)  # no NaN of an unlabelled point reaches the loss
        cells = points / self._pixels_per_cell(points)
        nearest = torch.floor(cells + 0.5)
        centres = cells if self.udp or self.dark else nearest
        cut_off = self.udp or not self.dark
        along, weights = [], visible
        for axis, length in enumerate(self.map_size):
            grid = torch.arange(length, device=points.device)
            inside = (grid - nearest[..., axis, None]).abs() <= 3 * self.sigma
            weights = weights & inside.any(-1)
            values = _gaussian(grid - centres[..., axis, None], self.sigma)
            along.append(values * inside if cut_off else values)
        x, y = along
        return Targets(y[..., :, None] * x[..., None, :], weights.float())

    def decode(self, outputs: Float[Tensor, "B K h w"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Points from the highest cell of each map and its neighbours; the score is the map's maximum.

        An empty map gives its highest cell, too (mmpose: one cell outside the corner), and a score of 0 or less.
        """
        heatmaps = self.heatmaps(outputs)
        scores, position = heatmaps.flatten(2).max(-1)
        width = heatmaps.shape[-1]
        cells = torch.stack([position % width, position // width], -1)
        points = cells + self._offset(heatmaps, cells)
        return points * self._pixels_per_cell(points), scores

    def expectation(self, outputs: Float[Tensor, "B K h w"], beta: float) -> Float[Tensor, "B K 2"]:
        """The mean cell under the softmax of beta * heatmap over all cells, in input pixels."""
        heatmaps = self.heatmaps(outputs)
        probability = (beta * heatmaps.flatten(2)).softmax(-1).view_as(heatmaps)
        points = torch.stack([_mean_position(probability.sum(dim)) for dim in (-2, -1)], -1)
        return points * self._pixels_per_cell(points)

    def heatmaps(self, outputs: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The network's outputs as heatmaps with values like those of a target."""
        return self.logits(outputs).sigmoid() if self.sigmoid else float32_or_finer(outputs)

    def logits(self, outputs: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """The logits of the heatmaps, where the outputs are logits (`sigmoid`): those of PRIOR for outputs of 0, so
        that training need not first unlearn one half everywhere."""
        assert self.sigmoid, "these outputs are no logits"
        return float32_or_finer(outputs) + math.log(PRIOR / (1 - PRIOR))

    def flip(self, outputs: Float[Tensor, "B K h w"], flip_index: Int[Tensor, "K"]) -> Float[Tensor, "B K h w"]:
        """MSRA's cells do not mirror onto cells: as in HRNet, the map moves one cell to the right. UDP's do."""
        back = outputs.flip(-1)[:, flip_index]
        return back if self.udp else torch.cat([back[..., :1], back[..., :-1]], -1)

    def _offset(self, heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
        if not self.dark:
            return _quarter_cell(heatmaps, cells)
        blurred = _blur(heatmaps, self.blur_kernel)
        return _udp_step(_to_maximum(blurred, heatmaps), cells) if self.udp else _dark_step(blurred, cells)

    def _pixels_per_cell(self, like: Tensor) -> Tensor:
        ends = [(side - 1) / (cells - 1) for side, cells in zip(self.imgsz, self.map_size, strict=True)]
        return like.new_tensor(ends if self.udp else [float(self.stride)] * 2)


@dataclass(frozen=True)
class SimCCCodec:
    """A classification over `split` bins per pixel along x and one along y (SimCC: Li et al., 2022), with a Gaussian
    of `sigma` bins as the label (RTMPose: Jiang et al., 2023); `beta` is the inverse temperature of RTMPose's loss."""

    imgsz: tuple[int, int]  # network input, width and height in pixels
    sigma: float | tuple[float, float] = 5.66  # bins; for x and y, or one for both
    split: float = 2.0
    beta: float = 10.0

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and along y."""
        return round(self.imgsz[0] * self.split), round(self.imgsz[1] * self.split)

    def encode(self, points: Float[Tensor, "B K 2"], visible: Bool[Tensor, "B K"]) -> Targets:
        """Labels over x [B, K, x bins] and over y: exp(-d^2 / 2 sigma^2) about the nearest bin, peak 1, not cut off."""
        centres = (points.float().where(visible[..., None], 0.0) * self.split).round()
        weights = visible.clone()
        labels = []
        for axis, (length, sigma) in enumerate(zip(self.bins, self._sigmas(), strict=True)):
            centre = centres[..., axis]
            weights &= (centre >= -3 * sigma) & (centre <= length - 1 + 3 * sigma)
            labels.append(_gaussian(torch.arange(length, device=points.device) - centre[..., None], sigma))
        return Targets((labels[0], labels[1]), weights.float())

    def decode(self, outputs: tuple[Tensor, Tensor]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Points from the highest bin along each axis; the score is the lower of the two axes' probabilities there.

        The loss does not see a constant added to the logits, so the logits themselves are no score: here it is the
        highest probability relative to that of a perfect answer, the label's own softmax.
        """
        coordinates, scores = [], []
        for logits, sigma in zip(outputs, self._sigmas(), strict=True):
            probability, position = (self.beta * logits.float()).softmax(-1).max(-1)
            coordinates.append(position / self.split)
            label = _gaussian(torch.arange(logits.shape[-1], device=logits.device) - logits.shape[-1] // 2, sigma)
            scores.append((probability / (self.beta * label).softmax(-1).max()).clamp(max=1.0))
        return torch.stack(coordinates, -1), torch.minimum(*scores)

    def expectation(self, outputs: tuple[Tensor, Tensor], beta: float) -> Float[Tensor, "B K 2"]:
        """The mean bin of each axis under the softmax of beta * logits, in input pixels."""
        means = [_mean_position((beta * float32_or_finer(logits)).softmax(-1)) for logits in outputs]
        return torch.stack(means, -1) / self.split

    def flip(self, outputs: tuple[Tensor, Tensor], flip_index: Int[Tensor, "K"]) -> tuple[Tensor, Tensor]:
        """Pixel x mirrors to W - 1 - x, bin b therefore to bins - split - b: after reversing the bins, everything is
        split - 1 bins too far right (mmpose leaves it there)."""
        x, y = (logits[:, flip_index] for logits in outputs)
        too_far = round(self.split - 1)
        back = x.flip(-1)
        return torch.cat([back[..., too_far:], back[..., -1:].expand(*back.shape[:-1], too_far)], -1), y

    def _sigmas(self) -> tuple[float, float]:
        return self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)


def _gaussian(distance: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(distance.float() ** 2) / (2 * sigma**2))


def float32_or_finer(values: Tensor) -> Tensor:
    """In float32, or as they are where that is finer."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean_position(probability: Float[Tensor, "B K n"]) -> Float[Tensor, "B K"]:
    """sum_i i p_i; no matrix product, which autocast would do in half precision."""
    return (probability * torch.arange(probability.shape[-1], device=probability.device)).sum(-1)


def _quarter_cell(heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """A quarter cell along each axis toward the higher neighbour; none where one is missing or they are equal.

    HRNet's and mmpose's code leave out the second column and row, too, and mmpose more of the first: answers for a
    mirrored image would not be mirrored answers.
    """
    h, w = heatmaps.shape[-2:]
    right, left, down, up = _neighbours(heatmaps, cells, [(1, 0), (-1, 0), (0, 1), (0, -1)])
    inside = (cells > 0) & (cells < cells.new_tensor([w - 1, h - 1]))
    return 0.25 * torch.stack([right - left, down - up], -1).sign() * inside


def _dark_step(blurred: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """-H^-1 g of the log of the blurred map at the maximum, derivatives by central differences two cells apart (DARK,
    eq. 6-9); none within two cells of the border or where the map is not curved."""
    h, w = blurred.shape[-2:]
    at = _log_around(blurred, cells, 2, DARK_LIMITS)
    gradient = (at[1, 0] - at[-1, 0]) / 2, (at[0, 1] - at[0, -1]) / 2
    xx = (at[2, 0] - 2 * at[0, 0] + at[-2, 0]) / 4
    yy = (at[0, 2] - 2 * at[0, 0] + at[0, -2]) / 4
    xy = (at[1, 1] - at[1, -1] - at[-1, 1] + at[-1, -1]) / 4
    inside = ((cells >= 2) & (cells < cells.new_tensor([w - 2, h - 2]))).all(-1)
    return _newton_step(gradient, (xx, xy, yy)) * inside[..., None]


def _udp_step(blurred: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """The step of UDP's code and of mmpose's for UDP: differences of neighbouring cells, beyond the border the border's
    value, and float32's epsilon added to the diagonal of H."""
    at = _log_around(blurred, cells, 1, UDP_LIMITS)
    gradient = (at[1, 0] - at[-1, 0]) / 2, (at[0, 1] - at[0, -1]) / 2
    tiny = torch.finfo(torch.float32).eps
    xx = at[1, 0] - 2 * at[0, 0] + at[-1, 0] + tiny
    yy = at[0, 1] - 2 * at[0, 0] + at[0, -1] + tiny
    xy = (at[1, 1] - at[1, 0] - at[0, 1] + 2 * at[0, 0] - at[-1, 0] - at[0, -1] + at[-1, -1]) / 2
    return _newton_step(gradient, (xx, xy, yy))


def _log_around(
    blurred: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"], reach: int, limits: tuple[float, float]
) -> dict[tuple[int, int], Float[Tensor, "B K"]]:
    """Step (x, y) of up to `reach` cells -> the logarithm there, of the value brought within `limits`."""
    steps = [(x, y) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    return {
        step: value.clamp(*limits).log() for step, value in zip(steps, _neighbours(blurred, cells, steps), strict=True)
    }


def _newton_step(gradient: tuple[Tensor, Tensor], hessian: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "B K 2"]:
    """-H^-1 g for `hessian` (xx, xy, yy); none where it cannot be inverted."""
    gx, gy = gradient
    xx, xy, yy = hessian
    determinant = xx * yy - xy**2
    curved = determinant != 0
    divisor = determinant.where(curved, 1.0)
    step = torch.stack([(xy * gy - yy * gx) / divisor, (xy * gx - xx * gy) / divisor], -1)
    return step * curved[..., None]


def _neighbours(
    heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"], steps: list[tuple[int, int]]
) -> list[Float[Tensor, "B K"]]:
    """The values one `step` (x, y) from each cell; beyond the border, that of the border."""
    h, w = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)
    x, y = cells.unbind(-1)
    index = torch.stack([(y + dy).clamp(0, h - 1) * w + (x + dx).clamp(0, w - 1) for dx, dy in steps], -1)
    return list(flat.gather(-1, index).unbind(-1))


def _blur(heatmaps: Float[Tensor, "B K h w"], kernel: int) -> Float[Tensor, "B K h w"]:
    """DARK's Gaussian blur, zeros beyond the border, as a banded matrix along each axis: 10x faster here."""
    h, w = map(int, heatmaps.shape[-2:])  # numbers also where the graph is traced, as it is for ONNX
    with torch.autocast(heatmaps.device.type, enabled=False):  # eight bits are too few for second differences of a log
        return _blur_matrix(h, kernel, heatmaps.device) @ heatmaps @ _blur_matrix(w, kernel, heatmaps.device)


def _blur_matrix(length: int, kernel: int, device: torch.device) -> Float[Tensor, "length length"]:
    """The kernel's sigma is what OpenCV derives from its size: 2 cells for 11, 2.9 for 17."""
    reach = kernel // 2
    sigma = 0.3 * (reach - 1) + 0.8
    kernel_sum = _gaussian(torch.arange(-reach, reach + 1), sigma).sum().item()
    cells = torch.arange(length, device=device)
    distance = (cells[:, None] - cells).abs()
    return _gaussian(distance, sigma) * (distance <= reach) / kernel_sum


def _to_maximum(blurred: Float[Tensor, "B K h w"], heatmaps: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
    """The blurred maps with the maxima that the maps had, which matters to UDP_LIMITS; 0 where nothing is positive."""
    before, after = heatmaps.amax((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
    return blurred * (before / after).where(after > 0, 0.0)
