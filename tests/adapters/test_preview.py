"""A picture per case, whatever the mask holds."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adapters.features import FeatureVolume
from adapters.inference import Segmentation
from adapters.preview import _on_features, save_preview
from featcache.card import Output
from featcache.store import FeatureStore

CLASSES = {"liver": 1, "spleen": 2}


@pytest.mark.parametrize("empty", [False, True])
def test_a_png_is_written(
    store: FeatureStore, synthetic: SimpleNamespace, tmp_path: Path, empty: bool
) -> None:
    case = store.case("a")
    values = synthetic.box_labels(0, [1, 2]) * (not empty)
    save_preview(tmp_path / "a.png", case, ["fine", "coarse"], _result(synthetic, values))
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 2 * height > 400
    assert len(data) > 10_000, "a picture of something"


def test_few_channels(fakes: Any, synthetic: SimpleNamespace, tmp_path: Path) -> None:
    card = fakes.make_card([Output("one", 1, (1, 1, 1), (0, 0, 0))])
    store = synthetic.make_store(tmp_path / "features.zarr", card, cases=("a",))
    save_preview(
        tmp_path / "a.png", store.case("a"), ["one"], _result(synthetic, synthetic.box_labels(0, [1, 2]))
    )
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_mask_lies_over_the_features(store: FeatureStore, synthetic: SimpleNamespace) -> None:
    values = synthetic.box_labels(0, [1, 2])
    volume = FeatureVolume(store.case("a"), ["fine"])
    mask = _on_features(volume, _result(synthetic, values))
    features = volume.read((0, 0, 0), volume.grid.shape).numpy()
    means = synthetic.directions(6, 4, 0)
    for value in (1, 2):
        assert np.allclose(features[:, mask == value].mean(1), means[value], atol=0.1)


def _result(synthetic: SimpleNamespace, values: np.ndarray) -> Segmentation:
    return Segmentation(values, synthetic.NATIVE, (1, 0), CLASSES)
