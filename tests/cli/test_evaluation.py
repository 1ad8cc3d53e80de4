"""Masks and labels go together by case id and class name; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from adapters.evaluate import Report
from cli.evaluation import evaluate
from featcache.errors import FeatcacheError, ScanReadError, TaskError

SHAPE = (8, 9, 10)
AFFINE = np.array([[-1.0, 0, 0, 10], [0, 2.0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1.0]])
CLASSES = {"background": 0, "liver": 1, "kidney": 2}


def _volume(**blocks: tuple[int, int]) -> np.ndarray:
    """Labels with a block of `value` over the slices start..start+3 per keyword ``x=(value, start)``."""
    voxels = np.zeros(SHAPE, np.uint8)
    for value, start in blocks.values():
        voxels[start : start + 3, 2:6, 2:6] = value
    return voxels


def _save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def _names(folder: Path, classes: dict[str, int], name: str) -> None:
    (folder / name).write_text(json.dumps(classes), encoding="utf-8")


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases: a is perfect for liver and one slice off for kidney; in b the kidney is missed."""
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    _save(labels / "a.nii.gz", _volume(liver=(1, 0), kidney=(2, 4)))
    _save(masks / "a.nii.gz", _volume(liver=(1, 0), kidney=(2, 5)))
    _save(labels / "b.nii.gz", _volume(liver=(1, 0), kidney=(2, 4)))
    _save(masks / "b.nii.gz", _volume(liver=(1, 0)))
    _names(masks, CLASSES, "classes.json")
    _names(labels, CLASSES, "labels.json")
    return masks, labels


def _outcomes(report: Report) -> dict[tuple[str, str], tuple[str, float | None]]:
    return {
        (r.case, r.name): (r.score.outcome, r.score.dice and pytest.approx(r.score.dice)) for r in report.rows
    }


EXPECTED = {
    ("a", "liver"): ("scored", 1.0),
    ("a", "kidney"): ("scored", 2 / 3),
    ("b", "liver"): ("scored", 1.0),
    ("b", "kidney"): ("missed", 0.0),
}


def test_numbers(places: tuple[Path, Path], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = evaluate(
        *places, tolerance_mm=0.5, csv=tmp_path / "r.csv", progress=lambda *done: calls.append(done)
    )
    assert _outcomes(report) == EXPECTED
    scores = {(r.case, r.name): r.score for r in report.rows}
    # The block moved by one voxel of 1 mm along x: both end plates of 4 x 4 are 1 mm off, and the rim of
    # the middle lies on the other's surface.
    assert scores["a", "kidney"].hd95_mm == pytest.approx(1.0)
    assert 0 < scores["a", "kidney"].nsd < 1
    assert scores["b", "kidney"].hd95_mm == pytest.approx(np.linalg.norm(np.multiply(SHAPE, (1, 2, 3))))
    assert report.exit_code == 0
    assert report.notes == ()
    assert report.settings["labels"] == "labels"
    assert str(tmp_path) not in json.dumps(report.to_json())
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5
    assert calls == [(1, 2), (2, 2)]
    assert evaluate(*places, tolerance_mm=1.0).rows[1].score.nsd == 1.0


def test_names_decide_and_not_values(places: tuple[Path, Path]) -> None:
    masks, labels = places
    for case in "ab":
        voxels = np.asarray(nib.load(masks / f"{case}.nii.gz").dataobj)
        _save(masks / f"{case}.nii.gz", np.array([0, 9, 4], np.uint8)[voxels])
    _names(masks, {"background": 0, "kidney": 4, "liver": 9}, "classes.json")
    assert _outcomes(evaluate(masks, labels)) == EXPECTED


def test_labels_of_other_names_are_mapped_and_merged(places: tuple[Path, Path]) -> None:
    masks, labels = places
    merged = _volume(liver=(1, 0), left=(2, 4), right=(3, 5))
    _save(labels / "a.nii.gz", merged)
    _names(labels, {"hepar": 1, "left": 2, "right": 3}, "labels.json")
    report = evaluate(masks, labels, classes="liver=hepar,kidney=left+3")
    truth = np.isin(merged, (2, 3))
    found = np.asarray(nib.load(masks / "a.nii.gz").dataobj) == 2
    kidney = next(r.score for r in report.rows if (r.case, r.name) == ("a", "kidney"))
    assert kidney.dice == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert kidney.dice < 1
    part = evaluate(masks, labels, classes="liver=1")
    assert part.classes == ("liver",)
    assert "kidney" in part.notes[0]


def test_labels_without_names_need_to_be_told(places: tuple[Path, Path]) -> None:
    masks, labels = places
    (labels / "labels.json").unlink()
    _save(labels / "b.nii.gz", _volume(liver=(1, 0), other=(7, 4)))
    with pytest.raises(TaskError, match=r"no class names, the masks have \['liver', 'kidney'\].*--classes"):
        evaluate(masks, labels)
    report = evaluate(masks, labels, classes="liver=1,kidney=2")
    assert _outcomes(report) == EXPECTED | {("b", "kidney"): ("both_empty", None)}
    assert "[7]" in report.notes[-1]
    assert _outcomes(evaluate(masks, labels, classes="liver=1,kidney=2+7")) == EXPECTED


def test_numbers_as_names_are_label_values(tmp_path: Path) -> None:
    """An adapter trained on labels without names calls its classes by the labels' values."""
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    _save(labels / "a.nii.gz", _volume(x=(2, 0), y=(5, 4)))
    _save(masks / "a.nii.gz", _volume(x=(2, 4), y=(1, 0)))
    _names(masks, {"background": 0, "2": 1, "5": 2}, "classes.json")
    report = evaluate(masks, labels)
    assert _outcomes(report) == {("a", "2"): ("scored", 1.0), ("a", "5"): ("scored", 1.0)}


@pytest.mark.parametrize("named", ["labels", "neither"])
def test_masks_without_names(places: tuple[Path, Path], named: str) -> None:
    masks, labels = places
    (masks / "classes.json").unlink()
    names = {"liver": "liver", "kidney": "kidney"}
    if named == "neither":
        (labels / "labels.json").unlink()
        names = {"liver": "1", "kidney": "2"}
    report = evaluate(masks, labels)
    assert _outcomes(report) == {(case, names[name]): found for (case, name), found in EXPECTED.items()}
    assert "no classes.json" in report.notes[0]


def test_present_classes_alone_are_annotated(places: tuple[Path, Path]) -> None:
    masks, labels = places
    _save(labels / "a.nii.gz", _volume(liver=(1, 0)))
    assert _outcomes(evaluate(masks, labels))["a", "kidney"] == ("false_alarm", 0.0)
    assert _outcomes(evaluate(masks, labels, annotated="present"))["a", "kidney"] == ("not_annotated", None)
    (labels / "labels.json").unlink()
    told = "liver=1,kidney=2"
    assert _outcomes(evaluate(masks, labels, classes=told))["a", "kidney"] == ("false_alarm", 0.0)
    report = evaluate(masks, labels, classes=told, annotated="present")
    assert _outcomes(report)["a", "kidney"] == ("not_annotated", None)


def test_a_table_of_labels(places: tuple[Path, Path], tmp_path: Path) -> None:
    masks = places[0]
    rows = "Image,Label,Case,Annotated\nscans/a_0000.nii.gz,labels/a.nii.gz,,liver\n,labels/b.nii.gz,b,\n"
    table = tmp_path / "truth.csv"
    table.write_text(rows + ",labels/b.nii.gz,c,liver;kidney\n", encoding="utf-8")
    report = evaluate(masks, table)
    assert _outcomes(report) == EXPECTED | {("a", "kidney"): ("not_annotated", None)}
    assert report.missing_predictions == ("c",)


def test_single_files(places: tuple[Path, Path]) -> None:
    masks, labels = places
    report = evaluate(masks / "a.nii.gz", labels / "b.nii.gz")
    assert _outcomes(report) == {k: v for k, v in EXPECTED.items() if k[0] == "a"}


def test_cases_without_a_partner_are_listed(places: tuple[Path, Path]) -> None:
    masks, labels = places
    _save(labels / "c.nii.gz", _volume())
    _save(masks / "d.nii.gz", _volume())
    report = evaluate(masks, labels)
    assert _outcomes(report) == EXPECTED
    assert (report.missing_predictions, report.masks_without_truth, report.exit_code) == (("c",), ("d",), 3)


SHIFTED = AFFINE + 0.12 * np.outer([1, 0, 0, 0], [0, 0, 0, 1])
FLIPPED = AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, 8], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [
        (np.zeros((8, 9, 11), np.uint8), AFFINE, ["(8, 9, 11)", "(8, 9, 10)"]),
        (_volume(), SHIFTED, ["0.12 voxels"]),
        (_volume(), FLIPPED, ["LPS", "LAS"]),
        (_volume(x=(3, 0)), AFFINE, ["[3]", "liver"]),
    ],
    ids=["shape", "moved", "flipped", "value without a name"],
)
def test_a_mask_that_does_not_fit_fails_alone(
    places: tuple[Path, Path], voxels: np.ndarray, affine: np.ndarray, words: list[str]
) -> None:
    masks, labels = places
    bad = _save(masks / "a.nii.gz", voxels, affine)
    report = evaluate(masks, labels)
    assert {r.case for r in report.rows} == {"b"}
    assert list(report.failed) == ["a"]
    assert [w for w in [str(bad), *words] if w not in report.failed["a"]] == [], report.failed["a"]
    if "[3]" not in words:
        assert str(labels / "a.nii.gz") in report.failed["a"]
    assert report.exit_code == 3


@pytest.mark.parametrize("names", [True, False])
def test_damaged_labels_fail_alone(places: tuple[Path, Path], names: bool) -> None:
    masks, labels = places
    (labels / "a.nii.gz").write_bytes((labels / "a.nii.gz").read_bytes()[:-20])
    if not names:
        (masks / "classes.json").unlink()
        (labels / "labels.json").unlink()
    report = evaluate(masks, labels)
    assert ({r.case for r in report.rows}, list(report.failed)) == ({"b"}, ["a"])
    (labels / "b.nii.gz").write_bytes(b"")
    if names:
        assert evaluate(masks, labels).exit_code == 1


def test_a_mask_within_a_tenth_of_a_voxel_fits(places: tuple[Path, Path]) -> None:
    masks, labels = places
    near = AFFINE + 0.05 * np.outer([1, 0, 0, 0], [0, 0, 0, 1])
    _save(masks / "a.nii.gz", _volume(liver=(1, 0), kidney=(2, 5)), near)
    assert _outcomes(evaluate(masks, labels)) == EXPECTED


def _unlink(name: str) -> Any:
    return lambda masks, labels: (labels / name).unlink()


WRONG: list[tuple[str, Any, dict[str, Any], type[FeatcacheError], list[str]]] = [
    (
        "no common name",
        lambda masks, labels: _names(labels, {"hepar": 1, "ren": 2}, "labels.json"),
        {},
        TaskError,
        ["['liver', 'kidney']", "['hepar', 'ren']", "--classes"],
    ),
    ("unknown mask class", None, {"classes": "lung=1"}, TaskError, ["['lung']", "['liver', 'kidney']"]),
    ("unknown label class", None, {"classes": "liver=hepar"}, TaskError, ["'hepar'", "liver (1)"]),
    (
        "names of nameless labels",
        _unlink("labels.json"),
        {"classes": "liver=hepar"},
        TaskError,
        ["hepar", "liver=1"],
    ),
    ("tolerance", None, {"tolerance_mm": -2.0}, TaskError, ["-2.0 mm"]),
    (
        "no class",
        lambda masks, labels: _names(masks, {"background": 0}, "classes.json"),
        {},
        TaskError,
        ["no class but background"],
    ),
    (
        "no case in common",
        lambda masks, labels: [p.rename(p.with_name(f"x{p.name}")) for p in masks.glob("*.gz")],
        {},
        ScanReadError,
        ["xa, xb", "of a, b"],
    ),
    (
        "no masks",
        lambda masks, labels: [p.unlink() for p in masks.glob("*.gz")],
        {},
        ScanReadError,
        ["no masks", "classes.json"],
    ),
    (
        "no labels",
        lambda masks, labels: [p.unlink() for p in labels.glob("*.gz")],
        {},
        ScanReadError,
        ["no labels", "labels.json"],
    ),
]


@pytest.mark.parametrize(
    ("change", "options", "kind", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_with_all_is_said_at_once(
    places: tuple[Path, Path],
    change: Any,
    options: dict[str, Any],
    kind: type[FeatcacheError],
    words: list[str],
) -> None:
    if change is not None:
        change(*places)
    with pytest.raises(kind) as caught:
        evaluate(*places, **options)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


def test_several_masks_for_one_label_file(places: tuple[Path, Path]) -> None:
    masks, labels = places
    with pytest.raises(ScanReadError, match=r"2 masks.*one label file"):
        evaluate(masks, labels / "a.nii.gz")
    with pytest.raises(ScanReadError, match="no such file or folder"):
        evaluate(masks, labels / "nothing")


def test_labels_whose_names_differ_need_named_masks(places: tuple[Path, Path]) -> None:
    masks, labels = places
    (masks / "classes.json").unlink()
    _names(labels, {"hepar": 1, "ren": 2}, "b.json")
    with pytest.raises(TaskError, match=r"names differ.*hepar.*classes\.json"):
        evaluate(masks, labels)
