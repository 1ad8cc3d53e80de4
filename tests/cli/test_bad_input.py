"""Bad input: a message that names the file, what was found and expected, and what to do; the exit code."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from featcache.card import Crop, EncoderInput, Intensity, Output, Preparation
from featcache.onnxfile import write_card
from featcache.store import FeatureStore, files, verify

EXTRACT = "featcache extract --model fm.onnx --in scans/"


def _says(ran: Any, code: int, *words: str) -> None:
    assert ran.code == code, ran.text
    assert [word for word in words if word not in ran.text] == [], ran.text


def _cases(path: str = "features.zarr") -> list[str]:
    """Return the complete cases; nothing half-written may lie in the store or beside it."""
    left = [p.name for p in Path().iterdir() if "partial" in p.name]
    assert left == []
    if not Path(path).exists():
        return []
    assert not verify(Path(path)).findings
    return FeatureStore.open(path).cases()


def _scan(
    fakes: Any, value: Any, shape: tuple[int, ...] = (8, 7, 6), name: str = "b"
) -> Callable[[Path], None]:
    def write(home: Path) -> None:
        voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        voxels[tuple(n // 2 for n in shape)] = value
        fakes.write_scan(home / "scans" / f"{name}.nii.gz", voxels)

    return write


def test_nothing_found(home: Path, run: Any) -> None:
    (home / "empty").mkdir()
    (home / "empty" / "readme.txt").write_text("hello", "utf-8")
    _says(run("featcache extract --model fm.onnx --in empty"), 1, "empty", "no scans", "readme.txt")
    _says(run("featcache extract --model fm.onnx --in nowhere"), 1, "nowhere", "no such file or folder")
    _says(run("featcache extract --model nowhere.onnx --in scans"), 1, "nowhere.onnx")
    assert _cases() == []
    assert not Path("features.zarr").exists()


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            lambda fakes: lambda home: (home / "scans/b.nii.gz").write_bytes(b"hello"),
            ["cannot be read as NIfTI"],
        ),
        (lambda fakes: lambda home: (home / "scans/b.nii.gz").write_bytes(b""), ["empty (0 bytes)"]),
        (
            lambda fakes: _scan(fakes, 0, (8, 7, 6, 3)),
            ["4-D", "(8, 7, 6, 3)", "expected one volume", "split it"],
        ),
        (lambda fakes: _scan(fakes, np.nan), ["1 of 336 voxels are NaN", "expected finite", "--nan-to"]),
    ],
    ids=["not an image", "empty file", "4-D", "NaN"],
)
def test_a_bad_scan_fails_alone(
    home: Path, run: Any, fakes: Any, bad: Callable[..., Any], words: list[str], alone: bool
) -> None:
    (home / "labels").rename(home / "truth")
    bad(fakes)(home)
    if alone:
        (home / "scans" / "a.nii.gz").unlink()
        (home / "scans" / "c.nii.gz").unlink()
    ran = run(EXTRACT)
    _says(ran, 1 if alone else 3, "b.nii.gz", "1 failed", *words)
    assert ran.err.rstrip().splitlines()[-1].startswith("error: b: "), "named once more at the end"
    assert _cases() == ([] if alone else ["a", "c"])


def test_nan_to(home: Path, run: Any, fakes: Any) -> None:
    (home / "labels").rename(home / "truth")
    _scan(fakes, np.nan)(home)
    _says(run(f"{EXTRACT} --nan-to 0"), 0, "1 NaN or infinite voxels were set to 0")
    assert _cases() == ["a", "b", "c"]
    _says(run(f"{EXTRACT} --nan-to 1"), 1, "recipe", "nan_to", "features.zarr")


def test_empty_foreground(home: Path, run: Any, fakes: Any) -> None:
    fakes.conv_encoder(home / "fm.onnx", preparation=Preparation("RAS", None, Intensity("none"), Crop(2.0)))
    fakes.write_scan(
        home / "scans" / "b.nii.gz", np.zeros((14, 12, 16), np.float32), np.diag([-1.0, 1.5, 2, 1])
    )
    _says(run(EXTRACT), 3, "b.nii.gz", "empty foreground", "above 2", "values from 0 to 0", "expected a body")
    assert _cases() == ["a", "c"]


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_scan_smaller_than_a_window_works(home: Path, run: Any, fakes: Any, dynamic: bool) -> None:
    size = ("x", "y", "z") if dynamic else (16, 16, 16)
    fakes.conv_encoder(home / "fm.onnx", input=EncoderInput("image", (16, 16, 16), dynamic), size=size)
    (home / "labels").rename(home / "truth")
    _scan(fakes, 0, (5, 3, 2))(home)
    _says(run(EXTRACT), 0, "3 cases extracted")
    case = FeatureStore.open("features.zarr").case("b")
    assert case.level("l1").grid.shape == (5, 3, 2)
    assert case.level("l3").grid.shape == (2, 1, 1)


def test_not_hounsfield_units(home: Path, run: Any, fakes: Any) -> None:
    fakes.conv_encoder(home / "fm.onnx", modality="CT")
    ct = np.linspace(-1000, 900, 14 * 12 * 16).reshape(14, 12, 16).astype(np.int16)
    fakes.write_scan(home / "scans" / "a.nii.gz", ct, np.diag([-1.0, 1.5, 2.0, 1]))
    ran = run(EXTRACT)
    _says(
        ran,
        3,
        "b.nii.gz",
        "evidently not in Hounsfield units",
        "found values from",
        "--assume-hu",
        "2 failed",
    )
    assert _cases() == ["a"]
    _says(run(f"{EXTRACT} --assume-hu"), 0, "2 cases extracted, 1 complete before")


def test_no_card(home: Path, run: Any, fakes: Any) -> None:
    identity = [helper.make_node("Identity", ["image"], ["features"])]
    fakes.save_model(home / "fm.onnx", identity, {"features": 1}, {})
    _says(run(EXTRACT), 1, "fm.onnx", "featcache encoder template fm.onnx")
    (home / "fm.onnx").write_bytes(b"not a model")
    _says(run(EXTRACT), 1, "fm.onnx")
    assert not Path("features.zarr").exists()


def _flat_encoder(path: Path, fakes: Any) -> None:
    """Write an encoder whose output has no channels."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["features"], axes=[1], keepdims=0)],
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "x", "y", "z"])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, "x", "y", "z"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    write_card(path, fakes.make_card([Output("features", 1, (1, 1, 1), (0, 0, 0))]))


def test_output_of_the_wrong_rank(home: Path, run: Any, fakes: Any) -> None:
    _flat_encoder(home / "fm.onnx", fakes)
    _says(run(EXTRACT), 1, "fm.onnx", "'features'", "shape (1, ", "expected (1, 1, ", "Correct the card")
    assert _cases() == []


def test_card_that_names_another_output(home: Path, run: Any, fakes: Any) -> None:
    card = fakes.conv_encoder(home / "fm.onnx", head="none")
    first = dataclasses.replace(card.outputs[0], name="features")
    write_card(home / "fm.onnx", dataclasses.replace(card, outputs=(first,)))
    _says(run(EXTRACT), 1, "fm.onnx", "features", "l1", "Correct the card")
    assert _cases() == []


@pytest.mark.parametrize("case", ["a", "b"], ids=["first", "second"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), ["1 NaN", "expected finite"]),
        (1e5, ["beyond float16", "65504", "--store-precision float32"]),
        (float("inf"), ["1 infinite", "expected finite"]),
    ],
)
def test_features_that_cannot_be_stored(
    home: Path, run: Any, fakes: Any, value: float, words: list[str], case: str
) -> None:
    fakes.faulty_encoder(home / "fm.onnx", value)
    (home / "labels").rename(home / "truth")
    _scan(fakes, 200.0, name=case)(home)
    _says(run(EXTRACT), 3, f"case {case}", "level features", *words)
    assert _cases() == sorted({"a", "b", "c"} - {case})
    if np.isfinite(value):
        _says(run(f"{EXTRACT} --out wide.zarr --store-precision float32"), 0, "3 cases extracted")


def test_a_head_that_is_not_linear(home: Path, run: Any, fakes: Any) -> None:
    fakes.conv_encoder(home / "fm.onnx", head="nonlinear")
    _says(run(EXTRACT), 1, "no linear function of level 'l2'", "R²", "0.999", "remove the head from the card")
    assert _cases() == []


def test_an_output_folder_that_holds_something_else(home: Path, run: Any) -> None:
    (home / "features.zarr").mkdir()
    (home / "features.zarr" / "thesis.txt").write_text("precious", "utf-8")
    _says(run(EXTRACT), 1, "features.zarr is not a feature store", "name another folder")
    assert [p.name for p in (home / "features.zarr").iterdir()] == ["thesis.txt"]
    (home / "file").write_text("precious", "utf-8")
    _says(run(f"{EXTRACT} --out file"), 1, "file")
    assert (home / "file").read_text("utf-8") == "precious"


def test_another_encoders_store(extracted: FeatureStore, home: Path, run: Any, fakes: Any) -> None:
    before = sorted(p.stat().st_mtime_ns for p in extracted.path.rglob("*"))
    fakes.conv_encoder(home / "fm.onnx", seed=1)
    _says(run(EXTRACT), 1, "features.zarr", "encoder")
    assert sorted(p.stat().st_mtime_ns for p in extracted.path.rglob("*")) == before
    assert run("adapters train --method logistic").code == 0
    assert run(f"{EXTRACT} --out new.zarr").code == 0
    ran = run("adapters predict --store new.zarr")
    _says(ran, 1, "new.zarr holds features of encoder 'toy'", "the adapter was trained on")
    assert not Path("masks").exists()


def test_another_recipe_warns(extracted: FeatureStore, run: Any) -> None:
    assert run("adapters train --method logistic").code == 0
    assert run(f"{EXTRACT} --out new.zarr --spacing 1.2,1.2,1.2").code == 0
    _says(run("adapters predict --store new.zarr"), 0, "warning: new.zarr was made by another recipe")


def test_no_labels(home: Path, run: Any) -> None:
    (home / "labels").rename(home / "truth")
    assert run(EXTRACT).code == 0
    _says(run("adapters train --shots 2"), 1, "features.zarr has no labels", "featcache label --in")
    _says(run("featcache label --in scans"), 1, "scans", "no labels found", "--labels")
    assert not Path("adapter").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--classes liver", ["unknown class 'liver'", "--classes", "box (1)"]),
        ("--classes a=1,b=1", ["label class ['1'] occurs more than once"]),
        ("--shots 9", ["--shots 9", "3 labelled cases", "expected 1 to 3"]),
        ("--shots 2 --support a,b", ["both --shots and --support", "expected one"]),
        ("--support a,x", ["--support", "['x']", "a, b, c"]),
        ("--levels l9", ["no level ['l9']", "l1", "--levels"]),
        ("--method magic", ["--method 'magic'", "zero-shot, prototype"]),
        ("--store nowhere.zarr", ["nowhere.zarr does not exist", "featcache extract"]),
        ("--store scans", ["scans is not a feature store"]),
    ],
)
def test_training_that_makes_no_sense(
    extracted: FeatureStore, run: Any, options: str, words: list[str]
) -> None:
    _says(run(f"adapters train {options}"), 1, *words)
    assert not Path("adapter").exists()
    assert not Path(".adapter.partial").exists()


def test_an_adapter_is_never_overwritten(extracted: FeatureStore, run: Any) -> None:
    assert run("adapters train --method logistic").code == 0
    before = Path("adapter/adapter_model.safetensors").read_bytes()
    _says(run("adapters train --method logistic --seed 1"), 1, "--out adapter exists", "Choose another name")
    assert Path("adapter/adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--adapter nowhere", ["nowhere: no adapter here", "adapters train --out"]),
        ("--cases a,x", ["no cases ['x']", "a, b, c"]),
        ("--out scans", ["--out scans is there and not empty", "--overwrite"]),
        ("--out fm.onnx", ["--out fm.onnx is there"]),
    ],
)
def test_predictions_that_make_no_sense(
    extracted: FeatureStore, run: Any, options: str, words: list[str]
) -> None:
    assert run("adapters train --method logistic").code == 0
    before = sorted(p.name for p in Path("scans").iterdir())
    _says(run(f"adapters predict {options}"), 1, *words)
    assert not Path("masks").exists()
    assert sorted(p.name for p in Path("scans").iterdir()) == before


def test_no_or_two_stores_in_the_folder(
    extracted: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(f"{EXTRACT} --out other.zarr").code == 0
    for line in ("adapters train", "featcache info", "featcache verify", "featcache label --in scans"):
        _says(run(line), 1, "2 feature stores (features.zarr, other.zarr)", "--store")
    monkeypatch.chdir("scans")
    for line in ("adapters train", "featcache info", "featcache verify"):
        _says(
            run(line), 1, "holds no feature store", "featcache extract --model fm.onnx --in scans/", "--store"
        )


@pytest.mark.parametrize(
    "line",
    [
        "featcache extract --in scans/",
        "featcache extract --model fm.onnx",
        f"{EXTRACT} --spacing 1,1",
        f"{EXTRACT} --spacing 1,-1,1",
        f"{EXTRACT} --device tpu",
        f"{EXTRACT} --store-precision int7",
        f"{EXTRACT} --annotated some",
        f"{EXTRACT} --threads 0",
        f"{EXTRACT} --nan-to air",
        "featcache nonsense",
        "adapters train --recipe slow",
        "adapters train --width 0",
        "adapters train --shots many",
        "adapters evaluate --pred masks",
    ],
)
def test_wrong_usage_is_exit_code_2(home: Path, run: Any, line: str) -> None:
    ran = run(line)
    assert ran.code == 2, ran.text
    option = next((part for part in line.split()[::-1] if part.startswith("--")), "")
    value = line.rsplit(maxsplit=1)[-1]
    assert "Usage" in ran.err
    assert option in ran.err or value in ran.err or "Missing option" in ran.err
    assert not Path("features.zarr").exists()


def test_labels_that_do_not_fit(home: Path, run: Any, fakes: Any) -> None:
    fakes.write_scan(home / "labels" / "b.nii.gz", np.zeros((9, 9, 9), np.uint8))
    ran = run(EXTRACT)
    _says(ran, 3, "labels/b.nii.gz", "scans/b.nii.gz", "(9, 9, 9)", "(14, 12, 16)")
    store = FeatureStore.open("features.zarr")
    assert (store.cases(), store.labelled()) == (["a", "b", "c"], ["a", "c"])


@pytest.mark.parametrize("after", [1, 6, 15, 40])
def test_a_full_disk(home: Path, run: Any, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Whatever write the disk refuses, what is there is whole, and the next run completes it."""
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    ran = run(EXTRACT)
    _says(
        ran, 1, "the disk is full", "No space left on device", "Free some space", "run the same command again"
    )
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    if Path("features.zarr").exists():
        assert not verify(Path("features.zarr")).findings
    assert run(EXTRACT).code == 0
    assert _cases() == ["a", "b", "c"]


def test_a_full_disk_while_saving_adapter_and_masks(
    extracted: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        _says(run("adapters train --method logistic"), 1, "--out adapter", "No space left on device")
    assert not Path("adapter").exists()
    assert not Path(".adapter.partial").exists()
    assert run("adapters train --method logistic").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(nib, "save", full)
        _says(run("adapters predict"), 1, "masks/a.nii.gz", "No space left on device", "0 masks written")
    assert [p.name for p in Path("masks").iterdir()] == ["classes.json"]
    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", full)
        _says(
            run("adapters predict --preview --out pictures"), 1, "pictures/a.png", "No space left on device"
        )


def test_an_interruption(home: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache import extraction

    def stop(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "encode", stop)
        ran = run(EXTRACT)
    assert ran.code == 130, ran.text
    assert _cases() == []
    assert run(EXTRACT).code == 0


def test_messages_keep_brackets(home: Path, run: Any) -> None:
    """Rich would take [b] in a name for markup."""
    (home / "[b]x").mkdir()
    ran = run("featcache extract --model fm.onnx --in [b]x")
    _says(ran, 1, "[b]x")


def test_a_damaged_private_record_is_named(extracted: FeatureStore, home: Path, run: Any) -> None:
    (home / "features.private.json").write_text(json.dumps({"cases": 3}), "utf-8")
    _says(run(EXTRACT), 1, "features.private.json", "damaged", "delete it")
