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


def dark_value(px, py, x, y, sigma):
    """Neither rounded nor cut off."""
    return math.exp(-((x - px / 4) ** 2 + (y - py / 4) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize(
    ("udp", "dark", "value"),
    [(False, False, msra_value), (False, True, dark_value), (True, False, udp_value), (True, True, udp_value)],
)
@pytest.mark.parametrize("sigma", [1.0, 2.0, 2.5])
def test_heatmap_targets_equal_a_loop_over_cells(udp, dark, value, sigma):
    points = random_points(margin=-5.0)  # some just outside
    target = HeatmapCodec(IMGSZ, sigma, udp=udp, dark=dark).encode(points, visible(points)).values
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
    points = torch.tensor([[[10.0, 10.0], [10.0, 10.0], [-12.0, 10.0], [-16.0, 10.0], [10.0, 112.0], [10.0, 500.0]]])
    seen = torch.tensor([[True, False, True, True, True, True]])
    for udp, dark in [(False, False), (False, True), (True, False), (True, True)]:
        targets = HeatmapCodec(IMGSZ, sigma=1.0, udp=udp, dark=dark).encode(points, seen)
        assert targets.weights.tolist() == [[1, 0, 1, 0, 0, 0]]
        if udp or not dark:
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


def slow_quarter(heatmap, kernel):
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    h, w = heatmap.shape
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) * 0.25 if 0 < x < w - 1 else 0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) * 0.25 if 0 < y < h - 1 else 0
    return x + dx, y + dy


def mmpose_quarter(heatmap, kernel):
    """The border rule of mmpose's refine_keypoints."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    h, w = heatmap.shape
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) * 0.25 if 1 < x < w - 1 and 0 < y < h else 0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) * 0.25 if 1 < y < h - 1 and 0 < x < w else 0
    return x + dx, y + dy


def slow_blur(heatmap, kernel):
    """The blur of OpenCV with zeros around, and the maximum as it was before."""
    cv2 = pytest.importorskip("cv2")
    blurred = cv2.GaussianBlur(heatmap, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
    return blurred * (heatmap.max() / blurred.max())


def slow_dark(heatmap, kernel):
    """DARK: differences over two cells, a 2 x 2 solve, nothing within two cells of the border."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    h, w = heatmap.shape
    if not (2 <= x < w - 2 and 2 <= y < h - 2):
        return x, y
    f = np.log(np.maximum(slow_blur(heatmap, kernel), 1e-10))
    gradient = np.array([f[y, x + 1] - f[y, x - 1], f[y + 1, x] - f[y - 1, x]]) / 2
    fxx = (f[y, x + 2] - 2 * f[y, x] + f[y, x - 2]) / 4
    fyy = (f[y + 2, x] - 2 * f[y, x] + f[y - 2, x]) / 4
    fxy = (f[y + 1, x + 1] - f[y - 1, x + 1] - f[y + 1, x - 1] + f[y - 1, x - 1]) / 4
    step = -np.linalg.solve([[fxx, fxy], [fxy, fyy]], gradient)
    return x + step[0], y + step[1]


def slow_udp(heatmap, kernel):
    """UDP: differences over one cell of a map between 1e-3 and 50, at the border the border's value again."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    f = np.pad(np.log(np.clip(slow_blur(heatmap, kernel), 1e-3, 50.0)), 1, mode="edge")
    x, y = x + 1, y + 1
    gradient = np.array([f[y, x + 1] - f[y, x - 1], f[y + 1, x] - f[y - 1, x]]) / 2
    fxx = f[y, x + 1] - 2 * f[y, x] + f[y, x - 1]
    fyy = f[y + 1, x] - 2 * f[y, x] + f[y - 1, x]
    mixed = f[y + 1, x + 1] - f[y, x + 1] - f[y + 1, x] + f[y, x]
    fxy = (mixed + f[y, x] - f[y, x - 1] - f[y - 1, x] + f[y - 1, x - 1]) / 2
    step = -np.linalg.solve([[fxx + 2**-23, fxy], [fxy, fyy + 2**-23]], gradient)
    return x - 1 + step[0], y - 1 + step[1]


def noisy_heatmaps():
    """Peaks anywhere, the border included, with enough noise that neighbours differ."""
    points = random_points(n=8, k=6, seed=3)
    heatmaps = HeatmapCodec(IMGSZ, udp=True).encode(points, visible(points)).values
    return heatmaps + 0.02 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("dark", "udp", "slow", "kernel"),
    [
        (False, False, slow_quarter, 11),
        (False, True, slow_quarter, 11),
        (True, False, slow_dark, 11),
        (True, False, slow_dark, 17),
        (True, True, slow_udp, 11),
        (True, True, slow_udp, 17),
    ],
)
def test_decoding_equals_a_loop_over_keypoints(dark, udp, slow, kernel):
    heatmaps = noisy_heatmaps()
    points, scores = HeatmapCodec(IMGSZ, udp=udp, dark=dark, blur_kernel=kernel).decode(heatmaps)
    pixels = (63 / 15, 95 / 23) if udp else (4.0, 4.0)
    expected = [[np.multiply(slow(m, kernel), pixels) for m in maps] for maps in heatmaps.numpy()]
    np.testing.assert_allclose(points, expected, atol=2e-3)
    np.testing.assert_array_equal(scores, heatmaps.amax((-2, -1)))


@pytest.mark.parametrize(("dark", "udp", "slow"), [(False, False, slow_quarter), (True, False, slow_dark)])
def test_border_rules_equal_the_loop_in_every_cell(dark, udp, slow):
    """A maximum in every cell of a small map, the higher neighbours right and below."""
    heatmaps = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    slope = torch.arange(8) + torch.arange(8)[:, None]
    heatmaps += 0.01 * slope
    for i in range(64):
        heatmaps[i, 0, i // 8, i % 8] = 1.0
    points, _ = HeatmapCodec((32, 32), udp=udp, dark=dark).decode(heatmaps)
    expected = np.array([[np.multiply(slow(maps[0], 11), 4.0)] for maps in heatmaps.numpy()])
    np.testing.assert_allclose(points, expected, atol=2e-3)
    if slow is slow_quarter:  # mmpose's differs in the first two columns and rows only
        theirs = np.array([[np.multiply(mmpose_quarter(maps[0], 11), 4.0)] for maps in heatmaps.numpy()])
        same = (theirs == expected).all((1, 2)).reshape(8, 8)
        assert same[2:, 2:].all()
        assert not same[1, 1]


def test_udp_steps_at_the_border_too():
    heatmaps = torch.zeros(2, 1, 8, 8)
    heatmaps[0, 0, 0, 0], heatmaps[0, 0, 0, 1] = 1.0, 0.6
    heatmaps[1, 0, 7, 7] = 1.0
    points, _ = HeatmapCodec((32, 32), udp=True, dark=True).decode(heatmaps)
    expected = [np.multiply(slow_udp(maps[0], 11), 31 / 7) for maps in heatmaps.numpy()]
    np.testing.assert_allclose(points[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("height", [0.05, 0.002])
def test_udp_brings_a_faint_map_back_to_its_height_before_the_floor(height):
    """Blurred, it would lie below 1e-3 and give no step."""
    heatmaps = height * noisy_heatmaps()
    points, _ = HeatmapCodec(IMGSZ, udp=True, dark=True).decode(heatmaps)
    expected = [[np.multiply(slow_udp(m, 11), (63 / 15, 95 / 23)) for m in maps] for maps in heatmaps.numpy()]
    np.testing.assert_allclose(points, expected, atol=5e-3)


@pytest.mark.parametrize("heatmap", [torch.zeros(8, 8), torch.full((8, 8), -0.1), torch.full((8, 8), 1e-5)])
@pytest.mark.parametrize(("udp", "dark"), [(False, False), (False, True), (True, False), (True, True)])
def test_an_empty_map_is_decoded_to_a_cell(heatmap, udp, dark):
    points, scores = HeatmapCodec((32, 32), udp=udp, dark=dark).decode(heatmap[None, None])
    assert points.tolist() == [[[0, 0]]]
    assert scores.item() == heatmap.max()


def test_outputs_that_are_logits():
    """Untrained outputs of 0 say 1 % everywhere; the maximum and its score are those of the sigmoid."""
    codec = HeatmapCodec(IMGSZ, udp=True, dark=True, sigmoid=True)
    np.testing.assert_allclose(codec.heatmaps(torch.zeros(1, 1, 2, 2)), 0.01, rtol=1e-5)
    points = random_points(margin=20.0)
    target = codec.encode(points, visible(points)).values
    logits = target.clamp(1e-6, 1 - 1e-6).logit() - math.log(0.01 / 0.99)
    decoded, scores = codec.decode(logits)
    plain = HeatmapCodec(IMGSZ, udp=True, dark=True).decode(target)
    np.testing.assert_allclose(decoded, plain[0], atol=0.02)
    np.testing.assert_allclose(scores, plain[1], atol=1e-4)


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
        (HeatmapCodec(IMGSZ, dark=True), 0.05),
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


# ---------------------------------------------------------------------------------- coordinates with a gradient


def test_the_expectation_of_heatmaps_equals_a_loop():
    heatmaps = noisy_heatmaps()[:2, :2]
    for udp, pixels in [(False, (4.0, 4.0)), (True, (63 / 15, 95 / 23))]:
        found = HeatmapCodec(IMGSZ, udp=udp).expectation(heatmaps, 7.0)
        for b, k in np.ndindex(2, 2):
            e = [[math.exp(7.0 * v) for v in row] for row in heatmaps[b, k].tolist()]
            total = sum(map(sum, e))
            x = sum(i * v for row in e for i, v in enumerate(row)) / total
            y = sum(j * v for j, row in enumerate(e) for v in row) / total
            np.testing.assert_allclose(found[b, k], np.multiply((x, y), pixels), rtol=1e-4)


def test_the_expectation_of_bins_equals_a_loop():
    codec = SimCCCodec(IMGSZ, split=2.0)
    logits = tuple(torch.rand(1, 2, bins, generator=torch.Generator().manual_seed(bins)) for bins in codec.bins)
    found = codec.expectation(logits, 5.0)
    for axis, values in enumerate(logits):
        for k in range(2):
            e = [math.exp(5.0 * v) for v in values[0, k].tolist()]
            mean = sum(i * v for i, v in enumerate(e)) / sum(e) / 2.0
            assert found[0, k, axis].item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(
    ("codec", "worst_px"),
    [
        (HeatmapCodec(IMGSZ, udp=True), 1.0),
        (HeatmapCodec(IMGSZ, dark=True), 1.0),
        (HeatmapCodec(IMGSZ), 2.0 + 0.1),  # the target itself is rounded
        (SimCCCodec(IMGSZ), 0.25 + 0.1),
    ],
)
@pytest.mark.parametrize("height", [1.0, 0.5])
def test_the_expectation_of_a_target_is_the_point(codec, worst_px, height):
    points = random_points(n=16, margin=24.0)
    values = codec.encode(points, visible(points)).values
    lower = tuple(height * v for v in values) if isinstance(values, tuple) else height * values
    assert (codec.expectation(lower, 25.0) - points).abs().max() <= worst_px


@pytest.mark.parametrize("codec", [HeatmapCodec(IMGSZ, udp=True), HeatmapCodec(IMGSZ, sigmoid=True), SimCCCodec(IMGSZ)])
def test_expectations_have_a_gradient_and_are_as_exact_within_autocast(codec):
    points = random_points(n=1, k=2)
    values = codec.encode(points, visible(points)).values
    outputs = [v.bfloat16().requires_grad_() for v in (values if isinstance(values, tuple) else (values,))]
    whole = tuple(outputs) if len(outputs) > 1 else outputs[0]
    with torch.autocast("cpu", torch.bfloat16):
        inside = codec.expectation(whole, 5.0)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, codec.expectation(whole, 5.0))
    inside.sum().backward()
    assert all((output.grad != 0).any() for output in outputs)


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


@pytest.mark.parametrize(("udp", "dark"), [(False, False), (False, True), (True, True)])
def test_heatmaps_are_mirrored_back_as_by_hand(udp, dark):
    outputs = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    back = HeatmapCodec((20, 16), udp=udp, dark=dark).flip(outputs, FLIP_INDEX)
    for b, k, y, x in np.ndindex(2, 3, 4, 5):
        source = 4 - x if udp else 4 - max(x - 1, 0)
        assert back[b, k, y, x] == outputs[b, FLIP_INDEX[k], y, source]


@pytest.mark.parametrize("split", [1.0, 2.0, 3.0])
def test_simcc_is_mirrored_back_as_by_hand(split):
    codec = SimCCCodec((5, 4), split=split)
    outputs = tuple(torch.rand(2, 3, bins, generator=torch.Generator().manual_seed(bins)) for bins in codec.bins)
    x, y = codec.flip(outputs, FLIP_INDEX)
    last = codec.bins[0] - 1
    for b, k, i in np.ndindex(2, 3, codec.bins[0]):
        source = max(last + 1 - int(split) - i, 0)
        assert x[b, k, i] == outputs[0][b, FLIP_INDEX[k], source]
    assert torch.equal(y, outputs[1][:, FLIP_INDEX])


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
