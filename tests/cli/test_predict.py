"""`adapters predict`: scans to masks in one command, probabilities, the largest component."""

from __future__ import annotations

import errno
import json
import locale
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from filelock import FileLock

from cli import predict
from cli.evaluation_files import find_masks
from featcache.errors import StoreError
from featcache.geometry import Grid, reorient
from featcache.scans.masks import ProbabilityFile
from featcache.store import FeatureStore

HIDDEN = Path(".masks.features")
DIRECT = "adapters predict --model fm.onnx --in scans"


def _masks(folder: str) -> dict[str, np.ndarray]:
    paths = sorted(Path(folder).glob("*.nii.gz"))
    return {p.name: np.asarray(nib.load(p).dataobj) for p in paths}


def _names(folder: str = "masks") -> list[str]:
    return sorted(p.name for p in Path(folder).iterdir())


def _left() -> list[str]:
    """Return what lies in the current folder that is hidden or private."""
    return [p.name for p in Path().iterdir() if p.name.startswith(".") or "private" in p.name]


@pytest.fixture
def trained(extracted: FeatureStore, run: Any) -> FeatureStore:
    """Return the store; the folder `adapter` was trained on it."""
    assert run("adapters train --method linear --support a,b").code == 0
    return extracted


def _watch(monkeypatch: pytest.MonkeyPatch, look: Callable[[Any], None]) -> None:
    """Call `look` with each case that is about to be predicted."""
    write = predict._Files.write

    def watched(self: Any, fitted: Any, case: Any) -> None:
        look(case)
        write(self, fitted, case)

    monkeypatch.setattr(predict._Files, "write", watched)


def _no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was encoded")

    monkeypatch.setattr("featcache.encode.encode", encode)


def test_one_command_makes_the_masks_of_two(
    trained: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], str, list[str]]] = []
    _watch(
        monkeypatch,
        lambda case: seen.append((FeatureStore.open(HIDDEN / "features.zarr").cases(), case.id, _names())),
    )
    direct = run(f"{DIRECT} --preview")
    assert direct.code == 0, direct.text
    assert "masks: 3 masks written" in direct.text
    assert "[2/3] b: " in direct.text, "progress as of extract"
    assert "label" not in direct.err
    # One scan's features at a time, and the masks of those before are there.
    assert [(held, case) for held, case, _ in seen] == [(["a"], "a"), (["b"], "b"), (["c"], "c")]
    assert "b.nii.gz" in seen[2][2]
    monkeypatch.undo()
    monkeypatch.chdir(trained.path.parent)
    assert run("adapters predict --store features.zarr --out twice --preview").code == 0
    assert _names() == _names("twice")
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        once, twice = (nib.load(Path(folder) / name) for folder in ("masks", "twice"))
        assert np.array_equal(np.asarray(once.dataobj), np.asarray(twice.dataobj))
        assert once.header.binaryblock == twice.header.binaryblock
        assert np.asarray(once.dataobj).any()
    assert _left() == []


@pytest.fixture
def _locale() -> Iterator[None]:
    """Put the character set back, which GDCM leaves at "C" for the tests that come after."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.usefixtures("_locale")
def test_scans_in_folders_and_in_dicom(trained: FeatureStore, run: Any) -> None:
    """What --in of extract takes, with the case ids that extract gives."""
    Path("new/site").mkdir(parents=True)
    Path("scans/c.nii.gz").rename("new/site/c_0000.nii.gz")
    Path("new/labels").mkdir()
    Path("new/labels/site__c.nii.gz").write_bytes(b"no label file is read")
    _dicom(Path("new/series"))
    extracting = run("featcache extract --model fm.onnx --in new --in scans/a.nii.gz --out new.zarr")
    assert extracting.code == 3, "its labels are no label file"
    assert run("adapters predict --store new.zarr --out twice").code == 0
    direct = run("adapters predict --model fm.onnx --in new/ --in scans/a.nii.gz --out masks/")
    assert direct.code == 0, direct.text
    once, twice = _masks("masks"), _masks("twice")
    assert sorted(once) == ["a.nii.gz", "series.nii.gz", "site__c.nii.gz"]
    assert all(np.array_equal(once[name], twice[name]) for name in twice)


def _dicom(folder: Path) -> None:
    folder.mkdir()
    values = np.random.default_rng(0).integers(-5, 6, (6, 9, 8)).astype(np.int16)
    for k, plane in enumerate(values):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.75, 1.25, 1.0))
        image.SetOrigin((0.0, 0.0, 2.5 * k))
        tags = {"0008|0060": "MR", "0020|000e": "1.2.3", "0020|0032": f"0\\0\\{2.5 * k}"}
        tags["0020|0037"] = "1\\0\\0\\0\\1\\0"
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(image)


def test_a_bad_scan_fails_alone(trained: FeatureStore, run: Any) -> None:
    Path("scans/b.nii.gz").write_bytes(b"hello")
    ran = run(DIRECT)
    assert ran.code == 3, ran.text
    assert "2 masks written" in ran.text
    assert ran.err.rstrip().splitlines()[-1].startswith("error: b: scans/b.nii.gz")
    assert _names() == ["a.nii.gz", "c.nii.gz", "classes.json"]
    for case in "ac":
        Path(f"scans/{case}.nii.gz").write_bytes(b"")
    ran = run(f"{DIRECT} --out none")
    assert ran.code == 1, ran.text
    assert "0 masks written" in ran.text
    assert _left() == []


def test_a_mask_that_cannot_be_written_fails_alone(
    trained: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features go all the same: the next scan's are alone."""
    seen: list[list[str]] = []
    _watch(monkeypatch, lambda case: seen.append(FeatureStore.open(HIDDEN / "features.zarr").cases()))
    save = nib.save

    def full(image: Any, path: Path) -> None:
        if path.name.startswith(".a."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(image, path)

    monkeypatch.setattr(nib, "save", full)
    ran = run(DIRECT)
    assert ran.code == 3, ran.text
    assert "masks/a.nii.gz: the mask could not be written" in ran.text
    assert seen == [["a"], ["b"], ["c"]]
    assert _names() == ["b.nii.gz", "c.nii.gz", "classes.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model fm.onnx", ["--model", "without --in"]),
        ("--in scans", ["--in", "without --model"]),
        ("--model fm.onnx --in scans --store features.zarr", ["--store", "one or the other"]),
        ("--model fm.onnx --in scans --cases a", ["--cases", "one or the other"]),
        ("--in scans --store features.zarr", ["--in", "without --model"]),
        ("--model fm.onnx --in scans --device tpu", ["--device", "expected one of auto, cpu, cuda"]),
    ],
)
def test_wrong_usage(trained: FeatureStore, run: Any, options: str, words: list[str]) -> None:
    ran = run(f"adapters predict {options}")
    assert ran.code == 2, ran.text
    assert "Usage" in ran.err
    text = " ".join(ran.text.replace("│", " ").split())
    assert [word for word in words if word not in text] == []
    assert not Path("masks").exists()


def test_another_encoder_is_refused_before_it_runs(
    trained: FeatureStore, run: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.conv_encoder(Path("other.onnx"), seed=1)
    _no_encoding(monkeypatch)
    monkeypatch.setattr("featcache.runtime.onnxruntime.create_session", None)
    ran = run("adapters predict --model other.onnx --in scans")
    assert ran.code == 1, ran.text
    assert "other.onnx is encoder 'toy'" in ran.text
    assert "the adapter was trained on 'toy'" in ran.text
    assert not Path("masks").exists()
    assert run("adapters predict --model nowhere.onnx --in scans").code == 1
    assert run("adapters predict --model fm.onnx --in nowhere").code == 1
    assert not Path("masks").exists()


@pytest.mark.parametrize(
    ("option", "dtype"), [("--store-precision float32", "float32"), ("--spacing 1.2,1.2,1.2", "float16")]
)
def test_features_are_made_as_those_of_the_training(
    extracted: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch, option: str, dtype: str
) -> None:
    assert run(f"featcache extract --model fm.onnx --in scans --out mine.zarr {option}").code == 0
    assert run("adapters train --store mine.zarr --method linear --support a,b --out mine").code == 0
    seen: set[str] = set()
    with monkeypatch.context() as patch:
        _watch(patch, lambda case: seen.add(str(case.level("l1").dtype)))
        ran = run(f"{DIRECT} --adapter mine")
    assert ran.code == 0, ran.text
    assert "warning" not in ran.text
    assert seen == {dtype}
    assert run("adapters predict --adapter mine --store mine.zarr --out twice").code == 0
    once, twice = _masks("masks"), _masks("twice")
    assert all(np.array_equal(once[name], twice[name]) for name in twice)
    _forget_recipe(Path("mine"))
    ran = run(f"{DIRECT} --adapter mine --out warned")
    assert "warning: --model fm.onnx makes features by another recipe" in ran.text


def test_an_adapter_of_integers_takes_floats_and_says_so(extracted: FeatureStore, run: Any) -> None:
    assert (
        run("featcache extract --model fm.onnx --in scans --out mine.zarr --store-precision int8").code == 0
    )
    assert run("featcache requantise features.zarr --store-precision int6 -o small.zarr").code == 0
    for name, precision in (("mine", "int8"), ("small", "int6")):
        trained = run(f"adapters train --store {name}.zarr --method linear --support a,b --out {name}")
        assert trained.code == 0, trained.text
        ran = run(f"{DIRECT} --adapter {name} --out {name}_masks")
        assert ran.code == 0, ran.text
        assert f"trained on features stored as {precision}; those of --model and --in are float16" in ran.text
        assert "warning" not in ran.text


def _forget_recipe(adapter: Path) -> None:
    """Make it an adapter of a version that did not keep the recipe."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text("utf-8"))
    assert config.pop("features")
    path.write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("a fault of ours")])
def test_features_go_after_an_interruption(
    trained: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def stop(case: Any) -> None:
        assert HIDDEN.is_dir()
        if case.id == "b":
            raise error

    _watch(monkeypatch, stop)
    if error is KeyboardInterrupt:
        assert run(DIRECT).code == 130
    else:
        with pytest.raises(RuntimeError):
            run(DIRECT)
    assert _names() == ["a.nii.gz", "classes.json"]
    assert _left() == []


def test_what_a_killed_run_left_goes_first(
    trained: FeatureStore, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(case: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        _watch(patch, kill)
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # a killed process cleans nothing up
        with pytest.raises(Killed):
            run(DIRECT)
    assert FeatureStore.open(HIDDEN / "features.zarr").root.encoder_id
    (HIDDEN / "features.zarr" / "stale").write_text("of the killed run", "utf-8")
    seen: list[bool] = []
    _watch(monkeypatch, lambda case: seen.append((HIDDEN / "features.zarr" / "stale").exists()))
    assert run(f"{DIRECT} --overwrite").code == 0
    assert seen == [False, False, False]
    assert _left() == []


def test_a_folder_of_somebody_else_stays(trained: FeatureStore, run: Any) -> None:
    HIDDEN.mkdir()
    (HIDDEN / "thesis.txt").write_text("precious", "utf-8")
    ran = run(DIRECT)
    assert ran.code == 1, ran.text
    assert ".masks.features holds something else" in ran.text
    assert _names(str(HIDDEN)) == ["thesis.txt"]


def test_a_run_that_goes_on_is_left_alone(trained: FeatureStore, run: Any) -> None:
    HIDDEN.mkdir()
    with FileLock(HIDDEN / "lock"):
        ran = run(DIRECT)
        assert ran.code == 1, ran.text
        assert "another `adapters predict` writes to --out masks" in ran.text
        assert (HIDDEN / "lock").exists()


def test_scans_are_never_replaced_by_masks(trained: FeatureStore, run: Any) -> None:
    before = Path("scans/a.nii.gz").read_bytes()
    ran = run(f"{DIRECT} --out scans --overwrite")
    assert ran.code == 1, ran.text
    assert "--out scans holds scans/a.nii.gz" in ran.text
    assert Path("scans/a.nii.gz").read_bytes() == before
    assert _names("scans") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


@pytest.mark.parametrize(("method", "classes"), [("linear", 1), ("zero-shot", 2)])
def test_probabilities_lie_beside_the_masks(
    extracted: FeatureStore, run: Any, method: str, classes: int
) -> None:
    assert run(f"adapters train --method {method} --out own").code == 0
    assert run("adapters predict --adapter own --out plain").code == 0
    ran = run("adapters predict --adapter own --probabilities")
    assert ran.code == 0, ran.text
    assert len(_names()) == 7
    assert len(find_masks(Path("masks"))) == 3  # `adapters evaluate` does not take the others for masks
    for case in "abc":
        scan, mask = nib.load(f"scans/{case}.nii.gz"), nib.load(f"masks/{case}.nii.gz")
        image = nib.load(f"masks/{case}_probabilities.nii.gz")
        values, decided = np.asarray(image.dataobj), np.asarray(mask.dataobj)
        assert image.shape == (*scan.shape, classes)
        assert image.get_data_dtype() == np.uint8
        assert np.array_equal(image.affine, scan.affine)
        assert values.min() >= 0
        assert 0.5 < values.max() <= 1
        assert (
            Path(f"plain/{case}.nii.gz").read_bytes()[10:] == Path(f"masks/{case}.nii.gz").read_bytes()[10:]
        )
        if classes == 1:
            likely = values[..., 0]
            assert (decided[likely > 0.51] == 1).all()
            assert (decided[likely < 0.49] == 0).all()
        else:
            shares = np.concatenate([1 - values.sum(-1, keepdims=True), values], -1)
            ordered = np.sort(shares, -1)
            clear = ordered[..., -1] - ordered[..., -2] > 3 / 255
            assert clear.mean() > 0.8
            assert np.array_equal(shares.argmax(-1)[clear], decided[clear])


def test_probabilities_that_would_hide_a_mask(trained: FeatureStore, run: Any) -> None:
    Path("scans/b.nii.gz").rename("scans/a_probabilities.nii.gz")
    ran = run(f"{DIRECT} --probabilities")
    assert ran.code == 1, ran.text
    assert "'a_probabilities'" in ran.text
    assert not Path("masks").exists()
    assert run(DIRECT).code == 0


def test_the_largest_component(trained: FeatureStore, run: Any, fakes: Any) -> None:
    """Of a scan with a large box and a small one far from it."""
    voxels = np.random.default_rng(0).normal(size=(14, 12, 16), scale=0.3).astype(np.float32)
    voxels[1:7, 1:6, 1:7] += 3
    voxels[9:13, 8:11, 10:14] += 3
    fakes.write_scan(Path("new/d.nii.gz"), voxels, np.diag([-1.0, 1.5, 2.0, 1]))
    line = "adapters predict --model fm.onnx --in new --probabilities"
    assert run(f"{line} --out plain").code == 0
    assert run(f"{line} --out largest --largest-component").code == 0
    plain, largest = _masks("plain"), _masks("largest")
    before, after = plain["d.nii.gz"], largest["d.nii.gz"]
    assert before[3, 3, 3] == before[11, 9, 12] == 1
    assert after[3, 3, 3] == 1
    assert not after[8:].any()
    assert (before[after == 1] == 1).all()
    name = "d_probabilities.nii.gz"
    assert np.array_equal(largest[name], plain[name]), "probabilities stay as they are"


@pytest.mark.parametrize("codes", ["RAS", "IPL"])
def test_the_file_of_probabilities(tmp_path: Path, codes: str) -> None:
    """Boxes in slabs along any axis, a border that no box covers, and the scan's own place."""
    shape = (5, 7, 4)
    grid = reorient(Grid(shape, np.diag([0.7, 1.1, 2.5, 1.0])), codes)[0]
    values = np.random.default_rng(0).random((*grid.shape, 3)).astype(np.float32)
    values[1, 2, 1] = (1.0, 0.0, 0.5)
    expected = np.zeros_like(values)
    path = tmp_path / "a_probabilities.nii.gz"
    with ProbabilityFile(path, grid, (1, 0), 3) as file:
        for y in (1, 3):
            box = (slice(1, 4), slice(y, y + 2), slice(0, 3))
            file.add(box, values[box])
            expected[box] = values[box]
        assert not path.exists()
    image = nib.load(path)
    found = np.asarray(image.dataobj)
    assert np.abs(found - expected).max() <= 1 / 510 + 1e-6
    assert not found[expected == 0].any()
    assert found[1, 2, 1].tolist() == pytest.approx([1, 0, 0.5], abs=1 / 255)
    assert found.max() <= 1
    assert np.array_equal(image.affine, nib.Nifti1Image(values, grid.affine).affine.astype(np.float32))
    assert image.header.get_xyzt_units()[0] == "mm"
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))  # as viewers see it
    assert np.allclose(seen.T if seen.ndim == 4 else np.moveaxis(seen, -1, 0).T, found, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["a_probabilities.nii.gz"]


@pytest.mark.parametrize("where", ["add", "write"])
def test_probabilities_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    path = tmp_path / "a_probabilities.nii.gz"
    path.write_bytes(b"an older one")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        with ProbabilityFile(path, grid, (1, 0), 1) as file:
            if where == "add":
                monkeypatch.setattr(file._waiting, "write", full)
            else:
                monkeypatch.setattr("gzip.GzipFile.write", full)
            file.add((slice(0, 2),) * 3, np.ones((2, 2, 2, 1), np.float32))

    with pytest.raises(StoreError, match=r"a_probabilities\.nii\.gz: .*No space left"):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["a_probabilities.nii.gz"]
    assert path.read_bytes() == b"an older one"
