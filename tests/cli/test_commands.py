"""The commands as a user types them, from scans to masks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from featcache.store import FeatureStore


def _dice(mask: Path, labels: Path) -> float:
    a, b = (np.asarray(nib.load(p).dataobj) > 0 for p in (mask, labels))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def _shards(store: FeatureStore, case: str) -> list[Path]:
    files = (p for p in (store.path / "cases" / case).rglob("*") if p.is_file())
    return [p for p in files if p.suffix != ".json"]


def test_the_whole_story(home: Path, run: Any) -> None:
    done = run("featcache extract --model fm.onnx --in scans/")
    assert done.code == 0, done.text
    assert "features.zarr: 3 cases extracted, 0 complete before, 0 failed" in done.text
    assert "labels of 3 cases written" in done.text
    assert str(home / "labels") in done.text or "labels" in done.err, "where labels were found is said"
    trained = run("adapters train --shots 2")
    assert trained.code == 0, trained.text
    assert "box (1)" in trained.text
    assert "6 steps" in trained.text
    config = json.loads((home / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert (config["method"], len(config["support"])) == ("spatial", 2)
    predicted = run("adapters predict --adapter adapter/ --store features.zarr --out masks/ --preview")
    assert predicted.code == 0, predicted.text
    assert json.loads((home / "masks" / "classes.json").read_text("utf-8")) == {"background": 0, "box": 1}
    for case in "abc":
        mask, scan = (nib.load(home / place / f"{case}.nii.gz") for place in ("masks", "scans"))
        assert mask.shape == scan.shape
        assert np.array_equal(mask.affine, scan.affine)
        assert _dice(home / "masks" / f"{case}.nii.gz", home / "labels" / f"{case}.nii.gz") > 0.7
        assert (home / "masks" / f"{case}.png").stat().st_size > 10_000
    scored = run("adapters evaluate --pred masks/ --labels labels/ --out report.json")
    assert scored.code == 0, scored.text
    assert "box" in scored.out
    assert (home / "report.json").is_file()


def test_a_second_run_skips_and_does_what_is_new(home: Path, run: Any) -> None:
    (home / "scans" / "c.nii.gz").rename(home / "c.nii.gz")
    assert run("featcache extract --model fm.onnx --in scans/").code == 0
    (home / "c.nii.gz").rename(home / "scans" / "c.nii.gz")
    again = run("featcache extract --model fm.onnx --in scans/")
    assert again.code == 0
    assert "1 cases extracted, 2 complete before, 0 failed" in again.text
    assert FeatureStore.open("features.zarr").labelled() == ["a", "b", "c"]


def test_info_and_verify(extracted: FeatureStore, run: Any) -> None:
    shown = run("featcache info")
    assert shown.code == 0
    for word in ("features.zarr", "toy", "3 cases", "box", "l2", "14 x 12 x 16", "LAS"):
        assert word in shown.text, word
    described = json.loads(run("featcache info features.zarr --json").out)
    assert [c["id"] for c in described["cases"]] == ["a", "b", "c"]
    assert "whole" in run("featcache verify").text
    shard = _shards(extracted, "b")[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    found = run("featcache verify features.zarr")
    assert found.code == 1
    assert f"{shard.relative_to(Path.cwd())}: truncated" in found.text


def test_labels_come_later(home: Path, run: Any) -> None:
    (home / "labels").rename(home / "truth")
    assert run("featcache extract --model fm.onnx --in scans/").code == 0
    assert "no labels" in run("featcache info").text
    added = run("featcache label --in scans --labels truth")
    assert added.code == 0, added.text
    assert "labels of 3 cases written" in added.text
    assert FeatureStore.open("features.zarr").labelled() == ["a", "b", "c"]


def test_zero_shot_from_the_store(extracted: FeatureStore, run: Any) -> None:
    trained = run("adapters train --method zero-shot --out own")
    assert trained.code == 0, trained.text
    assert "liver (1), spleen (2)" in trained.text
    assert run("adapters predict --adapter own --out masks --cases b").code == 0
    assert sorted(p.name for p in Path("masks").iterdir()) == ["b.nii.gz", "classes.json"]


@pytest.mark.parametrize("method", ["logistic", "linear", "pointwise"])
def test_options_of_train(extracted: FeatureStore, run: Any, method: str) -> None:
    line = f"adapters train --method {method} --support a,b --classes thing=1 --levels l1,l2 --seed 3 --device cpu"
    trained = run(f"{line} --out mine")
    assert trained.code == 0, trained.text
    config = json.loads(Path("mine/adapter_config.json").read_text("utf-8"))
    assert config["support"] == ["a", "b"]
    assert config["channels"] == [["l1", 4], ["l2", 6]]
    assert config["task"] == [{"name": "thing", "sources": ["1"]}]
    assert config["seed"] == 3


def test_predict_goes_on_past_a_damaged_case(extracted: FeatureStore, run: Any) -> None:
    assert run("adapters train --method logistic").code == 0
    for shard in _shards(extracted, "b"):
        shard.write_bytes(b"")
    found = run("adapters predict")
    assert found.code == 3, found.text
    assert "2 masks written" in found.text
    assert "b: " in found.err
    assert sorted(p.name for p in Path("masks").iterdir()) == ["a.nii.gz", "c.nii.gz", "classes.json"]
    assert run("adapters predict --cases b --out none").code == 1


def _lose(shard: Path) -> None:
    shard.unlink()


def _cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-40])


def _flip(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    shard.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_lose, _cut, _flip])
@pytest.mark.parametrize("method", ["linear", "spatial"])
def test_training_names_a_damaged_case_and_learns_from_the_others(
    extracted: FeatureStore, run: Any, damage: Callable[[Path], None], method: str
) -> None:
    for shard in _shards(extracted, "b"):
        damage(shard)
    line = f"adapters train --method {method}"
    refused = run(f"{line} --support a,b")
    assert refused.code == 1, refused.text
    assert "cases/b/" in refused.text
    assert not list(Path().glob("*adapter*"))
    assert run(f"{line} --support a,c").code == 0


def test_masks_are_replaced_only_when_asked(extracted: FeatureStore, run: Any) -> None:
    assert run("adapters train --method logistic").code == 0
    assert run("adapters predict").code == 0
    before = Path("masks/a.nii.gz").stat().st_mtime_ns
    refused = run("adapters predict")
    assert refused.code == 1
    assert "--out masks is there and not empty" in refused.text
    assert "--overwrite" in refused.text
    assert Path("masks/a.nii.gz").stat().st_mtime_ns == before
    assert run("adapters predict --overwrite --probabilities --preview").code == 0
    assert Path("masks/a.nii.gz").stat().st_mtime_ns > before
    assert Path("masks/a_probabilities.nii.gz").exists()
    assert Path("masks/a.png").exists()
    assert run("adapters predict --overwrite").code == 0
    assert sorted(p.name for p in Path("masks").iterdir()) == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
        "classes.json",
    ]


def test_an_encoder_gets_its_card(home: Path, run: Any, fakes: Any) -> None:
    from featcache.onnxfile import read_card

    card = read_card(home / "fm.onnx").to_json()
    fakes.save_model(home / "bare.onnx", *_identity())
    shown = run("featcache encoder inspect bare.onnx")
    assert shown.code == 0, shown.text
    assert "features" in shown.text
    assert run("featcache encoder template bare.onnx").code == 0
    text = (home / "bare.card.json").read_text("utf-8")
    assert "FILL IN" in text
    unfilled = run("featcache encoder attach bare.onnx")
    assert unfilled.code == 1
    assert "filled in" in unfilled.text
    assert "preparation.orientation" in unfilled.text
    again = run("featcache encoder template bare.onnx")
    assert again.code == 1
    assert (home / "bare.card.json").read_text("utf-8") == text
    card["outputs"] = [card["outputs"][0] | {"name": "features", "channels": 1}]
    card |= {"head": None, "golden": None}
    (home / "bare.card.json").write_text(json.dumps(card), "utf-8")
    attached = run("featcache encoder attach bare.onnx")
    assert attached.code == 0, attached.text
    assert json.loads(run("featcache encoder inspect bare.onnx --json").out)["card"]["name"] == "toy"
    (home / "bare.card.json").unlink()
    assert run("featcache extract --model bare.onnx --in scans").code == 0


def _identity() -> tuple[Any, ...]:
    from onnx import helper

    return [helper.make_node("Identity", ["image"], ["features"])], {"features": 1}, {}


@pytest.mark.parametrize("program", ["featcache", "adapters"])
def test_help_imports_nothing_slow(program: str) -> None:
    code = (
        f"import sys; from cli.{program} import app; sys.argv = ['{program}', '--help']\n"
        "try:\n    app()\nexcept SystemExit as error:\n    assert not error.code\n"
        "slow = {'torch', 'onnxruntime', 'onnx', 'zarr', 'sklearn', 'SimpleITK', 'scipy'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_installed_programs_end_with_their_exit_codes(home: Path) -> None:
    folder = Path(sys.executable).parent
    program = shutil.which("featcache", path=str(folder))
    if program is None:
        pytest.skip("the programs are not installed beside this python")
    done = subprocess.run([program, "info", "nowhere.zarr"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere.zarr does not exist")
    assert subprocess.run([program, "extract"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize(
    ("codes", "degrees", "spacing"),
    [("LPI", 0.0, None), ("SAR", 0.0, "1.1,1.1,1.1"), ("PIL", 25.0, None), ("IRA", 12.0, "1.4,0.8,1.0")],
)
def test_the_box_is_found_where_it_is(
    home: Path, run: Any, fakes: Any, tools: Any, codes: str, degrees: float, spacing: str | None
) -> None:
    """Trained on scans that lie one way, used on one that lies another; the encoder wants a third."""
    from featcache.card import Crop, Intensity, Preparation
    from featcache.geometry import Grid, reorient

    preparation = Preparation("RAS", None, Intensity("none"), Crop(-100.0, 0.0))
    tools.identity_encoder(home / "id.onnx", fakes, preparation=preparation)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    voxels, labels = tools.bright_box(7)
    voxels[:2], voxels[:, -1:] = -200.0, -200.0  # outside the foreground
    labels[:2], labels[:, -1:] = 0, 0
    affine = np.eye(4)
    order = reorient(Grid(voxels.shape, np.eye(4)), codes)[0].affine[:3, :3]
    affine[:3, :3] = rotation @ order @ np.diag([0.9, 1.3, 1.1])
    affine[:3, 3] = (-31.3, 120.0, 4.7)
    scan = fakes.write_scan(home / "new" / "x.nii.gz", voxels, affine)
    option = "" if spacing is None else f" --spacing {spacing}"
    assert run(f"featcache extract --model id.onnx --in scans --out train.zarr{option}").code == 0
    assert run(f"featcache extract --model id.onnx --in new --out new.zarr{option}").code == 0
    assert run("adapters train --store train.zarr --method logistic").code == 0
    predicted = run("adapters predict --store new.zarr")
    assert predicted.code == 0, predicted.text
    mask = nib.load(home / "masks" / "x.nii.gz")
    found = np.asarray(mask.dataobj)
    assert np.array_equal(mask.affine, nib.load(scan).affine)
    assert found.shape == labels.shape
    overlap = 2 * (found & labels).sum() / (found.sum() + labels.sum())
    assert overlap > (0.93 if spacing is None else 0.8)
    for shift in (-1, 1):  # a voxel off along any axis would fit worse
        for axis in range(3):
            moved = np.roll(found, shift, axis)
            assert 2 * (moved & labels).sum() / (moved.sum() + labels.sum()) < overlap - 0.05


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_leave_the_cores_to_others(
    run: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    assert run("adapters --version").code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == expected
