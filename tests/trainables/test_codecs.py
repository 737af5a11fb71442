import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.trainables.codecs import HeatmapCodec, SimCCCodec

IMGSZ = (64, 96)  # width, height: heatmaps of 16 x 24 cells


def visible(points):
    return torch.ones(points.shape[:2], dtype=torch.bool)


def random_points(n=4, k=5, margin=0.0, seed=0):
    low, high = margin, torch.tensor(IMGSZ) - 1 - margin
    return low + torch.rand(n, k, 2, generator=torch.Generator().manual_seed(seed)) * (high - low)


# ---------------------------------------------------------------------------------- targets, one cell at a time


def msra_value(px, py, x, y, sigma):
    """The published rule for one cell: rounded centre, square window of 3 sigma."""
    cx, cy = math.floor(px / 4 + 0.5), math.floor(py / 4 + 0.5)
    if abs(x - cx) > 3 * sigma or abs(y - cy) > 3 * sigma:
        return 0.0
    return math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))


def udp_value(px, py, x, y, sigma):
    """The same window, but the centre is where the point is, in sizes minus one."""
    mx, my = px * 15 / 63, py * 23 / 95
    if abs(x - math.floor(mx + 0.5)) > 3 * sigma or abs(y - math.floor(my + 0.5)) > 3 * sigma:
        return 0.0
    return math.exp(-((x - mx) ** 2 + (y - my) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(("udp", "value"), [(False, msra_value), (True, udp_value)])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 2.5])
def test_heatmap_targets_equal_a_loop_over_cells(udp, value, sigma):
    points = random_points(margin=-5.0)  # some just outside
    target = HeatmapCodec(IMGSZ, sigma, udp=udp).encode(points, visible(points)).values
    slow = [
        [[[value(px, py, x, y, sigma) for x in range(16)] for y in range(24)] for px, py in instance]
        for instance in points.double().tolist()
    ]
    np.testing.assert_allclose(target, slow, atol=2e-6)


def test_msra_by_hand():
    points = torch.tensor([[[21.9, 42.0]]])  # cell 5.475 -> 5; 10.5 -> 11
    heatmap = HeatmapCodec(IMGSZ, sigma=1.0).encode(points, visible(points)).values[0, 0]
    assert heatmap[11, 5] == 1
    assert heatmap[11, 6] == pytest.approx(math.exp(-0.5))
    assert heatmap[11, 8] == pytest.approx(math.exp(-4.5))
    assert heatmap[11, 9] == 0
    assert (heatmap > 0).sum() == 49


def test_weights_follow_visibility_and_the_window():
    # sigma 1: the window reaches 3 cells = 12 px; -12 px still touches column 0, -16 px does not
    points = torch.tensor([[[10.0, 10.0], [10.0, 10.0], [-12.0, 10.0], [-16.0, 10.0], [10.0, 108.0], [10.0, 500.0]]])
    seen = torch.tensor([[True, False, True, True, True, True]])
    targets = HeatmapCodec(IMGSZ, sigma=1.0).encode(points, seen)
    assert targets.weights.tolist() == [[1, 0, 1, 0, 0, 0]]
    assert targets.values[0, 3:].abs().sum() == 0


@pytest.mark.parametrize("codec", [HeatmapCodec(IMGSZ), HeatmapCodec(IMGSZ, udp=True), SimCCCodec(IMGSZ)])
def test_what_is_not_labelled_may_be_nan(codec):
    points = torch.full((1, 2, 2), float("nan"))
    targets = codec.encode(points, torch.zeros(1, 2, dtype=torch.bool))
    values = targets.values if isinstance(targets.values, tuple) else (targets.values,)
    assert all(torch.isfinite(v).all() for v in values)
    assert targets.weights.sum() == 0


def test_simcc_targets_equal_a_loop_over_bins():
    points = random_points(margin=-3.0)
    codec = SimCCCodec(IMGSZ, sigma=(4.9, 5.66), split=2.0)
    x, y = codec.encode(points, visible(points)).values
    assert codec.bins == (128, 192)
    for b, instance in enumerate(points.tolist()):
        for k, (px, py) in enumerate(instance):
            slow_x = [math.exp(-((i - round(px * 2)) ** 2) / (2 * 4.9**2)) for i in range(128)]
            slow_y = [math.exp(-((i - round(py * 2)) ** 2) / (2 * 5.66**2)) for i in range(192)]
            np.testing.assert_allclose(x[b, k], slow_x, atol=1e-6)
            np.testing.assert_allclose(y[b, k], slow_y, atol=1e-6)


def test_simcc_weight_is_zero_where_three_sigma_end_outside():
    # sigma 5 bins, split 2: 15 bins = 7.5 px
    points = torch.tensor([[[-7.5, 20.0], [-8.0, 20.0], [63.5 + 7.5, 20.0], [72.0, 20.0], [20.0, 110.0]]])
    weights = SimCCCodec(IMGSZ, sigma=5.0).encode(points, visible(points)).weights
    assert weights.tolist() == [[1, 0, 1, 0, 0]]


# ---------------------------------------------------------------------------------- decoding


def slow_quarter(heatmap):
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    h, w = heatmap.shape
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) * 0.25 if 0 < x < w - 1 else 0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) * 0.25 if 0 < y < h - 1 else 0
    return x + dx, y + dy


def slow_dark(heatmap):
    """DARK by OpenCV's blur and a 2 x 2 solve."""
    cv2 = pytest.importorskip("cv2")
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    h, w = heatmap.shape
    if not (2 <= x < w - 2 and 2 <= y < h - 2):
        return x, y
    blurred = cv2.GaussianBlur(heatmap, (11, 11), 0, borderType=cv2.BORDER_CONSTANT)
    f = np.log(np.maximum(blurred, 1e-10))
    gradient = np.array([f[y, x + 1] - f[y, x - 1], f[y + 1, x] - f[y - 1, x]]) / 2
    fxx = (f[y, x + 2] - 2 * f[y, x] + f[y, x - 2]) / 4
    fyy = (f[y + 2, x] - 2 * f[y, x] + f[y - 2, x]) / 4
    fxy = (f[y + 1, x + 1] - f[y - 1, x + 1] - f[y + 1, x - 1] + f[y - 1, x - 1]) / 4
    step = -np.linalg.solve([[fxx, fxy], [fxy, fyy]], gradient)
    return x + step[0], y + step[1]


def noisy_heatmaps():
    """Peaks anywhere, the border included, with enough noise that neighbours differ."""
    points = random_points(n=8, k=6, seed=3)
    heatmaps = HeatmapCodec(IMGSZ, udp=True).encode(points, visible(points)).values
    return heatmaps + 0.02 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("dark", "slow"), [(False, slow_quarter), (True, slow_dark)])
@pytest.mark.parametrize(("udp", "pixels"), [(False, (4.0, 4.0)), (True, (63 / 15, 95 / 23))])
def test_decoding_equals_a_loop_over_keypoints(dark, slow, udp, pixels):
    heatmaps = noisy_heatmaps()
    points, scores = HeatmapCodec(IMGSZ, udp=udp, dark=dark).decode(heatmaps)
    expected = [[np.multiply(slow(m), pixels) for m in maps] for maps in heatmaps.numpy()]
    np.testing.assert_allclose(points, expected, atol=2e-3)
    np.testing.assert_array_equal(scores, heatmaps.amax((-2, -1)))


def test_dark_is_as_exact_within_autocast():
    codec, heatmaps = HeatmapCodec(IMGSZ, udp=True, dark=True), noisy_heatmaps()
    with torch.autocast("cpu", torch.bfloat16):
        points, _ = codec.decode(heatmaps)
    assert torch.equal(points, codec.decode(heatmaps)[0])


def test_quarter_cell_by_hand_and_at_the_border():
    heatmaps = torch.zeros(1, 4, 24, 16)
    heatmaps[0, 0, 10, 5], heatmaps[0, 0, 10, 6], heatmaps[0, 0, 9, 5] = 1.0, 0.5, 0.5  # right and up
    heatmaps[0, 1, 0, 0], heatmaps[0, 1, 0, 1] = 1.0, 0.5  # no left and no upper neighbour
    heatmaps[0, 2, 10, 15] = 1.0  # no right neighbour, equal ones above and below
    points, scores = HeatmapCodec(IMGSZ).decode(heatmaps)
    assert points[0].tolist() == [[21.0, 39.0], [0.0, 0.0], [60.0, 40.0], [0.0, 0.0]]
    assert scores[0].tolist() == [1, 1, 1, 0]  # an empty map scores 0


def test_simcc_decodes_the_highest_bins_and_scores_the_lower_axis():
    codec = SimCCCodec(IMGSZ, sigma=5.0)
    points = torch.tensor([[[10.0, 20.0], [30.5, 40.5]]])
    x, y = codec.encode(points, visible(points)).values
    decoded, scores = codec.decode((x, y))
    assert decoded.tolist() == points.tolist()
    np.testing.assert_allclose(scores, 1.0, atol=1e-3)  # a perfect answer
    flat = torch.zeros_like(y)
    _, unsure = codec.decode((x + 7.0, flat))  # a constant says nothing
    peak = (10 * torch.exp(-((torch.arange(192) - 96.0) ** 2) / 50)).softmax(0).max()
    np.testing.assert_allclose(unsure, 1 / 192 / peak, rtol=1e-3)


# ---------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(
    ("codec", "worst_px"),
    [
        (HeatmapCodec(IMGSZ), 2.0),  # rounded to a cell of 4 pixels, and the target is symmetric: no quarter
        (HeatmapCodec(IMGSZ, udp=True), 63 / 15 / 4 + 0.02),  # half a cell at worst, a quarter cell toward the truth
        (HeatmapCodec(IMGSZ, udp=True, dark=True), 0.05),
        (SimCCCodec(IMGSZ, split=2.0), 0.25),  # half a bin
        (SimCCCodec(IMGSZ, split=3.0), 1 / 6),
    ],
)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_round_trip_error(codec, worst_px, data):
    coordinate = st.floats(24.0, 38.0, width=32)  # all windows inside, also DARK's blur of 11
    points = torch.tensor(data.draw(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4)))[None]
    decoded, _ = codec.decode(codec.encode(points, visible(points)).values)
    assert (decoded - points).abs().max() <= worst_px + 1e-4


# ---------------------------------------------------------------------------------- the mirrored image

FLIP_INDEX = torch.tensor([1, 0, 2])


def mirrored(points):
    """The keypoints of the mirrored image, left and right exchanged."""
    result = points[:, FLIP_INDEX].clone()
    result[..., 0] = IMGSZ[0] - 1 - result[..., 0]
    return result


def test_udp_flip_is_exact():
    codec = HeatmapCodec(IMGSZ, udp=True)
    # off the ties of rounding, where the window's edge may fall on the other side
    points = torch.tensor([[[10.0, 20.0], [33.3, 51.7], [44.4, 80.0]]])
    direct = codec.encode(points, visible(points)).values
    flipped = codec.encode(mirrored(points), visible(points)).values
    np.testing.assert_allclose(codec.flip(flipped, FLIP_INDEX), direct, atol=1e-5)


@pytest.mark.parametrize("split", [1.0, 2.0, 3.0])
def test_simcc_flip_is_exact(split):
    codec = SimCCCodec(IMGSZ, sigma=2.0, split=split)
    points = torch.tensor([[[10.0, 20.0], [33.2, 51.7], [44.4, 80.0]]])
    direct = codec.encode(points, visible(points)).values
    back = codec.flip(codec.encode(mirrored(points), visible(points)).values, FLIP_INDEX)
    np.testing.assert_allclose(back[0], direct[0], atol=1e-5)
    np.testing.assert_allclose(back[1], direct[1], atol=1e-5)


def test_msra_flip_moves_the_map_one_cell():
    heatmaps = torch.zeros(1, 3, 2, 4)
    heatmaps[0, 0] = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    back = HeatmapCodec((16, 8)).flip(heatmaps, FLIP_INDEX)
    assert back[0, 1].tolist() == [[4, 4, 3, 2], [8, 8, 7, 6]]  # reversed, then one to the right; channel 0 -> 1
    assert back[0, 0].abs().sum() == 0


def test_msra_flip_beats_no_shift():
    """Averaged over where points fall in their cells, the shifted map agrees with the direct one better."""
    codec = HeatmapCodec(IMGSZ)
    points = random_points(n=64, k=3, margin=8.0)
    direct, _ = codec.decode(codec.encode(points, visible(points)).values)
    flipped = codec.encode(mirrored(points), visible(points)).values
    shifted, _ = codec.decode(codec.flip(flipped, FLIP_INDEX))
    unshifted, _ = codec.decode(flipped.flip(-1)[:, FLIP_INDEX])
    assert (shifted - direct).abs().mean() < 0.5 * (unshifted - direct).abs().mean()
