"""Imports stay cheap: what is slow is loaded where it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import featcache

SLOW = ("torch", "onnxruntime", "onnx", "zarr", "SimpleITK", "sklearn", "matplotlib")


@pytest.mark.parametrize(
    "modules",
    [
        "featcache, featcache.card, featcache.errors, featcache.geometry",
        "featcache.onnxfile",
        "featcache.extraction",
        "featcache.planning",
        "featcache.doctor",
        "featcache.requantising",
    ],
)
def test_importing_loads_nothing_slow(modules):
    code = f"import sys, {modules}; print([m for m in {SLOW} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_are_all_there():
    assert featcache.__all__ == sorted(featcache.__all__)
    for name in featcache.__all__:
        assert getattr(featcache, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = featcache.nonsense
