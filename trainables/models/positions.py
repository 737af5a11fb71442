"""A vision transformer's learned positions, moved to another grid of patches."""

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Grid = tuple[int, int]  # rows, columns of patches


def grid_of(network: nn.Module) -> Grid | None:
    """The patches of a network's input; None where it has no transformer."""
    sizes = (getattr(module, "grid_size", None) for name, module in network.named_modules() if "patch_embed" in name)
    return next((size for size in sizes if size is not None), None)


def moved_positions(
    there: Float[Tensor, "1 tokens C"], grid: Grid, told: Grid | None, class_token: bool
) -> tuple[Float[Tensor, "1 patches C"] | None, str]:
    """Positions of a checkpoint for a network of `grid` without class token, and what was done ("": nothing).

    `told` is the checkpoint's grid where it is known; else it is taken for this network's, a square one, or 4 high to
    3 wide as in crops of persons. The position of a class token is dropped with the token; where the checkpoint has
    none but a position for it, as in the ViTPose repository, it is added to every patch's, as the forward pass does
    there. Patches are interpolated bicubically, as ViTPose and mmpretrain do it. None: the grid cannot be told.
    """
    count = there.shape[1]
    source = told or _source_grid(count, grid, class_token)
    if source is None:
        return None, f"{count} positions in the file, of a grid that cannot be told: starts fresh"
    done = []
    patches = there[:, count - source[0] * source[1] :]
    if class_token:
        done.append("its class token's left out")
    elif patches.shape[1] < count:
        patches = patches + there[:, :1]
        done.append("its class token's added to every patch's")
    if source != grid:
        patches = _interpolated(patches, source, grid)
        done.append(f"interpolated from {source[0]}x{source[1]} to {grid[0]}x{grid[1]} patches")
    return patches, f"positions: {', '.join(done)}" if done else ""


def _source_grid(count: int, grid: Grid, class_token: bool) -> Grid | None:
    """What `count` positions may be of: likelier guesses first, and those without a class token's before others."""
    patches = (count - 1,) if class_token else (count, count - 1)
    if grid[0] * grid[1] in patches:
        return grid
    for number in patches:
        side, third = isqrt(number), isqrt(number // 12)
        if side * side == number:
            return side, side
        if 12 * third * third == number:
            return 4 * third, 3 * third
    return None


def _interpolated(patches: Float[Tensor, "1 a C"], source: Grid, grid: Grid) -> Float[Tensor, "1 b C"]:
    maps = patches.float().unflatten(1, source).permute(0, 3, 1, 2)
    moved = functional.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return torch.flatten(moved.permute(0, 2, 3, 1), 1, 2)
