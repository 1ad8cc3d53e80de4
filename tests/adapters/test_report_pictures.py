"""Pictures of a run's cases: which, on what, and which way up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from adapters.comparison import Run
from adapters.features import FeatureVolume
from adapters.metrics import Score
from adapters.report import case_pictures
from adapters.report.overlay import _feature_colours, _greys
from adapters.report.pictures import read_image
from adapters.segmenter import FewShotSegmenter, FittedSegmenter
from adapters.task import Task, TaskClass, task_of_all
from featcache.errors import GeometryError, TaskError
from featcache.geometry import apply_reorientation, axis_map, reorient, whole
from featcache.store import FeatureStore


@pytest.fixture(scope="module")
def fitted(store: FeatureStore) -> FittedSegmenter:
    """Return a segmenter that needs no steps."""
    return FewShotSegmenter(method="logistic", support=["a"], device="cpu").fit(store)


def run_of(**dice: float) -> Run:
    """Return a run with one class and the Dice of each case."""
    scores = {case: {"liver": Score("scored", value)} for case, value in dice.items()}
    return Run("logistic", 1, 0, ("a",), scores, 1.0, 1.0, 9, ())


def test_best_median_and_worst(fitted: FittedSegmenter, store: FeatureStore) -> None:
    pictures = case_pictures(fitted, store, run_of(b=0.5, c=0.9, d=0.1, e=0.6, a=0.4))
    assert [(p.rank, p.case, p.dice) for p in pictures] == [
        ("best", "c", 0.9),
        ("median", "b", 0.5),
        ("worst", "d", 0.1),
    ]
    assert all(p.png[:8] == b"\x89PNG\r\n\x1a\n" for p in pictures)
    assert pictures[0].run == "logistic, 1 shot, fold 0"
    again = case_pictures(fitted, store, run_of(c=0.9))
    assert [p.rank for p in again] == ["only"]
    assert again[0].png == pictures[0].png


def test_few_cases(fitted: FittedSegmenter, store: FeatureStore) -> None:
    assert [p.rank for p in case_pictures(fitted, store, run_of(b=0.5, c=0.9))] == ["best", "worst"]
    assert case_pictures(fitted, store, run_of()) == ()


def test_classes_that_were_not_learned_are_drawn(store: FeatureStore, fitted: FittedSegmenter) -> None:
    liver = FewShotSegmenter(method="logistic", support=["a"], classes="liver", device="cpu").fit(store)
    alone, both = (
        case_pictures(liver, store, run_of(b=1), task=t)[0] for t in (None, task_of_all(["liver", "spleen"]))
    )
    assert alone.png != both.png
    merged = Task((TaskClass("organ", ("liver", "spleen")),))
    assert case_pictures(fitted, store, run_of(b=1), task=merged)[0].png != both.png


def test_a_scan_lies_under_the_outlines(
    fitted: FittedSegmenter, store: FeatureStore, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).normal(size=synthetic.NATIVE.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, synthetic.NATIVE.affine), tmp_path / "b.nii.gz")
    assert np.allclose(read_image(tmp_path, store.case("b")), voxels)
    with_scan = case_pictures(fitted, store, run_of(b=1), images=tmp_path)[0]
    assert with_scan.background == "the scan"
    assert with_scan.png != case_pictures(fitted, store, run_of(b=1))[0].png
    with pytest.raises(TaskError, match=r"neither c\.nii\.gz nor c\.nii.*Leave --images out"):
        case_pictures(fitted, store, run_of(c=1), images=tmp_path)


@pytest.mark.parametrize("shape", [(14, 18, 15), (14, 18, 16)])
def test_a_scan_elsewhere_is_refused(
    store: FeatureStore, synthetic: SimpleNamespace, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "b.nii.gz")
    with pytest.raises(GeometryError, match=r"b\.nii\.gz.*case b.*leave --images out"):
        read_image(tmp_path, store.case("b"))


def test_colours_lie_where_their_features_lie(store: FeatureStore, synthetic: SimpleNamespace) -> None:
    """The picture's colours of one class are alike, and unlike the other's."""
    labels = synthetic.box_labels(1, [1, 2])
    case = store.case("b")
    grid, turn = reorient(case.info.native, "LPI")
    turned = apply_reorientation(labels, turn)
    for value, other in ((1, 0), (2, 0)):
        inside = np.argwhere(turned == value)
        centre: Any = tuple(int(n) for n in inside[len(inside) // 2])
        planes = _feature_colours(case, ["fine"], grid, centre, whole(grid))
        for axis, plane in enumerate(planes):
            cut = np.take(turned, centre[axis], axis)
            assert plane.shape == (*cut.shape, 3)
            apart = np.linalg.norm(plane[cut == value].mean(0) - plane[cut == other].mean(0))
            assert apart > 2 * plane[cut == value].std(0).mean()


def test_there_is_black_where_no_features_are(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    case = store.case("b")
    grid, _ = reorient(case.info.native, "LPI")
    box: Any = ((-3, grid.shape[0]), *whole(grid)[1:])
    planes = _feature_colours(case, ["fine"], grid, (5, 5, 5), box)
    assert not planes[2][:3].any(), "left of the scan"
    assert planes[2][3:].any(-1).all()
    assert axis_map(FeatureVolume(case, ["fine"]).grid, grid).scale  # of one scan


def test_hounsfield_units_have_a_window() -> None:
    image = np.full((4, 4, 4), 40.0)
    image[0] = -1000
    box: Any = ((0, 4),) * 3
    planes = _greys(image, "HU", (1, 1, 1), box)
    assert np.allclose(planes[0], 0.5)
    assert planes[1].shape == (4, 4, 3)
    assert not planes[1][0].any()
    flat = _greys(np.zeros((4, 4, 4)), "a.u.", (1, 1, 1), box)
    assert all(np.isfinite(plane).all() for plane in flat)
