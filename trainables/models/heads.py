"""What turns a feature map into keypoints: heatmaps, or SimCC's two classifications. RTMPose's head is in rtmcc.py."""

from jaxtyping import Float
from torch import Tensor, nn


class HeatmapHead(nn.Module):
    """One convolution to a map per keypoint; 1x1 as HRNet's (Sun et al., 2019) unless `kernel` says otherwise."""

    def __init__(self, in_channels: int, num_keypoints: int, kernel: int = 1) -> None:
        super().__init__()
        self.maps = nn.Conv2d(in_channels, num_keypoints, kernel, padding=kernel // 2)
        nn.init.normal_(self.maps.weight, std=0.001)  # small, so that training starts from empty heatmaps
        nn.init.zeros_(self.maps.get_parameter("bias"))

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        return self.maps(features)


class SimCCHead(nn.Module):
    """A map per keypoint, flattened, then a linear classifier over the bins of x and one over those of y
    (SimCC, Li et al., 2022). `map_size` and `bins` are (width, height)."""

    def __init__(self, in_channels: int, num_keypoints: int, map_size: tuple[int, int], bins: tuple[int, int]) -> None:
        super().__init__()
        self.maps = nn.Conv2d(in_channels, num_keypoints, 1)
        cells = map_size[0] * map_size[1]
        self.x = nn.Linear(cells, bins[0])
        self.y = nn.Linear(cells, bins[1])
        for classifier in (self.x, self.y):
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.zeros_(classifier.bias)

    def forward(
        self, features: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B K x_bins"], Float[Tensor, "B K y_bins"]]:
        flat = self.maps(features).flatten(2)
        return self.x(flat), self.y(flat)
