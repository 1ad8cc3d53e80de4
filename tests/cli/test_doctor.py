"""`featcache doctor` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featcache import doctor
from featcache.doctor import Finding


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("problem", 1)])
def test_the_doctors_exit_code(run: Any, monkeypatch: pytest.MonkeyPatch, level: Any, code: int) -> None:
    finding = Finding("zarr", level, "found [this]", "do that" if level == "problem" else "")
    monkeypatch.setattr(doctor, "CHECKS", (lambda request: iter([finding]),))
    told = run("featcache doctor")
    assert told.code == code
    assert "found [this]" in told.text
    assert ("zarr: found [this]. What to do: do that" in told.text) == (level == "problem")
    as_json = run("featcache doctor --json")
    assert as_json.code == code
    assert json.loads(as_json.out) == [vars(finding)]


def test_the_doctor_on_this_machine(home: Path, run: Any) -> None:
    found = {f["check"]: f for f in json.loads(run("featcache doctor --model fm.onnx --json").out)}
    assert found["CPUExecutionProvider"]["level"] == "ok"
    assert found["encoder"]["text"].startswith("fm.onnx: a window of 16 x 16 x 16")
    assert {"Python", "zarr", "ONNX Runtime", "names", "cores", "memory", "free disk"} <= set(found)
