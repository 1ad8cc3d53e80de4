"""Labels are whole numbers on the scan's own grid, with a name for every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from featcache.errors import ScanReadError
from featcache.geometry import Grid
from featcache.scans import LabelSource, LabelVolume, label_values, numbered_classes, read_labels

SHAPE = (4, 5, 6)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 2.0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1.0]])
GRID = Grid(SHAPE, AFFINE)
SCAN = Path("scans/a.nii.gz")
CLASSES = {"liver": 1, "spleen": 2, "colon": 5}


def _labels(*values: float, dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    voxels = np.zeros(shape, dtype)
    voxels.ravel()[: len(values)] = values
    return voxels


def _source(
    tmp_path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, *, name: str = "l", **known: Any
) -> LabelSource:
    path = tmp_path / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return LabelSource(path, **known)


def _read(source: LabelSource, **options: Any) -> LabelVolume:
    return read_labels(source, GRID, scan_path=SCAN, **options)


@pytest.mark.parametrize(
    ("highest", "stored", "dtype"),
    [
        (5, np.int16, np.uint8),
        (5, np.float32, np.uint8),
        (5, np.float64, np.uint8),
        (255, np.uint8, np.uint8),
        (256, np.int32, np.uint16),
        (70000, np.int32, np.uint32),
    ],
)
def test_smallest_unsigned_type(tmp_path: Path, highest: int, stored: Any, dtype: Any) -> None:
    voxels = _labels(highest, 1, dtype=stored)
    labels = _read(_source(tmp_path, voxels))
    assert labels.voxels.dtype == dtype
    np.testing.assert_array_equal(labels.voxels, voxels)
    assert labels.classes == {"1": 1, str(highest): highest}
    assert labels.codes == (2, 0)


def test_grid_is_the_scans_own_bit_by_bit(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 0.02  # a twenty-fifth of the smallest voxel
    assert _read(_source(tmp_path, _labels(1), moved)).grid == GRID


@pytest.mark.parametrize(
    ("known", "options", "annotated"),
    [
        ({}, {}, ("liver", "spleen", "colon")),
        ({}, {"annotated": "present"}, ("liver", "colon")),
        ({"annotated": ("spleen", "liver")}, {"annotated": "present"}, ("spleen", "liver")),
        ({"annotated": ()}, {}, ()),
    ],
    ids=["all", "present", "told", "told none"],
)
def test_annotated(tmp_path: Path, known: Any, options: Any, annotated: tuple[str, ...]) -> None:
    source = _source(tmp_path, _labels(1, 5), classes=CLASSES, group="p1", **known)
    labels = _read(source, **options)
    assert labels.annotated == annotated
    assert labels.classes == CLASSES
    assert labels.group == "p1"


def test_names_unknown_are_the_values_of_all_files(tmp_path: Path) -> None:
    a = _source(tmp_path, _labels(1, 3), name="a")
    b = _source(tmp_path, _labels(3, 700, dtype=np.float32), name="b")
    assert label_values([a, b]) == (1, 3, 700)
    labels = _read(a, classes=numbered_classes(label_values([a, b])))
    assert labels.classes == {"1": 1, "3": 3, "700": 700}
    assert labels.annotated == ("1", "3", "700")
    assert _read(a).annotated == ("1", "3")


def test_an_unnamed_class_may_be_annotated_and_absent(tmp_path: Path) -> None:
    labels = _read(_source(tmp_path, _labels(1), annotated=("1", "4")))
    assert labels.classes == {"1": 1, "4": 4}
    assert labels.annotated == ("1", "4")


def test_empty_labels(tmp_path: Path) -> None:
    labels = _read(_source(tmp_path, _labels()))
    assert (labels.classes, labels.annotated, labels.voxels.dtype) == ({}, (), np.uint8)


SHIFTED = AFFINE + 0.06 * np.outer([1, 0, 0, 0], [0, 0, 0, 1])  # 0.12 of the smallest voxel
FLIPPED = AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1.0]])
MANY = np.arange(1200, dtype=np.int16).reshape(10, 10, 12)
BAD: list[tuple[str, np.ndarray, np.ndarray, dict[str, Any], list[str]]] = [
    ("fractions", _labels(0.5, 1, dtype=np.float32), AFFINE, {}, ["1 of 120", "whole numbers"]),
    ("negative", _labels(-1, 1), AFFINE, {}, ["from -1 to 1"]),
    ("NaN", _labels(np.nan, dtype=np.float32), AFFINE, {}, ["1 of 120", "NaN", "use the label map"]),
    ("shape", _labels(1, shape=(4, 5, 7)), AFFINE, {}, [str(SCAN), "(4, 5, 7)", "(4, 5, 6)"]),
    ("moved", _labels(1), SHIFTED, {}, [str(SCAN), "(4, 5, 6)", "0.12 voxels"]),
    ("flipped", _labels(1), FLIPPED, {}, [str(SCAN), "LPS", "LAS", "voxels apart"]),
    ("unnamed value", _labels(1, 3, 9), AFFINE, {"classes": CLASSES}, ["[3, 9]", "labels.json"]),
    (
        "unknown annotated",
        _labels(1),
        AFFINE,
        {"classes": CLASSES, "annotated": ("lung",)},
        ["lung", "colon"],
    ),
    ("unknown annotated number", _labels(1), AFFINE, {"annotated": ("lung",)}, ["lung", "annotated"]),
]


@pytest.mark.parametrize(
    ("voxels", "affine", "known", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_what_is_wrong_is_said(
    tmp_path: Path, voxels: np.ndarray, affine: np.ndarray, known: dict[str, Any], words: list[str]
) -> None:
    source = _source(tmp_path, voxels, affine, **known)
    with pytest.raises(ScanReadError) as caught:
        _read(source)
    message = str(caught.value)
    assert str(source.path) in message
    assert [word for word in words if word not in message] == [], message


def test_an_image_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "l.nii.gz"
    nib.save(nib.Nifti1Image(MANY, np.eye(4)), path)
    with pytest.raises(ScanReadError, match=r"1199 different values.*is this an image"):
        read_labels(LabelSource(path), Grid((10, 10, 12), np.eye(4)), scan_path=SCAN)
