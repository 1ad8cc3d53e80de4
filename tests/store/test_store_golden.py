"""Stores written by format versions 1 and 2 open for ever. Run this file as a script to write v2 (never again)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featcache.calibrate import calibrate
from featcache.geometry import Grid, whole
from featcache.head import LinearHead
from featcache.store import CaseInfo, FeatureStore, RootDocument, StoreWriter, verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NATIVE = Grid((9, 8, 7), np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5.25], [0, 0, 0, 1]]))
LEVEL = Grid((5, 4, 11), np.diag([4.0, 4.0, 2.0, 1.0]))
FEATURES = np.sin(np.arange(3 * 5 * 4 * 11)).reshape(3, 5, 4, 11).astype(np.float32)
# In [1, 2) three mantissa bits are eighths; a sixteenth more than one would be a tie.
FEATURES_OF_EIGHTHS = (1 + np.abs(FEATURES) * 0.87).astype(np.float32)
SCALES = [0.08064121007919312, 0.08064436912536621, 0.0806160718202591]
FIRST = [-0.03205156326293945, 0.048630595207214355, 0.21045124530792236]
LABELS = (np.arange(9 * 8 * 7) % 3).reshape(9, 8, 7).astype(np.uint8)


def test_version_1_opens() -> None:
    assert not verify(GOLDEN / "v1.zarr").findings
    store = FeatureStore.open(GOLDEN / "v1.zarr")
    assert store.root.card == {"name": "golden"}
    case = store.case("case_1")
    assert case.info.native == NATIVE
    assert case.info.codes == (1, 2)
    assert case.info.foreground == ((0, 9), (0, 8), (0, 7))
    for name, tolerance in (("half", 1e-3), ("single", 0.0)):
        level = case.level(name)
        assert level.grid == LEVEL
        found = level.read((0, 0, 0), LEVEL.shape)
        assert np.abs(found - FEATURES).max() <= tolerance
    labels = case.labels()
    assert labels is not None
    assert np.array_equal(labels.read(), LABELS)
    assert (labels.classes, labels.annotated, labels.group) == ({"a": 1, "b": 2}, ("a",), "patient 1")


def test_version_2_opens() -> None:
    assert not verify(GOLDEN / "v2.zarr").findings
    store = FeatureStore.open(GOLDEN / "v2.zarr")
    assert store.root.format_version == 2
    assert store.root.calibration is not None
    assert store.root.calibration["case"] == "case_1"
    case = store.case("case_1")
    five, few = case.level("five"), case.level("few")
    assert five.calibration is not None
    found = five.read((0, 0, 0), LEVEL.shape)
    assert np.abs(found - FEATURES).max() <= five.calibration.scale.max() / 2 + 1e-6
    # The figures of the day it was written, to the last bit.
    assert five.calibration.scale.tolist() == SCALES
    assert found[:, 0, 0, 0].tolist() == FIRST
    assert np.array_equal(few.read((0, 0, 0), LEVEL.shape), np.round(FEATURES_OF_EIGHTHS * 8) / 8)
    assert case.levels["five"].stored_error.head_agreement is not None
    assert case.levels["few"].precision.name == "float16-m3"


def write_version_2() -> None:
    found = calibrate("case_1", [("five", FEATURES)], 5)
    root = RootDocument(
        encoder_id="0" * 64,
        recipe_id="2" * 64,
        card={"name": "golden"},
        recipe={"store_precision": "int5"},
        software="featcache 0.1.0",
        head=LinearHead(
            "five", ("a", "b"), np.eye(2, 3, dtype=np.float32), np.zeros(2, np.float32), False, 1.0
        ).to_json(),
        calibration=found.to_json(),
        format_version=2,
    )
    with StoreWriter.open(GOLDEN / "v2.zarr", root) as writer:
        info = CaseInfo(NATIVE, (1, 2), NATIVE, "HU", whole(NATIVE), ["as it is"])
        with writer.new_case("case_1", info) as new:
            head = LinearHead.from_json(root.head or {})
            new.level("five", LEVEL, 3, "int5", calibration=found.levels["five"], head=head).append(FEATURES)
            new.level("few", LEVEL, 3, "float16-m3").append(FEATURES_OF_EIGHTHS)
            new.commit()
        writer.write_labels("case_1", LABELS, NATIVE, (1, 2), classes={"a": 1, "b": 2}, annotated=["a"])


if __name__ == "__main__":
    write_version_2()
