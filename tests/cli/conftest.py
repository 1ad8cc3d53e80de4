"""Both programs as a user runs them, in a folder with an encoder, three scans and their labels."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

import cli.adapters
import cli.featcache
from adapters.methods import base
from adapters.recipe import Recipe, fast_recipe
from cli import console
from featcache.card import EncoderCard, Output
from featcache.onnxfile import write_card
from featcache.store import FeatureStore, files

PROGRAMS = {"featcache": cli.featcache.app, "adapters": cli.adapters.app}
SHAPE = (14, 12, 16)


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything printed, as one line."""
        return " ".join((self.out + self.err).split())


Run = Callable[[str], Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line in this process and in the current folder."""

    def call(line: str) -> Ran:
        program, *arguments = line.split()
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        capsys.readouterr()
        code: Any = 0
        try:
            console.run(PROGRAMS[program])
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Ran(0 if code is None else code, printed.out, printed.err)

    return call


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train for a few steps, wait for no disk, and share nothing out."""

    def recipe(shots: int, *, linear: bool) -> Recipe:
        return dataclasses.replace(fast_recipe(shots, linear=linear), steps=6, warm_up=2, largest_patch=8)

    monkeypatch.setattr(base, "fast_recipe", recipe)
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bright_box(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy scan with a bright box, and the box as labels."""
    random = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    x, y, z = (int(random.integers(1, n - 7)) for n in SHAPE)
    labels[x : x + 6, y : y + 5, z : z + 6] = 1
    voxels = random.normal(size=SHAPE, scale=0.3) + 3.0 * labels
    return voxels.astype(np.float32), labels


def identity_encoder(path: Path, fakes: Any, **changes: Any) -> EncoderCard:
    """Write an encoder that yields the voxel, the mean around it, and at stride 2 the mean of eight."""
    centre = np.zeros((1, 1, 3, 3, 3), np.float32)
    centre[0, 0, 1, 1, 1] = 1
    weights = {"w": np.concatenate([centre, np.full_like(centre, 1 / 27)])}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["fine"], kernel_shape=[3, 3, 3], pads=[1] * 6),
        helper.make_node("AveragePool", ["image"], ["coarse"], kernel_shape=[2] * 3, strides=[2] * 3),
    ]
    fakes.save_model(path, nodes, {"fine": 2, "coarse": 1}, weights)
    levels = [
        Output("fine", 2, (1, 1, 1), (0, 0, 0)),
        Output("coarse", 1, (2, 2, 2), (0.5, 0.5, 0.5), "floor"),
    ]
    card: EncoderCard = fakes.make_card(levels, **changes)
    write_card(path, card)
    return card


@pytest.fixture
def home(tmp_path: Path, fakes: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: fm.onnx, scans/ and labels/ of the cases a, b and c."""
    monkeypatch.chdir(tmp_path)
    fakes.conv_encoder(tmp_path / "fm.onnx")
    for number, case in enumerate("abc"):
        voxels, labels = bright_box(number)
        fakes.write_scan(tmp_path / "scans" / f"{case}.nii.gz", voxels, np.diag([-1.0, 1.5, 2.0, 1]))
        fakes.write_scan(tmp_path / "labels" / f"{case}.nii.gz", labels, np.diag([-1.0, 1.5, 2.0, 1]))
    (tmp_path / "labels" / "labels.json").write_text(json.dumps({"background": 0, "box": 1}), "utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def _extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("extracted")}


@pytest.fixture
def extracted(home: Path, run: Run, _extracted: dict[str, Path]) -> FeatureStore:
    """Return the store features.zarr in the current folder: extracted once, then copied."""
    kept = _extracted["folder"] / "features.zarr"
    if not kept.exists():
        assert run("featcache extract --model fm.onnx --in scans/").code == 0
        shutil.copytree(home / "features.zarr", kept)
        (home / "features.private.json").unlink()
    else:
        shutil.copytree(kept, home / "features.zarr")
    return FeatureStore.open(home / "features.zarr")


@pytest.fixture
def tools() -> Any:
    """Return the functions of this file that tests call themselves."""

    class Tools:
        identity_encoder = staticmethod(globals()["identity_encoder"])
        bright_box = staticmethod(globals()["bright_box"])

    return Tools
