"""`adapters compare` and `adapters train --cross-validate` as a user types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from featcache.store import FeatureStore

ASK = "adapters compare --methods logistic,spatial --shots 1,2 --folds 2"


def test_a_comparison_leaves_a_table_and_a_report(extracted: FeatureStore, run: Any) -> None:
    done = run(ASK)
    assert done.code == 0, done.text
    for word in ("logistic", "spatial", "logistic is the baseline", "report.html"):
        assert word in done.text, word
    out = Path("comparison")
    document = json.loads((out / "results.json").read_text("utf-8"))
    assert document["format"] == "featcache.comparison"
    assert len(document["runs"]) == 8
    assert [row["method"] for row in document["table"]] == ["logistic", "spatial"] * 2
    with (out / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = document["folds"][0]["test"]
    assert len(rows) == 8 * len(tested)
    assert {row["case"] for row in rows} == set(tested)
    assert "| spatial | 2 |" in (out / "table.md").read_text("utf-8")
    page = (out / "report.html").read_text("utf-8")
    assert "<svg" in page
    assert "logistic" in page
    again = run(ASK)
    assert again.code == 0
    assert json.loads((out / "results.json").read_text("utf-8"))["runs"] == document["runs"]


def test_an_adapter_of_a_comparison_predicts(extracted: FeatureStore, run: Any) -> None:
    assert run(ASK).code == 0
    predicted = run("adapters predict --adapter comparison/adapters/spatial-2-0 --out masks/")
    assert predicted.code == 0, predicted.text
    assert len(list(Path("masks").glob("*.nii.gz"))) == 3


def test_pictures_on_the_scans(extracted: FeatureStore, run: Any) -> None:
    plain = run(ASK)
    with_scans = run(f"{ASK} --images scans/")
    assert (plain.code, with_scans.code) == (0, 0), with_scans.text


def test_a_run_that_fails_is_named(extracted: FeatureStore, run: Any) -> None:
    done = run("adapters compare --methods zero-shot,logistic --shots 1 --folds 1")
    assert done.code == 3
    assert "zero-shot-0-0: zero-shot: the encoder's head reads" in done.text
    assert (Path("comparison") / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("--shots 3", 1, "none is left to test on"),
        ("--shots one", 1, "expected numbers with commas between"),
        ("--methods magic", 1, "--method 'magic': expected one of"),
        ("--test nobody", 1, r"--test: ['nobody'] is not among the labelled cases"),
        ("--test a --folds-file f.json", 2, "found both --test and --folds-file"),
        ("--folds-file missing.json", 1, "missing.json: no folds here"),
        ("--recipe slow", 2, "expected one of fast, paper"),
        ("--classes unicorn", 1, "unknown class 'unicorn'"),
        ("--store nowhere.zarr", 1, "nowhere.zarr does not exist"),
        ("--images nowhere", 1, "nowhere"),
        ("--surfaces -1", 1, "tolerance"),
    ],
)
def test_what_is_wrong_is_told(
    extracted: FeatureStore, run: Any, options: str, code: int, words: str
) -> None:
    done = run(f"adapters compare --shots 1 --folds 1 --methods logistic {options}")
    assert done.code == code, done.text
    assert words in done.text


def test_cross_validation_tells_what_to_expect_before_it_trains(extracted: FeatureStore, run: Any) -> None:
    done = run("adapters train --method logistic --cross-validate")
    assert done.code == 0, done.text
    assert "Dice of 3 cases, each left out of the training" in done.text
    assert "mean of classes" in done.text
    assert (Path("adapter") / "adapter_config.json").is_file()
    alone = run("adapters train --method logistic --cross-validate --support a --out other")
    assert alone.code == 1
    assert "needs labelled cases of two patients or more" in alone.text
    assert not Path("other").exists()
