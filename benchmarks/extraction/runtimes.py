"""ONNX Runtime and OpenVINO on the same file: seconds a window, and what bfloat16 changes.

    python benchmarks/extraction/runtimes.py --work /tmp/runtimes

Windows of 96³ (or what the card fixes) of real scans, every variant in turn, medians of several rounds.
The difference to ONNX Runtime is relative RMS: over the deviation of each output.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import encoder, shared_data, write_result

from featcache.encode import cut
from featcache.onnxfile import read_card
from featcache.prepare import prepare
from featcache.runtime import open_encoder
from featcache.scans import discover, read_scan

ENCODERS = {
    "builtin": "openkbp/images/pt_201.nii.gz",
    "ct_i3resnet152_l1l2": "openkbp/images/pt_201.nii.gz",
    "mr_meshnet_subcortical18": "torso_ct/mr.nii.gz",
}
VARIANTS = (("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))
EDGE = 96


def main() -> None:
    """Time each encoder by each runtime and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = {name: _measure(name, scan, arguments) for name, scan in ENCODERS.items()}
    write_result("runtimes", {"edge": EDGE, "rounds": arguments.rounds, "encoders": rows})
    print(
        "| encoder | runtime | s a window | times as fast | differs by (relative RMS) |\n|---|---|---|---|---|"
    )
    for name, found in rows.items():
        for variant, row in found.items():
            differs = ", ".join(f"{level} {value:.2g}" for level, value in row["relative_rms"].items())
            print(f"| {name} | {variant} | {row['seconds']:.2f} | {row['speed']:.2f} | {differs} |")


def _measure(name: str, scan: str, arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    model = encoder(name, arguments.work)
    card = read_card(model)
    (source,) = discover([shared_data() / scan]).sources
    volume = prepare(read_scan(source, unit=card.unit), card.preparation)
    size = card.input.window if not card.input.dynamic else (EDGE, EDGE, EDGE)
    x, y, z = (max(n - s, 0) // 2 for n, s in zip(volume.grid.shape, size, strict=True))
    window = cut(volume.voxels, (x, y, z), size, card.preparation.pad_value)
    runs = {
        f"{runtime} {precision}": open_encoder(model, card, runtime=runtime, precision=precision)
        for runtime, precision in VARIANTS
    }
    outputs = {variant: run(window) for variant, run in runs.items()}
    times: dict[str, list[float]] = {variant: [] for variant in runs}
    for _ in range(arguments.rounds):
        for variant, run in runs.items():
            begun = time.perf_counter()
            run(window)
            times[variant].append(time.perf_counter() - begun)
    first = next(iter(runs))
    reference, usual = outputs[first], statistics.median(times[first])
    return {
        variant: {
            "seconds": (seconds := statistics.median(times[variant])),
            "speed": usual / seconds,
            "relative_rms": {
                level: float(np.sqrt(np.square(value - reference[level]).mean()) / reference[level].std())
                for level, value in outputs[variant].items()
            },
        }
        for variant in runs
    }


if __name__ == "__main__":
    main()
