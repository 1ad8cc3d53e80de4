"""What the machine has, asked of files that a test has written."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest

from featcache import machine

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_the_peak_begins_anew_and_grows_with_what_is_held():
    machine.reset_peak()
    before = machine.peak_bytes()
    held = np.ones(40_000_000, np.uint8)
    assert machine.peak_bytes() - before > 30_000_000
    assert machine.resident_bytes() <= machine.peak_bytes()
    del held
    assert machine.resident_bytes() < machine.peak_bytes() - 30_000_000


def test_free_bytes_of_a_place_that_is_not_there_yet(tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    assert machine.free_bytes(tmp_path / "not" / "yet.zarr") == usage.free
    assert asked == [tmp_path.resolve()]


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 2), ("20000 100000", 1), ("", 8)]
)
def test_cores_are_limited_by_the_control_group(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.usable_cores() == expected


def test_memory_is_limited_by_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    everything = machine.memory_bytes()
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory_bytes() == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_bytes() == everything
