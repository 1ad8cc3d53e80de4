"""What do windows cost? Features of windows against those of the whole volume, in σ and in Dice.

    python benchmarks/blending.py --work /tmp/blending

ct_i3resnet152_l1l2 on five openkbp CTs of small field of view, which fit into memory as a whole. Windows of 96³.
1. RMS error per level, in standard deviations of the level, over the volume.
2. Dice of a logistic adapter trained on three cases and tested on two: trained and tested on each.
3. The order of blending and adapter: masks of a spatial adapter on blended features against masks of
   blended per-window logits (the paper's order), and on float16 against float32 features.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import encoder, shared_data, write_result
from openkbp import CORE, dice

from adapters import FewShotSegmenter, FittedSegmenter
from adapters.model import Adapter
from featcache import ExtractOptions, FeatureStore, extract
from featcache.card import Blending, EncoderCard, EncoderInput, Output
from featcache.encode import encode, level_grid
from featcache.onnxfile import read_card, write_card
from featcache.prepare import prepare
from featcache.runtime.onnxruntime import OnnxEncoder
from featcache.scans import ScanSource, read_scan

TRAIN, TEST = ("pt_1", "pt_16", "pt_48"), ("pt_47", "pt_22")
WHOLE = "whole volume"
VARIANTS: dict[str, tuple[tuple[int, int, int], Blending]] = {
    WHOLE: ((512, 512, 512), Blending("halo")),
    "gaussian, overlap .25": ((96, 96, 96), Blending("gaussian", overlap=0.25)),
    "gaussian, overlap .5": ((96, 96, 96), Blending("gaussian", overlap=0.5)),
    "halo 16/16/8": ((96, 96, 96), Blending("halo", halo=(16, 16, 8))),
    "halo 32/32/16": ((96, 96, 96), Blending("halo", halo=(32, 32, 16))),
}


def main() -> None:
    """Run the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    model = encoder("ct_i3resnet152_l1l2", work)
    card = read_card(model)
    result: dict[str, Any] = {"sigma": sigma(model, card)}
    print(result["sigma"], flush=True)
    stores = {
        name: store(work, model, card, name) for name in (WHOLE, "gaussian, overlap .25", "halo 16/16/8")
    }
    result["dice"] = crossed(stores)
    print(result["dice"], flush=True)
    result["order"] = order(model, card, stores["gaussian, overlap .25"])
    print(result["order"], flush=True)
    exact = store(work, model, card, "gaussian, overlap .25", "float32")
    result["rounding"] = rounding(stores["gaussian, overlap .25"], exact)
    print(result["rounding"])
    print(write_result("blending", result))


def variant(card: EncoderCard, name: str) -> EncoderCard:
    """Return the card with other windows."""
    window, blending = VARIANTS[name]
    return dataclasses.replace(card, input=EncoderInput(card.input.name, window, True), blending=blending)


def scan(card: EncoderCard, case: str) -> Any:
    """Return the prepared volume of a case."""
    path = shared_data() / "openkbp" / "images" / f"{case}.nii.gz"
    return prepare(read_scan(ScanSource(case, (path,)), unit="HU"), card.preparation)


def sigma(model: Path, card: EncoderCard) -> dict[str, Any]:
    """Return the RMS error of each blending and level against the whole volume, in σ."""
    volume = scan(card, TRAIN[0])
    features: dict[str, dict[str, np.ndarray]] = {}
    for name in VARIANTS:
        runtime = OnnxEncoder(model, variant(card, name))
        features[name] = whole(encode(volume, runtime), card)
    found: dict[str, Any] = {}
    for name, levels in features.items():
        if name != WHOLE:
            pairs = {k: (levels[k], features[WHOLE][k]) for k in levels}
            found[name] = {k: float(np.sqrt(np.mean((a - b) ** 2)) / b.std()) for k, (a, b) in pairs.items()}
    return found


def whole(slabs: Iterator[tuple[str, np.ndarray]], card: EncoderCard) -> dict[str, np.ndarray]:
    """Return the slabs of every level as one array each."""
    parts: dict[str, list[np.ndarray]] = {output.name: [] for output in card.outputs}
    for name, slab in slabs:
        parts[name].append(slab)
    return {name: np.concatenate(p, axis=3) for name, p in parts.items()}


def store(work: Path, model: Path, card: EncoderCard, name: str, precision: Any = "float16") -> FeatureStore:
    """Return the store of the five cases under one blending."""
    stem = f"{list(VARIANTS).index(name)}_{precision}"
    mine = work / f"{stem}.onnx"
    shutil.copy(model, mine)
    write_card(mine, variant(card, name))
    folder = shared_data() / "openkbp" / "images"
    inputs = [folder / f"{case}.nii.gz" for case in (*TRAIN, *TEST)]
    extract(mine, inputs, work / f"{stem}.zarr", options=ExtractOptions(store_precision=precision))
    return FeatureStore.open(work / f"{stem}.zarr")


def fit(features: FeatureStore, method: str) -> FittedSegmenter:
    """Return an adapter trained on the training cases."""
    return FewShotSegmenter(method=method, support=TRAIN, classes=",".join(CORE)).fit(features)


def crossed(stores: dict[str, FeatureStore]) -> dict[str, Any]:
    """Return the mean Dice on the test cases of adapters trained on one store and tested on another."""
    found: dict[str, Any] = {}
    for name, train_store in stores.items():
        fitted = fit(train_store, "logistic")
        found[name] = {
            other: float(np.mean([dice(fitted.predict(s.case(c)).values, s, c) for c in TEST]))
            for other, s in stores.items()
        }
    return found


class WindowLogits:
    """An encoder whose only level is the adapter's logits on one window's features (one-level adapters)."""

    def __init__(self, encoder_: OnnxEncoder, card: EncoderCard, adapter: Adapter, level: Output) -> None:
        self._encoder, self._adapter, self._level = encoder_, adapter, level
        logits = dataclasses.replace(level, name="logits", channels=adapter.task.channels)
        self.card = dataclasses.replace(card, outputs=(logits,), golden=None)

    def __call__(self, window: np.ndarray) -> dict[str, np.ndarray]:
        values = torch.from_numpy(self._encoder(window)[self._level.name])
        weights = torch.cat([m.weights[self._level.name] for m in self._adapter.maps])
        bias = torch.cat([m.bias for m in self._adapter.maps])
        mapped = torch.tensordot(weights, values, dims=1) + bias[:, None, None, None]
        with torch.no_grad():
            return {"logits": self._adapter(mapped[None])[0].numpy()}


def order(model: Path, card: EncoderCard, features: FeatureStore) -> dict[str, float]:
    """Return the Dice between masks of adapt-then-blend (the paper's order) and blend-then-adapt."""
    level = card.output("features_l1")
    settings = FewShotSegmenter(method="spatial", support=TRAIN, classes=",".join(CORE), levels=[level.name])
    fitted = settings.fit(features)
    mine = variant(card, "gaussian, overlap .25")
    runtime = OnnxEncoder(model, mine)
    logits_encoder = WindowLogits(runtime, mine, fitted.adapter, level)
    found = {}
    for case in TEST:
        volume = scan(mine, case)
        logits = np.concatenate([slab for _, slab in encode(volume, logits_encoder)], axis=3)
        blended = whole(encode(volume, runtime), mine)[level.name]
        weights = torch.cat([m.weights[level.name] for m in fitted.adapter.maps])
        bias = torch.cat([m.bias for m in fitted.adapter.maps])[:, None, None, None]
        with torch.no_grad():
            ours = fitted.adapter((torch.tensordot(weights, torch.from_numpy(blended), 1) + bias)[None])[0]
        assert level_grid(volume.grid, mine, level.name).shape == ours.shape[1:]
        a, b = logits.argmax(0), ours.argmax(0).numpy()
        scores = [2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in range(1, 6)]
        found[case] = float(np.mean(scores))
    return found


def rounding(rounded: FeatureStore, exact: FeatureStore) -> dict[str, float]:
    """Return the Dice between masks of one adapter on float16 and on float32 features."""
    fitted = fit(rounded, "spatial")
    found = {}
    for case in TEST:
        a, b = (fitted.predict(s.case(case)).values for s in (rounded, exact))
        scores = [2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in range(1, 6)]
        found[case] = float(np.mean(scores))
    return found


if __name__ == "__main__":
    main()
