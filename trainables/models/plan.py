"""What is known of a network before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]  # of one network: name -> value


@dataclass(frozen=True)
class Plan:
    """`layers` are the backbone's in order from the input: what `freeze` and `layer_decay` count.

    Input width and height must be multiples of `stride` pixels.
    """

    layers: tuple[str, ...]
    stride: int
