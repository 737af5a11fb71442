"""RTMPose's head against its formulas, and under OpenMMLab's names."""

import math

import torch

from posesweep.trainables.models import build_model
from posesweep.trainables.models.rtmcc import GatedAttention, RTMCCHead, ScaleNorm

OPENMMLAB = {  # names and shapes in mmpose's rtmpose checkpoints, 17 keypoints at 256x192, m
    "final_layer.weight": (17, 768, 7, 7),
    "final_layer.bias": (17,),
    "mlp.0.g": (1,),
    "mlp.1.weight": (256, 48),
    "gau.gamma": (2, 128),
    "gau.beta": (2, 128),
    "gau.o.weight": (256, 512),
    "gau.uv.weight": (1152, 256),
    "gau.ln.g": (1,),
    "gau.res_scale.scale": (256,),
    "cls_x.weight": (384, 256),
    "cls_y.weight": (512, 256),
}


def silu(x):
    return x / (1 + math.exp(-x))


def scale_normed(row, g, floor=1e-5):
    norm = math.sqrt(sum(v * v for v in row)) / math.sqrt(len(row))
    return [v / max(norm, floor) * g for v in row]


def by_loops(unit, tokens):
    """RTMPose's gated attention for one image, number by number, from the formulas."""
    state = {name: value.double().tolist() for name, value in unit.state_dict().items()}
    rows = []
    for token in tokens.double().tolist():
        normed = scale_normed(token, state["ln.g"][0])
        rows.append([silu(sum(w * v for w, v in zip(row, normed, strict=True))) for row in state["uv.weight"]])
    gates, values, shared = zip(*((r[:512], r[512:1024], r[1024:]) for r in rows), strict=True)
    (scale_q, scale_k), (shift_q, shift_k) = state["gamma"], state["beta"]
    queries = [[z * g + b for z, g, b in zip(row, scale_q, shift_q, strict=True)] for row in shared]
    keys = [[z * g + b for z, g, b in zip(row, scale_k, shift_k, strict=True)] for row in shared]
    out = []
    for i, token in enumerate(tokens.double().tolist()):
        dots = [sum(q * k for q, k in zip(queries[i], key, strict=True)) / math.sqrt(128) for key in keys]
        attention = [max(0.0, dot) ** 2 for dot in dots]
        mixed = [sum(a * value[c] for a, value in zip(attention, values, strict=True)) for c in range(512)]
        gated = [gate * m for gate, m in zip(gates[i], mixed, strict=True)]
        added = [sum(w * v for w, v in zip(row, gated, strict=True)) for row in state["o.weight"]]
        out.append([v * s + a for v, s, a in zip(token, state["res_scale.scale"], added, strict=True)])
    return torch.tensor(out, dtype=torch.double)


def test_gated_attention_against_loops():
    torch.manual_seed(0)
    unit = GatedAttention()
    for parameter in unit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(1, 3, 256)
    with torch.no_grad():
        got = unit(tokens)[0].double()
    expected = by_loops(unit, tokens[0])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)
    assert (expected - tokens[0]).abs().mean() > 0.1  # attention took part


def test_keypoints_attend_to_one_another():
    unit = GatedAttention()
    tokens = torch.randn(1, 4, 256)
    changed = tokens.clone()
    changed[0, 3] += 1
    assert not torch.equal(unit(tokens)[0, 0], unit(changed)[0, 0])


def test_scale_norm_by_hand():
    """(3, 4) has norm 5, over sqrt(2) 3.5355; a row of zeros stays zero."""
    norm = ScaleNorm(2)
    norm.g.data.fill_(2.0)
    expected = [[[3 / 3.5355 * 2, 4 / 3.5355 * 2], [0.0, 0.0]]]
    torch.testing.assert_close(
        norm(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])), torch.tensor(expected), rtol=1e-4, atol=0
    )


def test_names_and_shapes_are_openmmlabs():
    with torch.device("meta"):
        head = build_model("rtmpose_m", 17, (192, 256), simcc_split=2.0).head
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == OPENMMLAB


def test_the_head_begins_as_the_reference_does():
    torch.manual_seed(0)
    head = RTMCCHead(768, 17, (6, 8), (384, 512))
    assert abs(head.final_layer.weight.std().item() - 0.001) < 5e-5
    for name in ("mlp.1", "gau.uv", "gau.o", "cls_x", "cls_y"):
        assert abs(head.get_submodule(name).weight.std().item() - 0.01) < 5e-4, name
    assert not head.final_layer.bias.any()
    assert 0 <= head.gau.gamma.min() < head.gau.gamma.max() <= 1
