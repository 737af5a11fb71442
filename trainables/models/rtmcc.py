"""RTMPose's head (RTMCC: Jiang et al., 2023): SimCC's classifiers after attention among the keypoints.

Its modules are called as OpenMMLab's, so `head.` of one of their checkpoints is `head.` here, key for key:
    final_layer.weight, final_layer.bias        [K, C, 7, 7], [K]
    mlp.0.g, mlp.1.weight                       [1], [256, cells]
    gau.uv.weight, gau.o.weight                 [1152, 256], [256, 512]
    gau.gamma, gau.beta                         [2, 128]
    gau.ln.g, gau.res_scale.scale               [1], [256]
    cls_x.weight, cls_y.weight                  [x bins, 256], [y bins, 256]
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 256  # numbers per keypoint
EXPANSION = 2  # of the gates and values, over HIDDEN
QUERY = 128  # numbers in a query or key
KERNEL = 7  # of the convolution to maps


class RTMCCHead(nn.Module):
    """A map per keypoint (7x7 convolution), flattened to a token of 256 numbers; one gated attention unit among the
    tokens; linear classifiers without bias over the bins of x and y. `map_size` and `bins` are (width, height)."""

    def __init__(self, in_channels: int, num_keypoints: int, map_size: tuple[int, int], bins: tuple[int, int]) -> None:
        super().__init__()
        cells = map_size[0] * map_size[1]
        self.final_layer = nn.Conv2d(in_channels, num_keypoints, KERNEL, padding=KERNEL // 2)
        self.mlp = nn.Sequential(ScaleNorm(cells), nn.Linear(cells, HIDDEN, bias=False))
        self.gau = GatedAttention()
        self.cls_x = nn.Linear(HIDDEN, bins[0], bias=False)
        self.cls_y = nn.Linear(HIDDEN, bins[1], bias=False)
        nn.init.normal_(self.final_layer.weight, std=0.001)
        nn.init.zeros_(self.final_layer.get_parameter("bias"))
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.01)

    def forward(
        self, features: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B K x_bins"], Float[Tensor, "B K y_bins"]]:
        tokens = self.gau(self.mlp(self.final_layer(features).flatten(2)))
        return self.cls_x(tokens), self.cls_y(tokens)


class GatedAttention(nn.Module):
    """Gated attention unit (Hua et al., 2022) as RTMPose uses it: one head, squared ReLU in place of softmax, no
    position encoding, the input added after a learned scale.

    u, v, z = SiLU(W norm(x)); q, k = z * gamma + beta; out = scale * x + W_o (u * relu(q k^T / sqrt(s))^2 v).
    """

    def __init__(self) -> None:
        super().__init__()
        expanded = EXPANSION * HIDDEN
        self.ln = ScaleNorm(HIDDEN)
        self.uv = nn.Linear(HIDDEN, 2 * expanded + QUERY, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, QUERY))
        self.beta = nn.Parameter(torch.rand(2, QUERY))
        self.o = nn.Linear(expanded, HIDDEN, bias=False)
        self.res_scale = Scale(HIDDEN)

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        expanded = EXPANSION * HIDDEN
        gates, values, shared = functional.silu(self.uv(self.ln(tokens))).split([expanded, expanded, QUERY], dim=-1)
        queries, keys = (shared[:, :, None] * self.gamma + self.beta).unbind(2)
        attention = functional.relu(queries @ keys.transpose(1, 2) / QUERY**0.5).square()
        return self.res_scale(tokens) + self.o(gates * (attention @ values))


class ScaleNorm(nn.Module):
    """x / (|x| / sqrt(width)) times one learned number (Nguyen and Salazar, 2019); the norm is at least 1e-5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True) * self.scale
        return tokens / norm.clamp(min=1e-5) * self.g


class Scale(nn.Module):
    """One learned factor per number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        return tokens * self.scale
