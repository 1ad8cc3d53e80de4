"""How far does a fused export (window in, logits out) agree with `adapters predict`, by distance from the border?

    python benchmarks/adaptation/export_borders.py --work /tmp/borders

A real CT through `builtin`, a linear and a spatial adapter of five structures fitted on that very scan (this asks
how two ways of running one adapter differ, not how good it is). Predict's side is the adapter on the stored, blended
features; the export's side is the fused file on each window of the card's plan. Reported where either side finds a
structure, at feature voxels by distance from the nearest border that the window does not share with the scan, and
for the windows' logits blended as the card blends features.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import shared_data, write_result

from adapters import FewShotSegmenter
from adapters.export import export_fused
from adapters.features import FeatureVolume
from adapters.inference import tile_logits
from featcache import FeatureStore, extract
from featcache.card import EncoderCard
from featcache.encode import cut
from featcache.encoders import model_path
from featcache.onnxfile import read_card
from featcache.prepare import PreparedVolume, prepare
from featcache.runtime.onnxruntime import create_session
from featcache.scans import ScanSource, read_scan
from featcache.stitch import Stitcher
from featcache.windows import Window, WindowPlan, plan_windows

CLASSES = "liver,spleen,kidney_left,kidney_right,stomach"
BANDS = ((0, 2), (2, 4), (4, 8), (8, 16), (16, 24), (24, 96))  # feature voxels from the border


def main() -> None:
    """Extract, fit, export, compare; print percentages and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    data = shared_data() / "torso_ct"
    scan = data / "ct.nii.gz"
    extract("builtin", scan, work / "features.zarr", labels=data / "ct_labels.nii.gz")
    store = FeatureStore.open(work / "features.zarr")
    card = read_card(model_path("builtin"))
    volume = prepare(read_scan(ScanSource("ct", (scan,)), unit="HU"), card.preparation)
    rows = {}
    for method in ("linear", "spatial"):
        fitted = FewShotSegmenter(method, classes=CLASSES, device="cpu").fit(store)
        folder, out = work / f"{method}-adapter", work / f"{method}.onnx"
        for old in (out, *folder.glob("*")):
            old.unlink(missing_ok=True)
        if folder.exists():
            folder.rmdir()
        fitted.save(folder)
        made = export_fused(folder, "builtin", out)
        (case,) = store.cases()
        features = FeatureVolume(store.case(case), list(fitted.adapter.channels))
        whole = tile_logits(fitted.adapter, features, (0, 0, 0), features.grid.shape).numpy().argmax(0)
        rows[method] = {"difference": made.difference, **border_difference(out, card, volume, whole)}
        print(method, *(f"{key}: {value}" for key, value in rows[method].items()), sep="\n  ", flush=True)
    plan = plan_windows(volume.grid.shape, card)
    where = {"scan": "torso_ct", "prepared": volume.grid.shape, "window": plan.size, "windows": plan.count}
    print(write_result("export_borders", {**where, "percent_agreement": rows}))


def border_difference(
    fused: Path, card: EncoderCard, volume: PreparedVolume, whole: NDArray[np.int64]
) -> dict[str, Any]:
    """Return in percent how often the fused file decides as `whole` does, where either finds a structure.

    Parameters
    ----------
    fused : Path
        Of an adapter that reads a level of stride 1.
    card : EncoderCard
        RAS, so that stored and network order are one.
    volume : PreparedVolume
    whole : ndarray, shape (X, Y, Z), int64
        What the adapter decides on the stored features.
    """
    session, _ = create_session(fused, "cpu")
    plan = plan_windows(volume.grid.shape, card)
    counts = np.zeros((len(BANDS), 2), np.int64)
    channels = int(session.get_outputs()[0].shape[1])
    level = dataclasses.replace(card.outputs[0], channels=channels)
    stitcher, slabs = Stitcher(plan, level, volume.grid.shape), []
    for number, layer in enumerate(plan.layers()):
        for window in layer:
            voxels = cut(volume.voxels, window.start, plan.size, card.preparation.pad_value)
            logits = session.run(["logits"], {card.input.name: voxels[None]})[0][0]
            stitcher.add(window, logits)
            counts += _counts(logits.argmax(0), whole, plan, window)
        slabs += list(stitcher.finish_layer(number))
    blended = np.concatenate(slabs, axis=3).argmax(0)
    found = {f"{a} to {b}": _percent(*count) for (a, b), count in zip(BANDS, counts, strict=True)}
    known = (blended > 0) | (whole > 0)
    return {
        **found,
        "all of each window": _percent(*counts.sum(0)),
        "logits blended": _percent(int((blended == whole)[known].sum()), int(known.sum())),
    }


def _counts(
    decided: NDArray[np.int64], whole: NDArray[np.int64], plan: WindowPlan, window: Window
) -> NDArray[np.int64]:
    """Return per band how many voxels with a structure are decided alike, and how many there are."""
    box = tuple(slice(a, a + n) for a, n in zip(window.start, plan.size, strict=True))
    truth = whole[box]
    decided = decided[tuple(slice(n) for n in truth.shape)]
    distance = np.full(truth.shape, BANDS[-1][1] - 1)
    for axis, (start, size) in enumerate(zip(window.start, plan.size, strict=True)):
        index = np.arange(truth.shape[axis])
        ends = [index if start else None, size - 1 - index if start + size < whole.shape[axis] else None]
        for end in ends:
            if end is not None:
                shape = [1, 1, 1]
                shape[axis] = -1
                distance = np.minimum(distance, end.reshape(shape))
    known = (truth > 0) | (decided > 0)
    bands = [known & (distance >= a) & (distance < b) for a, b in BANDS]
    return np.array([[(decided == truth)[band].sum(), band.sum()] for band in bands])


def _percent(alike: int, total: int) -> float | None:
    return round(100 * float(alike) / float(total), 2) if total else None


if __name__ == "__main__":
    main()
