"""`featcache plan` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featcache import planning, room

PLAN = "featcache plan --model fm.onnx --in scans/ --device cpu --threads 1"


def test_a_plan_before_and_after_the_run(home: Path, run: Any) -> None:
    planned = run(PLAN)
    assert planned.code == 0, planned.text
    for words in ("case", "windows", "on the disk", "peak memory", "time", "all", "enough", "timed on cpu"):
        assert words in planned.text, words
    assert "3 cases to extract, 0 complete, 0 that would fail" in planned.text
    assert not Path("features.zarr").exists()
    document = json.loads(run(PLAN + " --json").out)
    assert [case["case"] for case in document["cases"]] == ["a", "b", "c"]
    assert document["fits"] is True
    assert run("featcache extract --model fm.onnx --in scans/").code == 0
    after = run(PLAN)
    assert "0 cases to extract, 3 complete, 0 that would fail" in after.text
    assert json.loads(run(PLAN + " --json").out)["windows"] == 0


def test_scans_that_would_fail_are_told(home: Path, run: Any) -> None:
    (home / "scans" / "b.nii.gz").write_bytes(b"")
    planned = run(PLAN)
    assert planned.code == 0
    assert "1 that would fail" in planned.text
    assert "b would fail: scans/b.nii.gz: the file is empty" in planned.text


def test_a_disk_that_is_too_small(home: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (planning, room):
        monkeypatch.setattr(module, "free_bytes", lambda out: 1000)
    planned = run(PLAN)
    assert "free on the disk: 1 kB" in planned.text
    assert "too little" in planned.text
    refused = run("featcache extract --model fm.onnx --in scans/")
    assert refused.code == 1
    assert "the disk has 1 kB free; the features of 3 scans need about" in refused.text
    assert not Path("features.zarr").exists()


@pytest.mark.parametrize(
    "option", ["--spacing 1,2", "--device tpu", "--store-precision int7", "--nan-to nan"]
)
def test_wrong_options(home: Path, run: Any, option: str) -> None:
    assert run(f"{PLAN} {option}").code == 2


def test_a_model_without_a_card(home: Path, run: Any) -> None:
    (home / "fm.onnx").write_bytes(b"nothing")
    assert run(PLAN).code == 1
