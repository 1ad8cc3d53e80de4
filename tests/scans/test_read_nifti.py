"""NIfTI files are read as stored, on nibabel's affine, or refused with a message that helps."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from featcache.errors import ScanReadError
from featcache.scans import Scan, ScanSource, read_header, read_scan

AFFINE = np.array([[-0.5, 0.1, 0, 10], [0.1, 2.0, 0.2, -20], [0, 0.3, 3.0, 30], [0, 0, 0, 1.0]])


def _values(shape: tuple[int, ...], dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def _write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = AFFINE, **header: Any) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def _patch(path: Path, offset: int, data: bytes) -> Path:
    """Overwrite header bytes that nibabel would not write."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)
    return path


def _scan(path: Path, **options: Any) -> Scan:
    return read_scan(ScanSource("case", (path,)), unit="HU", **options)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.int32, np.int32),
        (">i2", np.int16),
        (np.float32, np.float32),
        (np.float64, np.float32),
        (">f4", np.float32),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_keep_their_integer_type(tmp_path: Path, stored: Any, expected: Any, suffix: str) -> None:
    voxels = _values((4, 5, 6), stored)
    header = nib.Nifti1Header(endianness=">" if str(stored).startswith(">") else "<")
    image = nib.Nifti1Image(voxels, AFFINE, header)
    image.set_data_dtype(np.dtype(stored))
    path = tmp_path / f"a{suffix}"
    nib.save(image, path)
    scan = _scan(path)
    assert scan.voxels.dtype == np.dtype(expected)
    assert scan.voxels.dtype.isnative
    np.testing.assert_array_equal(scan.voxels, voxels)


def test_grid_codes_and_identity(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz", _values((4, 5, 6)))
    scan = _scan(path)
    loaded = nib.load(path)
    assert np.array_equal(scan.grid.affine, loaded.affine)
    assert (scan.sform_code, scan.qform_code) == (2, 0)
    assert (scan.unit, scan.case, scan.path, scan.notes) == ("HU", "case", path, ())
    assert read_header(ScanSource("case", (path,))) == scan.grid


def test_nifti2_and_trailing_singleton_axes(tmp_path: Path) -> None:
    voxels = _values((4, 5, 6, 1, 1))
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti2Image(voxels, AFFINE), path)
    scan = _scan(path)
    assert scan.grid.shape == (4, 5, 6)
    np.testing.assert_array_equal(scan.voxels, voxels[..., 0, 0])


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "dtype"),
    [
        (np.uint16, 1, -1024, np.int16),
        (np.int16, 1, -1024, np.int16),
        (np.int16, 1000, 0, np.int32),
        (np.int16, 0.5, 0, np.float32),
        (np.uint8, 1, 0.25, np.float32),
        (np.float32, 2, 1, np.float32),
    ],
)
def test_scaling(tmp_path: Path, stored: Any, slope: float, inter: float, dtype: Any) -> None:
    voxels = _values((4, 5, 6), stored)
    path = _write(tmp_path / "a.nii", voxels)
    _patch(path, 112, np.array([slope, inter], dtype="<f4").tobytes())
    scan = _scan(path)
    assert scan.voxels.dtype == dtype
    np.testing.assert_array_equal(scan.voxels, voxels.astype(np.float64) * slope + inter)
    np.testing.assert_array_equal(scan.voxels, nib.load(path).get_fdata())


def test_sform_wins_and_disagreement_is_noted(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_values((4, 5, 6)), None)
    image.set_sform(AFFINE, 1)
    image.set_qform(np.diag([3.0, 3.0, 3.0, 1.0]), 1)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = _scan(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(scan.grid.affine, AFFINE, atol=1e-6)
    assert (scan.sform_code, scan.qform_code) == (1, 1)
    assert any("disagree" in note for note in scan.notes)


def test_qform_alone(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_values((4, 5, 6)), None)
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = _scan(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(scan.grid.affine, affine, atol=1e-6)
    assert (scan.sform_code, scan.qform_code, scan.notes) == (0, 1, ())


def test_neither_form_is_accepted_and_noted(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz", _values((4, 5, 6)), None)
    scan = _scan(path)
    assert (scan.sform_code, scan.qform_code) == (0, 0)
    assert np.array_equal(scan.grid.affine, nib.load(path).affine)
    assert any("neither sform nor qform" in note for note in scan.notes)


def test_nan_to_replaces_all_that_is_not_finite(tmp_path: Path) -> None:
    voxels = _values((4, 5, 6), np.float32)
    voxels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    scan = _scan(_write(tmp_path / "a.nii.gz", voxels), nan_to=-1024.0)
    assert scan.voxels[0, 0, :3].tolist() == [-1024.0] * 3
    np.testing.assert_array_equal(scan.voxels[1:], voxels[1:])
    assert any(note.startswith("3 NaN") for note in scan.notes)


def _nan(path: Path) -> Path:
    voxels = _values((4, 5, 6), np.float32)
    voxels[1, 1, 1:3] = np.nan
    return _write(path, voxels)


def _truncated(path: Path) -> Path:
    _write(path, np.random.default_rng(0).integers(0, 30000, (20, 20, 20)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _flipped_bit(path: Path) -> Path:
    """Damage stored (uncompressed) gzip bytes: they inflate without complaint, only the checksum tells."""
    plain = _write(path.with_suffix(""), _values((20, 20, 20)))
    raw = bytearray(gzip.compress(plain.read_bytes(), compresslevel=0))
    raw[5000] ^= 1
    path.write_bytes(raw)
    return path


def _zero_spacing(path: Path) -> Path:
    plain = _write(path.with_suffix(""), _values((4, 5, 6)), None)
    _patch(plain, 80, np.array([1.0, 0.0, 1.0], dtype="<f4").tobytes())
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def _rgb(path: Path) -> Path:
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _write(path, np.zeros((4, 5, 6), dtype))


def _singular(path: Path) -> Path:
    image = nib.Nifti1Image(_values((4, 5, 6)), np.eye(4))
    image.header["srow_z"] = 0
    image.header["sform_code"] = 1
    image._affine = None
    nib.save(image, path)
    return path


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


BAD: list[tuple[str, Callable[[Path], Path], list[str]]] = [
    ("absent", lambda path: path, ["no such file"]),
    ("empty", _bytes(b""), ["empty", "0 bytes"]),
    ("no gzip", _bytes(b"hello" * 200), ["cannot be read"]),
    ("gzip of text", _bytes(gzip.compress(b"hello" * 200)), ["cannot be read"]),
    ("truncated", _truncated, ["cannot be read", "copy"]),
    ("flipped bit", _flipped_bit, ["cannot be read"]),
    ("2-D", lambda path: _write(path, _values((4, 5))), ["2-D", "(4, 5)", "(X, Y, Z)"]),
    ("4-D", lambda path: _write(path, _values((4, 5, 6, 2))), ["4-D", "(4, 5, 6, 2)", "split"]),
    ("RGB", _rgb, ["RGB"]),
    ("complex", lambda path: _write(path, np.zeros((4, 5, 6), np.complex64)), ["complex64"]),
    ("NaN", _nan, ["2 of 120 voxels", "--nan-to"]),
    ("float64 overflow", lambda path: _write(path, np.full((4, 5, 6), 1e300)), ["120 of 120", "--nan-to"]),
    ("zero spacing", _zero_spacing, ["(1.0, 0.0, 1.0)", "spacing"]),
    ("singular", _singular, ["singular", "sform"]),
]


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_file_is_named_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    path = make(tmp_path / "bad.nii.gz")
    with pytest.raises(ScanReadError) as caught:
        _scan(path)
    message = str(caught.value)
    assert str(path) in message
    assert [word for word in words if word not in message] == []
    assert caught.value.path == path
    assert caught.value.case == "case"


@pytest.mark.parametrize("name", ["2-D", "4-D", "RGB", "zero spacing", "singular", "empty"])
def test_header_alone_shows_it(tmp_path: Path, name: str) -> None:
    make = next(row[1] for row in BAD if row[0] == name)
    with pytest.raises(ScanReadError):
        read_header(ScanSource("case", (make(tmp_path / "bad.nii.gz"),)))
