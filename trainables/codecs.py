"""Keypoints <-> what the network puts out: heatmaps (MSRA, UDP, DARK) and SimCC, a whole batch at a time on its device.

Points are network-input pixels, xy, the centre of the first pixel at (0, 0). The formulas follow mmpose's codecs where
the docstrings do not say otherwise.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Heatmaps [B, K, h, w], or a pair: logits over x [B, K, bins] and over y. No union: a codec takes its own kind only.
Outputs = Any
DARK_KERNEL = 11  # cells, as DARK's for sigma 2
DARK_SIGMA = 2.0  # cells; what OpenCV derives from that kernel: 0.3 * ((11 - 1) / 2 - 1) + 0.8


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

    def flip(self, outputs: Outputs, flip_index: Int[Tensor, "K"]) -> Outputs:
        """Outputs for the mirrored image, as outputs for the image itself: mirrored back, left and right exchanged."""
        ...


@dataclass(frozen=True)
class HeatmapCodec:
    """A map per keypoint with a Gaussian of `sigma` cells, peak 1, cut off at 3 sigma along x and y.

    Without `udp` the Gaussian sits on the nearest cell (MSRA: Xiao et al., 2018); with it, it is not rounded and cell
    coordinates are x * (w - 1) / (W - 1) (UDP: Huang et al., 2020). `dark` refines the maximum by one Newton step on
    the log of the blurred map (DARK: Zhang et al., 2020), else it moves a quarter cell toward the higher neighbour.
    """

    imgsz: tuple[int, int]  # network input, width and height in pixels
    sigma: float = 2.0
    udp: bool = False
    dark: bool = False
    stride: int = 4  # input pixels per cell

    @property
    def map_size(self) -> tuple[int, int]:
        """Width and height of a heatmap in cells."""
        return self.imgsz[0] // self.stride, self.imgsz[1] // self.stride

    def encode(self, points: Float[Tensor, "B K 2"], visible: Bool[Tensor, "B K"]) -> Targets:
        """Heatmaps [B, K, h, w]: the product of a Gaussian along x and one along y, so no patch is ever copied."""
        points = points.float().where(visible[..., None], 0.0)  # no NaN of an unlabelled point reaches the loss
        cells = points / self._pixels_per_cell(points)
        nearest = torch.floor(cells + 0.5)
        centres = cells if self.udp else nearest
        along = []
        for axis, length in enumerate(self.map_size):
            grid = torch.arange(length, device=points.device)
            inside = (grid - nearest[..., axis, None]).abs() <= 3 * self.sigma
            along.append(_gaussian(grid - centres[..., axis, None], self.sigma) * inside)
        x, y = along
        weights = visible & (x > 0).any(-1) & (y > 0).any(-1)
        return Targets(y[..., :, None] * x[..., None, :], weights.float())

    def decode(self, outputs: Float[Tensor, "B K h w"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Points from the highest cell of each map and its neighbours; the score is the map's maximum."""
        heatmaps = outputs.float()
        scores, position = heatmaps.flatten(2).max(-1)
        width = heatmaps.shape[-1]
        cells = torch.stack([position % width, position // width], -1)
        offset = _newton_step(heatmaps, cells) if self.dark else _quarter_cell(heatmaps, cells)
        points = cells + offset
        return points * self._pixels_per_cell(points), scores

    def flip(self, outputs: Float[Tensor, "B K h w"], flip_index: Int[Tensor, "K"]) -> Float[Tensor, "B K h w"]:
        """MSRA's cells do not mirror onto cells: as in HRNet, the map moves one cell to the right. UDP's do."""
        back = outputs.flip(-1)[:, flip_index]
        return back if self.udp else torch.cat([back[..., :1], back[..., :-1]], -1)

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


def _quarter_cell(heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """A quarter cell along each axis toward the higher neighbour; none where one is missing or they are equal."""
    h, w = heatmaps.shape[-2:]
    right, left, down, up = _neighbours(heatmaps, cells, [(1, 0), (-1, 0), (0, 1), (0, -1)])
    inside = (cells > 0) & (cells < cells.new_tensor([w - 1, h - 1]))
    return 0.25 * torch.stack([right - left, down - up], -1).sign() * inside


def _newton_step(heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """-H^-1 g of the log of the blurred map at the maximum, derivatives by central differences (DARK, eq. 6-9);
    none within two cells of the border or where the map is not curved."""
    h, w = heatmaps.shape[-2:]
    steps = [(x, y) for y in range(-2, 3) for x in range(-2, 3)]
    blurred = _neighbours(_blur(heatmaps), cells, steps)
    around = {step: value.clamp(min=1e-10).log() for step, value in zip(steps, blurred, strict=True)}
    gx = (around[1, 0] - around[-1, 0]) / 2
    gy = (around[0, 1] - around[0, -1]) / 2
    xx = (around[2, 0] - 2 * around[0, 0] + around[-2, 0]) / 4
    yy = (around[0, 2] - 2 * around[0, 0] + around[0, -2]) / 4
    xy = (around[1, 1] - around[1, -1] - around[-1, 1] + around[-1, -1]) / 4
    determinant = xx * yy - xy**2
    curved = determinant.abs() > 0
    divisor = determinant.where(curved, 1.0)
    step = torch.stack([(xy * gy - yy * gx) / divisor, (xy * gx - xx * gy) / divisor], -1)
    inside = ((cells >= 2) & (cells < cells.new_tensor([w - 2, h - 2]))).all(-1)
    return step * (inside & curved)[..., None]


def _neighbours(
    heatmaps: Float[Tensor, "B K h w"], cells: Int[Tensor, "B K 2"], steps: list[tuple[int, int]]
) -> list[Float[Tensor, "B K"]]:
    """The values one `step` (x, y) from each cell; beyond the border, that of the border."""
    h, w = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)
    x, y = cells.unbind(-1)
    index = torch.stack([(y + dy).clamp(0, h - 1) * w + (x + dx).clamp(0, w - 1) for dx, dy in steps], -1)
    return list(flat.gather(-1, index).unbind(-1))


def _blur(heatmaps: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
    """DARK's Gaussian blur, zeros beyond the border, as a banded matrix along each axis: 10x faster here."""
    h, w = heatmaps.shape[-2:]
    with torch.autocast(heatmaps.device.type, enabled=False):  # eight bits are too few for second differences of a log
        return _blur_matrix(h, heatmaps.device) @ heatmaps @ _blur_matrix(w, heatmaps.device)


def _blur_matrix(length: int, device: torch.device) -> Float[Tensor, "length length"]:
    reach = DARK_KERNEL // 2
    kernel_sum = _gaussian(torch.arange(-reach, reach + 1), DARK_SIGMA).sum().item()
    cells = torch.arange(length, device=device)
    distance = (cells[:, None] - cells).abs()
    return _gaussian(distance, DARK_SIGMA) * (distance <= reach) / kernel_sum
