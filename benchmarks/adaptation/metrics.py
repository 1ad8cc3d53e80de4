"""Are our metrics as fast as MONAI's? Dice, NSD and HD95 of every class of a generated trunk, both on the CPU.

    python benchmarks/adaptation/metrics.py

That they are equal is a test: tests/adapters/test_metrics_monai.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import write_result

from adapters.metrics import score_case
from featcache.phantom import STRUCTURES, find_site, generate

NAMES, TOLERANCE = find_site("demo").annotated, 2.0
CLASSES = len(NAMES)


def main() -> None:
    """Time both on the same masks, one after the other, five times."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    warnings.simplefilter("ignore")  # MONAI warns of its own arguments
    made = generate(find_site("middle"), 0, seed=0)
    table = np.zeros(256, np.uint8)
    table[[STRUCTURES[name] for name in NAMES]] = np.arange(1, CLASSES + 1)
    truth = table[made.labels]
    predicted = np.roll(truth, (1, -2, 1), (0, 1, 2))
    spacing = tuple(np.linalg.norm(made.affine[:3, :3], axis=0).tolist())

    def ours() -> None:
        score_case(predicted, truth, [True] * CLASSES, spacing, TOLERANCE)

    def theirs() -> None:
        a, b = (
            torch.nn.functional.one_hot(torch.from_numpy(m.astype(np.int64)), CLASSES + 1).movedim(-1, 0)[
                None
            ]
            for m in (predicted, truth)
        )
        compute_dice(a, b, include_background=False)
        compute_surface_dice(a, b, [TOLERANCE] * CLASSES, spacing=spacing)
        compute_hausdorff_distance(a, b, percentile=95, spacing=spacing)

    spent: dict[str, list[float]] = {"featcache": [], "MONAI": []}
    for _ in range(5):
        spent["featcache"].append(_time(ours))
        spent["MONAI"].append(_time(theirs))
    medians = {name: round(statistics.median(values), 3) for name, values in spent.items()}
    print(f"{truth.shape}, {CLASSES} classes: {medians} s")
    write_result("metrics", {"shape": list(truth.shape), "classes": CLASSES, "seconds": medians})


def _time(run: Callable[[], None]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
