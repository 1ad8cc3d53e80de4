"""Case ids are stable, safe as folder names, and the same however a scan was found."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from featcache.errors import ScanReadError
from featcache.scans.classes import parse_classes
from featcache.scans.names import case_id, listed_id


@pytest.mark.parametrize(
    ("relative", "case"),
    [
        ("a.nii.gz", "a"),
        ("a.NII", "a"),
        ("a_0000.nii.gz", "a"),
        ("a_0001.nii.gz", "a_0001"),
        ("a.b-c_d.nii", "a.b-c_d"),
        ("x/y/a.nii.gz", "x__y__a"),
        ("a b(c)#.nii.gz", "a_b_c__"),
        ("imagesTr/a.nii.gz", "a"),
        ("x/imagesTr/a.nii.gz", "x__imagesTr__a"),
        ("images", "images"),
        ("..a.nii.gz", "a"),
        ("Mu\u0308ller.nii.gz", "M\u00fcller"),
    ],
)
def test_case_id(relative: str, case: str) -> None:
    assert case_id(PurePosixPath(relative)) == case


@pytest.mark.parametrize("listed", ["/data/a.nii.gz", "../elsewhere/a.nii.gz", "images/a.nii.gz"])
def test_listed_id_does_not_carry_where_the_data_lie(listed: str) -> None:
    assert listed_id(Path(listed)) == "a"


def test_no_id_left() -> None:
    with pytest.raises(ScanReadError, match="case id"):
        case_id(PurePosixPath("_0000.nii.gz"))


@pytest.mark.parametrize(
    "document",
    [
        {"background": 0, "liver": 1, "spleen": 2},
        {"0": "background", "1": "liver", "2": "spleen"},
        {"liver": "1", "spleen": 2},
        {"1": "liver", "2": "spleen"},
    ],
)
def test_classes_in_either_direction(document: dict[str, object]) -> None:
    assert parse_classes(document, Path("labels.json")) == {"liver": 1, "spleen": 2}


@pytest.mark.parametrize("document", [{}, [], {"liver": -1}, {"liver": True}, {"liver": 1.5}, {"": 1}, None])
def test_malformed_classes(document: object) -> None:
    with pytest.raises(ScanReadError, match=r"labels\.json"):
        parse_classes(document, Path("labels.json"))
