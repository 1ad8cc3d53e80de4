"""Masks lie on the scan's grid to the last bit, however its header says where that is."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.geometry import Grid, axis_codes, reorient
from featcache.scans import ScanSource, read_scan
from featcache.scans.masks import write_mask

ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*order)
]
SHAPE = (5, 7, 4)
CODES = {"sform": (2, 0), "qform": (0, 1), "both": (1, 3), "neither": (0, 0)}


def _affine(codes: str, degrees: float) -> np.ndarray:
    """Return an anisotropic affine in the orientation `codes`, rotated about a skew axis."""
    k = np.array([[0, -0.8, 0.2], [0.8, 0, -0.56], [-0.2, 0.56, 0]])
    k /= np.linalg.norm(k) / np.sqrt(2)
    angle = np.radians(degrees)
    rotation = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    order = reorient(Grid(SHAPE, np.eye(4)), codes)[0].affine[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ order @ np.diag((0.7123456, 1.1, 2.499))
    affine[:3, 3] = (-91.3, 17.77, 1204.123)
    return affine


def _scan(path: Path, affine: np.ndarray, codes: tuple[int, int]) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine if codes[1] else None, codes[1])
    nib.save(image, path)
    return nib.load(path)


@pytest.mark.parametrize("degrees", [0, 23], ids=["straight", "oblique"])
@pytest.mark.parametrize("kind", CODES)
def test_masks_lie_on_the_scans_grid(tmp_path: Path, kind: str, degrees: float) -> None:
    moved = []
    for codes in ORIENTATIONS:
        path, mask_path = tmp_path / f"{codes}.nii", tmp_path / f"{codes}_mask.nii.gz"
        scan = _scan(path, _affine(codes, degrees), CODES[kind])
        read = read_scan(ScanSource("a", (path,)), unit="a.u.")
        if kind != "neither":
            assert axis_codes(read.grid) == codes
        values = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
        write_mask(mask_path, values, read.grid, (read.sform_code, read.qform_code))
        mask = nib.load(mask_path)
        assert mask.shape == scan.shape
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(mask.dataobj), values)
        assert np.array_equal(mask.affine, scan.affine), f"{codes}: {np.abs(mask.affine - scan.affine).max()}"
        found = int(mask.header["sform_code"]), int(mask.header["qform_code"])
        if found != CODES[kind]:
            moved.append(codes)
        assert mask.header.get_xyzt_units()[0] == "mm"
    # Where a quaternion does not come back to the same bits, the sform tells the same place exactly.
    assert not moved or kind == "qform"


def test_sform_and_qform_that_disagree(tmp_path: Path) -> None:
    affine = _affine("LPI", 10)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.set_sform(affine, 1)
    image.set_qform(np.diag([2.0, 2, 2, 1]), 1)
    nib.save(image, tmp_path / "a.nii")
    read = read_scan(ScanSource("a", (tmp_path / "a.nii",)), unit="a.u.")
    write_mask(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), read.grid, (1, 1))
    assert np.array_equal(nib.load(tmp_path / "m.nii.gz").affine, nib.load(tmp_path / "a.nii").affine)


def test_sheared_affines_stay_sheared(tmp_path: Path) -> None:
    affine = _affine("RAS", 0)
    affine[0, 2] = 0.4  # a tilted gantry
    for codes in ((1, 0), (1, 1)):
        scan = _scan(tmp_path / "a.nii", affine, codes)
        read = read_scan(ScanSource("a", (tmp_path / "a.nii",)), unit="a.u.")
        write_mask(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), read.grid, codes)
        assert np.array_equal(nib.load(tmp_path / "m.nii.gz").affine, scan.affine)
        assert not np.array_equal(np.diag(np.diag(scan.affine)), scan.affine)


def test_more_classes_than_a_byte(tmp_path: Path) -> None:
    values = np.full(SHAPE, 300, np.uint16)
    write_mask(tmp_path / "m.nii.gz", values, Grid(SHAPE, np.eye(4)), (1, 0))
    assert np.array_equal(np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj), values)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tmp_path / "m.nii.gz"
    before.write_bytes(b"an older mask")

    def full(image: nib.Nifti1Image, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(StoreError, match=r"m\.nii\.gz.*No space left"):
        write_mask(before, np.zeros(SHAPE, np.uint8), Grid(SHAPE, np.eye(4)), (1, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["m.nii.gz"]
    assert before.read_bytes() == b"an older mask"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere.m\.nii\.gz"):
        write_mask(
            tmp_path / "nowhere" / "m.nii.gz", np.zeros(SHAPE, np.uint8), Grid(SHAPE, np.eye(4)), (1, 0)
        )
