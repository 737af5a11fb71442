"""What a codec alone costs: points are encoded, and the targets, as if a network had learned them perfectly, decoded.

The error is the distance in network-input pixels. "Anywhere" points lie in the whole input, "inner" ones 40 px or more
from its border, where no window and no blur is cut. "Flip test" is "inner" with the target of the mirrored image,
mirrored back and averaged in, as in validation.

    OMP_NUM_THREADS=1 python benchmarks/codecs.py
"""

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from posesweep.trainables.codecs import HeatmapCodec, SimCCCodec
from posesweep.trainables.tasks.topdown import average

POINTS, PER_SAMPLE = 4_000, 20
BORDER_PX = 40
SIZES = ((192, 256), (256, 256))  # width, height


def codecs(imgsz: tuple[int, int]) -> dict[str, HeatmapCodec | SimCCCodec]:
    """Each with its usual sigma: 2 cells, 5.66 bins."""
    return {
        "heatmap (MSRA)": HeatmapCodec(imgsz),
        "heatmap, dark": HeatmapCodec(imgsz, dark=True),
        "heatmap, udp": HeatmapCodec(imgsz, udp=True),
        "heatmap, udp, dark": HeatmapCodec(imgsz, udp=True, dark=True),
        "simcc, split 2": SimCCCodec(imgsz, split=2.0),
    }


def random_points(imgsz: tuple[int, int], border_px: int) -> Tensor:
    """Points [B, K, 2] at least `border_px` within the input."""
    unit = torch.rand(POINTS // PER_SAMPLE, PER_SAMPLE, 2, generator=torch.Generator().manual_seed(0))
    return border_px + unit * (torch.tensor(imgsz) - 1 - 2 * border_px)


def round_trip(codec: HeatmapCodec | SimCCCodec, points: Tensor, flip_test: bool = False) -> Tensor:
    """The error of each point, in input pixels."""
    visible = torch.ones(points.shape[:2], dtype=torch.bool)
    outputs = codec.encode(points, visible).values
    if flip_test:
        mirrored = points.clone()
        mirrored[..., 0] = codec.imgsz[0] - 1 - points[..., 0]
        back = codec.flip(codec.encode(mirrored, visible).values, torch.arange(points.shape[1]))
        outputs = average(outputs, back)
    return (codec.decode(outputs)[0] - points).norm(dim=-1).flatten()


def main() -> None:
    """Print the table; in each cell the median and the error that 95 % of the points do not exceed."""
    table = Table("codec", "input", "anywhere: median, 95 % px", "inner: median, 95 % px", "flip test: median, 95 % px")
    for imgsz in SIZES:
        anywhere, inner = random_points(imgsz, 0), random_points(imgsz, BORDER_PX)
        for name, codec in codecs(imgsz).items():
            errors = round_trip(codec, anywhere), round_trip(codec, inner), round_trip(codec, inner, flip_test=True)
            cells = [f"{error.median():.3f}  {error.quantile(0.95):.3f}" for error in errors]
            table.add_row(name, f"{imgsz[0]}x{imgsz[1]}", *cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
