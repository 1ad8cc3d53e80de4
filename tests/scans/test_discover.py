"""Where scans, labels and class names are found, and what is said where they are not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from featcache.errors import ScanReadError
from featcache.scans import Discovery, discover

NAMES = {"background": 0, "liver": 1, "spleen": 2}
CLASSES = {"liver": 1, "spleen": 2}


def _make(root: Path, files: list[str], contents: dict[str, object]) -> None:
    """Create files; discovery reads no voxel, so empty ones do."""
    for name in [*files, *contents]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        content = contents.get(name, "")
        text = content if isinstance(content, str) else json.dumps(content)
        (root / name).write_text(text, encoding="utf-8")


@dataclass
class Layout:
    """Files, what is asked for, and what must be found."""

    files: list[str]
    cases: dict[str, str]
    contents: dict[str, object] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=lambda: ["in"])
    given: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    classes: dict[str, int] | None = None
    note: str = ""
    ignored: list[str] = field(default_factory=list)


LAYOUTS = {
    "flat": Layout(
        ["in/a.nii.gz", "in/b.nii", "in/._a.nii.gz", "in/.hidden/c.nii.gz", "in/readme.txt"],
        {"a": "in/a.nii.gz", "b": "in/b.nii"},
        note="no labels found",
        ignored=["in/readme.txt"],
    ),
    "nested, odd names": Layout(
        ["in/site A/p(1)_0000.nii.gz", "in/B/deep/x.nii.gz", "in/..odd.nii", "in/C.NII.GZ"],
        {
            "site_A__p_1_": "in/site A/p(1)_0000.nii.gz",
            "B__deep__x": "in/B/deep/x.nii.gz",
            "C": "in/C.NII.GZ",
        },
    ),
    "labels inside": Layout(
        ["in/a.nii.gz", "in/b.nii.gz", "in/labels/a.nii.gz"],
        {"a": "in/a.nii.gz", "b": "in/b.nii.gz"},
        {"in/labels/labels.json": NAMES},
        labels={"a": "in/labels/a.nii.gz"},
        classes=CLASSES,
        note="(1 of 2 cases)",
    ),
    "labels beside any folder": Layout(
        ["scans/a.nii.gz", "labels/a.nii.gz"],
        {"a": "scans/a.nii.gz"},
        {"labels.json": NAMES},
        ["scans"],
        labels={"a": "labels/a.nii.gz"},
        classes=CLASSES,
    ),
    "nested labels": Layout(
        ["in/x/a.nii.gz", "in/labels/x/a.nii.gz"],
        {"x__a": "in/x/a.nii.gz"},
        labels={"x__a": "in/labels/x/a.nii.gz"},
        note="no class names",
    ),
    "labels under a telling name": Layout(
        ["in/ct.nii.gz", "in/ct_labels.nii.gz", "in/mr.nii.gz", "in/mr_seg.nii.gz", "in/lone_seg.nii.gz"],
        {"ct": "in/ct.nii.gz", "lone_seg": "in/lone_seg.nii.gz", "mr": "in/mr.nii.gz"},
        {"in/ct_labels.json": NAMES, "in/mr_seg.json": NAMES},
        labels={"ct": "in/ct_labels.nii.gz", "mr": "in/mr_seg.nii.gz"},
        classes=CLASSES,
        ignored=["in/ct_labels.json", "in/mr_seg.json"],
    ),
    "images and labels inside": Layout(
        ["in/images/a.nii.gz", "in/labels/a.nii.gz", "in/cases.csv", "in/other/z.nii.gz"],
        {"a": "in/images/a.nii.gz"},
        {"in/labels.json": NAMES},
        labels={"a": "in/labels/a.nii.gz"},
        classes=CLASSES,
        note="cases.csv was not read",
        ignored=["in/cases.csv", "in/other"],
    ),
    "images given": Layout(
        ["in/images/a.nii.gz", "in/labels/a.nii.gz"],
        {"a": "in/images/a.nii.gz"},
        inputs=["in/images"],
        labels={"a": "in/labels/a.nii.gz"},
    ),
    "imagesTr given": Layout(
        ["in/imagesTr/a_0000.nii.gz", "in/labelsTr/a.nii.gz"],
        {"a": "in/imagesTr/a_0000.nii.gz"},
        {"in/dataset.json": {"labels": {"0": "background", "1": "liver", "2": "spleen"}}},
        inputs=["in/imagesTr"],
        labels={"a": "in/labelsTr/a.nii.gz"},
        classes=CLASSES,
        note="(1 of 1 cases)",
    ),
    "nnU-Net": Layout(
        ["in/imagesTr/a_0000.nii.gz", "in/labelsTr/a.nii.gz", "in/imagesTs/t_0000.nii.gz"],
        {"a": "in/imagesTr/a_0000.nii.gz", "t": "in/imagesTs/t_0000.nii.gz"},
        {"in/dataset.json": {"channel_names": {"0": "CT"}, "labels": NAMES, "file_ending": ".nii.gz"}},
        labels={"a": "in/labelsTr/a.nii.gz"},
        classes=CLASSES,
    ),
    "Decathlon": Layout(
        ["in/imagesTr/a.nii.gz", "in/labelsTr/a.nii.gz", "in/imagesTs/t.nii.gz", "in/imagesTr/._a.nii.gz"],
        {"a": "in/imagesTr/a.nii.gz", "t": "in/imagesTs/t.nii.gz"},
        {
            "in/dataset.json": {
                "labels": {"0": "background", "1": "liver", "2": "spleen"},
                "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
                "test": ["./imagesTs/t.nii.gz", "./imagesTs/gone.nii.gz"],
            }
        },
        inputs=["in/dataset.json"],
        labels={"a": "in/labelsTr/a.nii.gz"},
        classes=CLASSES,
        note="1 of 2 test scans",
    ),
    "nnU-Net v1 list": Layout(
        ["in/imagesTr/a_0000.nii.gz", "in/labelsTr/a.nii.gz"],
        {"a": "in/imagesTr/a_0000.nii.gz"},
        {
            "in/dataset.json": {
                "labels": NAMES,
                "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
            }
        },
        labels={"a": "in/labelsTr/a.nii.gz"},
        classes=CLASSES,
    ),
    "cases numbered like channels, listed": Layout(
        ["in/imagesTr/c_0000.nii.gz", "in/imagesTr/c_0001.nii.gz"],
        {"c": "in/imagesTr/c_0000.nii.gz", "c_0001": "in/imagesTr/c_0001.nii.gz"},
        {"in/dataset.json": {"training": ["imagesTr/c_0000.nii.gz", "imagesTr/c_0001.nii.gz"]}},
    ),
    "single file": Layout(
        ["in/a.nii.gz", "in/b.nii.gz", "labels/a.nii.gz"],
        {"a": "in/a.nii.gz"},
        inputs=["in/a.nii.gz"],
        labels={"a": "labels/a.nii.gz"},
    ),
    "two places": Layout(
        ["in/a.nii.gz", "more/b.nii.gz"],
        {"a": "in/a.nii.gz", "b": "more/b.nii.gz"},
        inputs=["in", "more/b.nii.gz"],
    ),
    "table": Layout(
        ["in/images/a.nii.gz", "in/site/b.nii.gz", "in/lab/a.nii.gz"],
        {"a": "in/images/a.nii.gz", "second": "in/site/b.nii.gz"},
        {
            "in/t.csv": "\ufeffImage, label,case,group,annotated,split\n"
            "images/a.nii.gz,lab/a.nii.gz,,p1,liver; spleen,train\nsite/b.nii.gz,,second,,,test\n",
            "in/labels.json": NAMES,
        },
        inputs=["in/t.csv"],
        labels={"a": "in/lab/a.nii.gz"},
        classes=CLASSES,
    ),
    "--labels folder": Layout(
        ["in/a.nii.gz", "in/labels/a.nii.gz", "other/a_0000.nii.gz", "other/zzz.nii.gz"],
        {"a": "in/a.nii.gz"},
        {"other/labels.json": NAMES},
        given="other",
        labels={"a": "other/a_0000.nii.gz"},
        classes=CLASSES,
    ),
    "--labels file": Layout(
        ["in/a.nii.gz", "truth.nii.gz"],
        {"a": "in/a.nii.gz"},
        inputs=["in/a.nii.gz"],
        given="truth.nii.gz",
        labels={"a": "truth.nii.gz"},
    ),
    "--labels table by case": Layout(
        ["in/a.nii.gz", "in/b.nii.gz", "x/1.nii.gz", "x/2.nii.gz"],
        {"a": "in/a.nii.gz", "b": "in/b.nii.gz"},
        {"l.csv": "case,label\nb,x/1.nii.gz\nelsewhere,x/2.nii.gz\n"},
        given="l.csv",
        labels={"b": "x/1.nii.gz"},
    ),
    "--labels table by image": Layout(
        ["in/s/a.nii.gz", "x/1.nii.gz"],
        {"s__a": "in/s/a.nii.gz"},
        {"l.csv": "image,label\nin/s/a.nii.gz,x/1.nii.gz\n"},
        given="l.csv",
        labels={"s__a": "x/1.nii.gz"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout(tmp_path: Path, layout: Layout) -> None:
    _make(tmp_path, layout.files, layout.contents)
    given = None if layout.given is None else tmp_path / layout.given
    found = discover([tmp_path / name for name in layout.inputs], given)
    assert {s.case: s.path.relative_to(tmp_path).as_posix() for s in found.sources} == layout.cases
    assert _paths(found, tmp_path) == layout.labels
    for label in found.labels.values():
        assert label.classes == layout.classes
    assert layout.note in "\n".join(found.notes)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in found.ignored) == layout.ignored


def _paths(found: Discovery, root: Path) -> dict[str, str]:
    return {case: label.path.relative_to(root).as_posix() for case, label in found.labels.items()}


def test_a_table_gives_the_ids_that_its_folder_gives(tmp_path: Path) -> None:
    for name in ("s/a.nii.gz", "s/deep/b.nii.gz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)
    (tmp_path / "t.csv").write_text("image\ns/a.nii.gz\ns/deep/b.nii.gz\n", encoding="utf-8")
    by_table, by_folder = discover([tmp_path / "t.csv"]), discover([tmp_path / "s"])
    assert {s.case for s in by_table.sources} == {s.case for s in by_folder.sources} == {"a", "deep__b"}


def test_table_columns_reach_the_label(tmp_path: Path) -> None:
    layout = LAYOUTS["table"]
    _make(tmp_path, layout.files, layout.contents)
    label = discover([tmp_path / "in" / "t.csv"]).labels["a"]
    assert label.annotated == ("liver", "spleen")
    assert label.group == "p1"


def test_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, ["images/a.nii.gz", "labels/a.nii.gz"], {})
    monkeypatch.chdir(tmp_path / "images")
    assert list(discover([Path()]).labels) == ["a"]


def test_a_store_and_a_loop_of_links_are_not_searched(tmp_path: Path) -> None:
    _make(tmp_path, ["in/a.nii.gz", "in/features.zarr/b.nii.gz"], {})
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert [source.case for source in discover([tmp_path / "in"]).sources] == ["a"]


def test_a_dangling_link_is_a_scan_to_be_reported(tmp_path: Path) -> None:
    _make(tmp_path, ["in/a.nii.gz"], {})
    (tmp_path / "in" / "b.nii.gz").symlink_to(tmp_path / "gone")
    assert [source.case for source in discover([tmp_path / "in"]).sources] == ["a", "b"]


def test_ids_match_whatever_the_unicode_form(tmp_path: Path) -> None:
    _make(tmp_path, ["in/Mu\u0308ller.nii.gz", "in/labels/M\u00fcller.nii.gz"], {})
    assert list(discover([tmp_path / "in"]).labels) == ["M\u00fcller"]


def test_labels_of_an_inner_dataset_are_mentioned(tmp_path: Path) -> None:
    _make(tmp_path, ["in/ds/images/a.nii.gz", "in/ds/labels/a.nii.gz"], {})
    found = discover([tmp_path / "in"])
    assert [source.case for source in found.sources] == ["ds__images__a"]
    assert any("ds/labels is not used" in note for note in found.notes)


@dataclass
class Bad:
    """Files, what is asked for, and what the message must say."""

    files: list[str]
    words: list[str]
    contents: dict[str, object] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=lambda: ["in"])
    given: str | None = None


ONE = ["in/a.nii.gz"]
BAD = {
    "absent": Bad([], ["in: no such file or folder"]),
    "nothing there": Bad(
        [f"in/{n}.txt" for n in range(7)], ["no scans found", "0.txt, 1.txt", "(7 in all)", ".nii.gz"]
    ),
    "only labels": Bad(["in/labels/a.nii.gz"], ["no scans found", "labels/"]),
    "other file": Bad(["in/a.png"], ["a.png", ".nii.gz", "folder"], inputs=["in/a.png"]),
    "collision by suffix": Bad(["in/a.nii", "in/a.nii.gz"], ["in/a.nii ", "in/a.nii.gz", "'a'", "rename"]),
    "collision by case": Bad(["in/a.nii.gz", "in/A.nii"], ["in/A.nii ", "in/a.nii.gz"]),
    "collision by separator": Bad(["in/x/a.nii.gz", "in/x__a.nii.gz"], ["x/a.nii.gz", "x__a.nii.gz"]),
    "collision of places": Bad(
        ["in/a.nii.gz", "more/a.nii.gz"], ["in/a.nii.gz", "more/a.nii.gz"], inputs=["in", "more"]
    ),
    "collision of labels": Bad(
        ["in/a.nii.gz", "in/labels/a.nii.gz", "in/labels/a_0000.nii.gz"],
        ["labels/a.nii.gz", "labels/a_0000.nii.gz"],
    ),
    "channels": Bad(
        ["in/imagesTr/a_0000.nii.gz", "in/imagesTr/a_0001.nii.gz"],
        ["a_0000.nii.gz", "_0001", "single channel"],
        {"in/dataset.json": {"labels": NAMES, "channel_names": {"0": "T1", "1": "T2"}}},
    ),
    "channels of a listed case": Bad(
        ["in/imagesTr/a_0000.nii.gz", "in/imagesTr/a_0001.nii.gz"],
        ["a_0000.nii.gz", "_0001", "single channel"],
        {"in/dataset.json": {"labels": NAMES, "training": [{"image": "./imagesTr/a.nii.gz"}]}},
    ),
    "listed file absent": Bad(
        [],
        ["training[0]", "imagesTr/a.nii.gz"],
        {"in/dataset.json": {"training": [{"image": "./imagesTr/a.nii.gz"}]}},
    ),
    "other ending": Bad(
        ["in/imagesTr/a_0000.png"],
        ["dataset.json", "'.png'"],
        {"in/dataset.json": {"file_ending": ".png", "labels": NAMES}},
    ),
    "another JSON": Bad([], ["x.json", "training", "imagesTr"], {"in/x.json": {"a": 1}}, ["in/x.json"]),
    "broken JSON": Bad(ONE, ["dataset.json", "JSON"], {"in/dataset.json": "{"}),
    "regions": Bad(
        ["in/imagesTr/a_0000.nii.gz", "in/labelsTr/a.nii.gz"],
        ["dataset.json", "whole tumor", "labels.json"],
        {"in/dataset.json": {"labels": {"background": 0, "whole tumor": [1, 2]}}},
    ),
    "value twice": Bad(
        [*ONE, "in/labels/a.nii.gz"], ["labels.json", "twice"], {"in/labels.json": {"a": 1, "b": 1}}
    ),
    "background not 0": Bad(
        [*ONE, "in/labels/a.nii.gz"],
        ["labels.json", "background other than 0"],
        {"in/labels.json": {"background": 1, "b": 2}},
    ),
    "table without image": Bad(
        [], ["t.csv", "['scan', 'label']", "'image'"], {"in/t.csv": "scan,label\n"}, ["in/t.csv"]
    ),
    "table without rows": Bad([], ["t.csv", "no rows"], {"in/t.csv": "image,label\n"}, ["in/t.csv"]),
    "unknown scan in table": Bad(
        ONE,
        ["t.csv, line 3", "b.nii.gz", "no such file"],
        {"in/t.csv": "image\na.nii.gz\nb.nii.gz\n"},
        ["in/t.csv"],
    ),
    "unknown label in table": Bad(
        ONE,
        ["t.csv, line 2", "l.nii.gz", "no such file"],
        {"in/t.csv": "image,label\na.nii.gz,l.nii.gz\n"},
        ["in/t.csv"],
    ),
    "--labels absent": Bad(ONE, ["gone", "no such file"], given="gone"),
    "--labels for others": Bad(
        [*ONE, "other/zzz.nii.gz"], ["other", "zzz", "the scans are a"], given="other"
    ),
    "--labels file for two": Bad(
        [*ONE, "in/b.nii.gz", "t.nii.gz"], ["one label file for 2 scans"], given="t.nii.gz"
    ),
    "--labels table, case twice": Bad(
        [*ONE, "t.nii.gz"],
        ["l.csv, line 3", "second label", "'a'"],
        {"l.csv": "case,label\na,t.nii.gz\na,t.nii.gz\n"},
        given="l.csv",
    ),
    "--labels table without key": Bad(
        [*ONE, "t.nii.gz"], ["l.csv, line 2", "case nor image"], {"l.csv": "label\nt.nii.gz\n"}, given="l.csv"
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_said(tmp_path: Path, bad: Bad) -> None:
    _make(tmp_path, bad.files, bad.contents)
    given = None if bad.given is None else tmp_path / bad.given
    with pytest.raises(ScanReadError) as caught:
        discover([tmp_path / name for name in bad.inputs], given)
    message = str(caught.value)
    assert [word for word in bad.words if word not in message] == [], message
