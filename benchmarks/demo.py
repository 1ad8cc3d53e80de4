"""The main job from end to end on scans and an encoder made here: `make demo` runs it in about a minute.

Eight small CT-like scans with three structures each, five of them labelled; a filter-bank encoder of 16 fine and
16 coarse features. Every command is printed as a user would type it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage

from featcache.card import FILL_IN

OUT = Path("demo")
STRUCTURES = {"background": 0, "liver": 1, "kidney": 2, "spine": 3}
SHAPE, SPACING = (80, 64, 56), (3.0, 3.0, 4.0)


def main() -> None:
    """Make scans and an encoder, then run the commands."""
    shutil.rmtree(OUT, ignore_errors=True)
    for folder in ("scans", "labels", "truth"):
        (OUT / folder).mkdir(parents=True)
    for number in range(8):
        save_case(number)
    (OUT / "labels" / "labels.json").write_text(json.dumps(STRUCTURES))
    (OUT / "truth" / "labels.json").write_text(json.dumps(STRUCTURES))
    save_encoder(OUT / "fm.onnx")
    os.chdir(OUT)
    type_in("featcache encoder template fm.onnx")
    fill_in(Path("fm.card.json"))
    print("(a person replaces the lines that say FILL IN: here the demo does)", flush=True)
    type_in("featcache encoder attach fm.onnx")
    type_in("featcache extract --model fm.onnx --in scans/")
    type_in("featcache info")
    for method in ("linear", "spatial"):
        type_in(f"adapters train --shots 5 --method {method} --out {method}")
        type_in(
            f"adapters predict --adapter {method} --cases case_5,case_6,case_7 --out masks_{method} --preview"
        )
        type_in(f"adapters evaluate --pred masks_{method} --labels truth --out {method}.json")
    type_in("featcache verify")
    for method in ("linear", "spatial"):
        report = json.loads(Path(f"{method}.json").read_text())
        print(
            f"{method:8} mean Dice {report['summary']['mean_of_classes']['dice']:.3f}, 5 shots, 3 unseen scans"
        )
    print(f"pictures: {Path('masks_spatial').resolve()}/*.png")


def type_in(command: str) -> None:
    """Print a command as a user types it, and run it; a failure ends the demo."""
    print(f"\n$ {command}", flush=True)
    program = Path(sys.executable).with_name(command.split(maxsplit=1)[0])
    done = subprocess.run([program, *command.split()[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def save_case(number: int) -> None:
    """Write one generated scan and its labels: a body with organs of varying place, size and shape."""
    random = np.random.default_rng(number)
    x, y, z = (
        (np.arange(n) - (n - 1) / 2)[tuple(slice(None) if a == axis else None for a in range(3))] * step
        for axis, (n, step) in enumerate(zip(SHAPE, SPACING, strict=True))
    )
    bend = [ndimage.gaussian_filter(random.normal(size=SHAPE), 7) * 260 for _ in range(3)]
    labels = np.zeros(SHAPE, np.uint8)

    def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        moved = [
            (axis - c - random.normal(0, 4) + b) / (r * random.uniform(0.85, 1.15))
            for axis, c, r, b in zip((x, y, z), centre, radii, bend, strict=True)
        ]
        return sum(m**2 for m in moved) < 1

    body = ellipsoid((0, 0, 0), (105, 80, 400))
    hounsfield = np.where(body, -95.0, -1000.0)
    hounsfield[ellipsoid((0, 0, 0), (90, 64, 400))] = 45
    for centre in ((-45, 10, 20), (35, 15, -10), (10, 25, 40)):  # gut and other distractors
        hounsfield[ellipsoid(centre, (22, 18, 26))] = random.uniform(0, 140)
    for value, centre, radii, level in (
        (1, (42, 12, 25), (42, 36, 46), 105),
        (2, (48, -32, -35), (17, 14, 27), 165),
        (2, (-48, -32, -30), (17, 14, 27), 165),
        (3, (0, -46, 0), (15, 14, 400), 330),
    ):
        inside = ellipsoid(centre, radii)
        hounsfield[inside] = level + random.normal(0, 10)
        labels[inside] = value
    hounsfield += ndimage.gaussian_filter(random.normal(size=SHAPE), 0.7) * 60
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = random.uniform(-200, 200, 3)
    name = f"case_{number}.nii.gz"
    image = nib.Nifti1Image(hounsfield.clip(-1024, 3000).astype(np.int16), affine)
    nib.save(image, OUT / "scans" / name)
    folder = OUT / ("labels" if number < 5 else "truth") / name
    nib.save(nib.Nifti1Image(labels, affine), folder)


def save_encoder(path: Path) -> None:
    """Write a filter bank as ONNX: smoothing and edges at three scales, mixed by fixed random convolutions."""
    random = np.random.default_rng(7)
    nodes, weights = [], []

    def conv(source: str, name: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> None:
        values = random.normal(size=(channels[1], channels[0], *(kernel,) * 3)) / np.sqrt(
            channels[0] * kernel**3
        )
        values[: channels[0], :, :, :, :] += np.eye(channels[0])[:, :, None, None, None] / kernel**3
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}_w"))
        pads = [kernel // 2] * 6
        nodes.append(
            helper.make_node("Conv", [source, f"{name}_w"], [f"{name}_c"], pads=pads, strides=[stride] * 3)
        )
        nodes.append(helper.make_node("LeakyRelu", [f"{name}_c"], [name], alpha=0.2))

    conv("image", "a", (1, 8), 3)
    conv("a", "fine", (8, 16), 3)
    conv("fine", "b", (16, 16), 3, stride=2)
    conv("b", "coarse", (16, 16), 3, stride=2)
    shape = ["n", 1, "x", "y", "z"]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, *(f"{name}_{a}" for a in "xyz")])
        for name in ("fine", "coarse")
    ]
    graph = helper.make_graph(nodes, "filter_bank", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def fill_in(path: Path) -> None:
    """Complete the template as a person would."""
    card = json.loads(path.read_text())
    card |= {"version": "1", "licence": "MIT", "modality": "CT"}
    card["preparation"] |= {
        "orientation": "RAS",
        "spacing": [3, 3, 3],
        "intensity": {"kind": "window", "low": -200, "high": 400, "output": [-1, 1]},
        "crop": {"above": -300, "margin": 6},
    }
    card["blending"] = {"kind": "halo", "halo": [16, 16, 16]}
    for output in card["outputs"]:
        output["offset"] = [0, 0, 0]
    assert FILL_IN not in json.dumps(card)
    path.write_text(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
