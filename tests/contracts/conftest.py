"""Synthetic stores for the contract suites."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """Return the module that makes synthetic cases and stores."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "synthetic.py")))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Volumes this small only lose by being shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
