"""A store written by format version 1 opens for ever. Run this file as a script to write one (never again for v1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featcache.geometry import Grid, whole
from featcache.store import CaseInfo, FeatureStore, RootDocument, StoreWriter, verify

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1.zarr"
NATIVE = Grid((9, 8, 7), np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5.25], [0, 0, 0, 1]]))
LEVEL = Grid((5, 4, 11), np.diag([4.0, 4.0, 2.0, 1.0]))
FEATURES = np.sin(np.arange(3 * 5 * 4 * 11)).reshape(3, 5, 4, 11).astype(np.float32)
LABELS = (np.arange(9 * 8 * 7) % 3).reshape(9, 8, 7).astype(np.uint8)


def test_version_1_opens() -> None:
    assert not verify(GOLDEN).findings
    store = FeatureStore.open(GOLDEN)
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


if __name__ == "__main__":
    root = RootDocument("0" * 64, "1" * 64, {"name": "golden"}, {"spacing": None}, "featcache 0.1.0")
    with StoreWriter.open(GOLDEN, root) as writer:
        info = CaseInfo(NATIVE, (1, 2), NATIVE, "HU", whole(NATIVE), ["as it is"])
        with writer.new_case("case_1", info) as new:
            new.level("half", LEVEL, 3, "float16").append(FEATURES)
            new.level("single", LEVEL, 3, "float32").append(FEATURES)
            new.commit()
        writer.write_labels(
            "case_1", LABELS, NATIVE, (1, 2), classes={"a": 1, "b": 2}, annotated=["a"], group="patient 1"
        )
