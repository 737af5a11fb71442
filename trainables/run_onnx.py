"""Keypoints of one image with model.onnx; needs numpy, opencv-python and onnxruntime, and nothing of PoseSweep.

    python run_onnx.py model.onnx image.jpg                      the whole image is the box of one object
    python run_onnx.py model.onnx image.jpg 40 25 180 220        its box: x, y, width, height in pixels
    python run_onnx.py model.onnx image.jpg --draw found.png     also draw them

Prints a line for each keypoint: name, x and y in image pixels, score. A model without `--decode` is read by the highest
cell or bin of each keypoint, which is coarser than what PoseSweep does; export with --decode for the same points.
"""

import json
import sys
from typing import Any

import cv2
import numpy as np
import onnxruntime


def load(path: str) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """The session, and what the model says of itself."""
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    return session, json.loads(session.get_modelmeta().custom_metadata_map["posesweep"])


def cut_out(image: np.ndarray, box: list[float], about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The input for one box of an RGB image, and scale and offset of image pixels = input pixels * scale + offset."""
    width, height = about["input"]["width"], about["input"]["height"]
    x, y, w, h = box
    wide = max(w, h * width / height) * about["input"]["box_padding"]
    high = wide * height / width
    scale = np.array([wide / (width - 1), high / (height - 1)])
    offset = np.array([x + w / 2, y + h / 2]) - scale * (np.array([width, height]) - 1) / 2
    if scale.max() >= 2:  # much larger than the input: averaged first, or pixels would be skipped
        block = int(scale.max()) | 1
        image = cv2.blur(image, (block, block))
    affine = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
    crop = cv2.warpAffine(image, affine, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(crop), scale, offset


def as_input(crop: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """[1, H, W, 3] RGB bytes, or [1, 3, H, W] normalised floats, whichever the model takes."""
    if about["input"]["dtype"] == "uint8":
        return crop[None]
    mean, std = (np.array(about["input"][name], np.float32) for name in ("mean", "std"))
    return ((crop.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None]


def as_keypoints(outputs: list[np.ndarray], about: dict[str, Any]) -> np.ndarray:
    """[K, 3]: x, y in input pixels, score."""
    if about["output"]["kind"] == "keypoints":
        return outputs[0][0]
    if about["output"]["kind"] == "heatmaps":
        maps = outputs[0][0]
        rows, columns = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[2])
        per_cell = about["output"]["pixels_per_cell"]
        return np.stack([columns * per_cell[0], rows * per_cell[1], maps.max(axis=(1, 2))], axis=1)
    x, y = (logits[0] for logits in outputs)
    split = about["output"]["bins_per_pixel"]
    return np.stack([x.argmax(axis=1) / split, y.argmax(axis=1) / split, np.ones(len(x))], axis=1)


def predict(
    session: onnxruntime.InferenceSession, about: dict[str, Any], image: np.ndarray, box: list[float]
) -> np.ndarray:
    """[K, 3]: x, y in image pixels, score, of the object in `box` (x, y, width, height) of an RGB image."""
    crop, scale, offset = cut_out(image, box, about)
    found = as_keypoints(session.run(None, {"images": as_input(crop, about)}), about).astype(np.float64)
    found[:, :2] = found[:, :2] * scale + offset
    return found


def main(arguments: list[str]) -> None:
    """See above."""
    drawn = arguments[arguments.index("--draw") + 1] if "--draw" in arguments else None
    if drawn is not None:
        arguments = [a for a in arguments if a not in ("--draw", drawn)]
    if len(arguments) not in (2, 6):
        sys.exit(__doc__)
    session, about = load(arguments[0])
    picture = cv2.imread(arguments[1], cv2.IMREAD_COLOR)
    if picture is None:
        sys.exit(f"{arguments[1]}: is no image that can be read")
    image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    box = [float(a) for a in arguments[2:]] or [0.0, 0.0, image.shape[1], image.shape[0]]
    found = predict(session, about, image, box)
    for name, (x, y, score) in zip(about["keypoints"], found, strict=True):
        print(f"{name:>24} {x:9.2f} {y:9.2f} {score:7.4f}")
        cv2.circle(picture, (round(x), round(y)), 3, (0, 200, 255), -1, cv2.LINE_AA)
    if drawn is not None:
        cv2.imwrite(drawn, picture)


if __name__ == "__main__":
    main(sys.argv[1:])
