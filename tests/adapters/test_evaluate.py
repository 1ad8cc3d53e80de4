"""Summaries count what they leave out, and what is written is strict JSON and plain CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.evaluate import Report, Row, Spread, overall, summarise, table, write_csv, write_json
from adapters.metrics import Score
from featcache.errors import FeatcacheError, TaskError

WORST = 500.0
ROWS = (
    Row("a", "liver", Score("scored", 0.9, 0.8, 2.0)),
    Row("a", "kidney", Score("both_empty")),
    Row("a", "node", Score("not_annotated")),
    Row("b", "liver", Score("missed", 0.0, 0.0, WORST)),
    Row("b", "kidney", Score("scored", 0.6, 0.5, 8.0)),
    Row("b", "node", Score("both_empty")),
    Row("c", "liver", Score("false_alarm", 0.0, 0.0, WORST)),
    Row("c", "kidney", Score("not_annotated")),
    Row("c", "node", Score("not_annotated")),
)


def _report(**other: Any) -> Report:
    given: dict[str, Any] = {
        "settings": {"tolerance_mm": 2.0},
        "classes": ("liver", "kidney", "node"),
        "rows": ROWS,
    }
    return Report(**(given | other))


def test_a_failure_enters_every_mean() -> None:
    liver = summarise(_report())["liver"]
    assert (liver.n, liver.missed, liver.false_alarms) == (3, 1, 1)
    assert liver.dice.mean == pytest.approx(0.3)
    assert liver.dice.sd == pytest.approx(0.27**0.5)  # sample: (.6² + .3² + .3²) / 2
    assert liver.hd95_mm.mean == pytest.approx(1002 / 3)


def test_what_is_excluded_is_counted() -> None:
    summary = summarise(_report())
    kidney, node = summary["kidney"], summary["node"]
    assert (kidney.n, kidney.both_empty, kidney.not_annotated) == (1, 1, 1)
    assert kidney.dice == Spread(0.6, None)
    assert (node.n, node.both_empty, node.not_annotated, node.dice) == (0, 1, 2, Spread(None, None))


def test_classes_count_alike_in_the_overall_mean() -> None:
    mean = overall(summarise(_report()).values())
    assert (mean.classes, mean.n, mean.missed, mean.false_alarms) == (2, 4, 1, 1)
    assert (mean.both_empty, mean.not_annotated) == (2, 3)
    assert mean.dice == pytest.approx((0.3 + 0.6) / 2)
    assert mean.hd95_mm == pytest.approx((1002 / 3 + 8) / 2)
    assert overall([]).dice is None


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    report = _report(
        missing_predictions=("d",),
        masks_without_truth=("e",),
        failed={"f": "/home/x/f.nii.gz: bad"},
        notes=("n",),
    )
    path = tmp_path / "report.json"
    write_json(report, path)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert document == report.to_json()
    assert document["settings"] == {"tolerance_mm": 2.0}
    assert document["cases"]["b"]["liver"] == {"outcome": "missed", "dice": 0.0, "nsd": 0.0, "hd95_mm": WORST}
    assert document["cases"]["a"]["node"]["dice"] is None
    assert document["summary"]["classes"]["node"]["hd95_mm"] == {"mean": None, "sd": None}
    assert document["summary"]["mean_of_classes"]["n"] == 4
    assert (document["missing_predictions"], document["masks_without_truth"]) == (["d"], ["e"])
    assert document["failed"] == ["f"]
    assert "/home" not in path.read_text(encoding="utf-8")


def test_csv_has_a_line_per_case_and_class(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_csv(_report(), path)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(ROWS)
    assert lines[0] == {
        "case": "a", "class": "liver", "outcome": "scored", "dice": "0.9", "nsd": "0.8", "hd95_mm": "2.0",
    }  # fmt: skip
    assert (lines[1]["outcome"], lines[1]["dice"], lines[1]["hd95_mm"]) == ("both_empty", "", "")


def test_table() -> None:
    titles, rows = table(_report())
    assert titles[3] == "NSD at 2 mm"
    assert {len(row) for row in rows} == {len(titles)}
    assert rows[0] == ["liver", "3", "0.300 ± 0.520", "0.267 ± 0.462", "334.0 ± 287.5", "1", "1", "0", "0"]
    assert rows[1][:3] == ["kidney", "1", "0.600"]
    assert rows[2][:5] == ["node", "0", "-", "-", "-"]
    assert rows[3][:3] == ["mean of 2", "4", "0.450"]


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({}, 0),
        ({"masks_without_truth": ("e",)}, 0),
        ({"missing_predictions": ("d",)}, 3),
        ({"failed": {"f": "damaged"}}, 3),
        ({"rows": (), "failed": {"f": "damaged"}}, 1),
    ],
)
def test_exit_code(other: dict[str, Any], code: int) -> None:
    assert _report(**other).exit_code == code


@pytest.mark.parametrize("rows", [(ROWS[0], ROWS[0]), (Row("a", "lung", Score("both_empty")),)])
def test_rows_are_unique_and_known(rows: tuple[Row, ...]) -> None:
    with pytest.raises(TaskError, match=rows[0].name):
        _report(rows=rows)


@pytest.mark.parametrize("write", [write_json, write_csv])
def test_what_cannot_be_written_is_named(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "nowhere" / "report"
    with pytest.raises(FeatcacheError, match=r"nowhere.*cannot be written"):
        write(_report(), path)
