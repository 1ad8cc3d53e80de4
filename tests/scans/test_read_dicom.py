"""DICOM series: positions and values as SimpleITK sees them; anything but one whole series is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from featcache.errors import ScanReadError
from featcache.geometry import axis_codes, spacing, world
from featcache.scans import Scan, ScanSource, discover, read_header, read_scan

REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom_ct"
COUNT, ROWS, COLUMNS = 6, 9, 7
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def _write_series(
    folder: Path,
    *,
    rotation: np.ndarray | None = None,
    along: Sequence[float] = tuple(2.5 * k for k in range(COUNT)),
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    modality: str = "CT",
    uid: str = "1.2.3.4",
    name: str = "{:03d}.dcm",
    tags: dict[str, str] | None = None,
) -> np.ndarray:
    """Write slices at the distances `along` their normal, in shuffled file order; return (X, Y, Z) values.

    `shift` (mm, LPS+) displaces each slice against the one before, as a tilted gantry does.
    """
    folder.mkdir(exist_ok=True, parents=True)
    axes = np.eye(3) if rotation is None else rotation
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 1000, (COLUMNS, ROWS, len(along))).astype(np.int16)
    order = rng.permutation(len(along))
    for k, distance in enumerate(along):
        image = sitk.GetImageFromArray(values[:, :, k].T[None])
        origin = np.array([10.0, -20.0, 30.0]) + axes[:, 2] * distance + k * np.asarray(shift)
        image.SetSpacing((0.75, 1.25, 1.0))
        image.SetDirection(axes.ravel().tolist())
        image.SetOrigin(origin.tolist())
        header = {
            "0008|0060": modality,
            "0010|0010": "SECRET^NAME",
            "0020|000e": uid,
            "0020|0032": "\\".join(f"{v:.10g}" for v in origin),
            "0020|0037": "\\".join(f"{v:.10g}" for v in axes[:, :2].T.ravel()),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in {**header, **(tags or {})}.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        path = folder / f"{order[k]}.dcm"
        writer.SetFileName(str(path))
        writer.Execute(image)
        path.rename(folder / name.format(order[k]))
    return values


def _source(folder: Path) -> ScanSource:
    (source,) = discover([folder]).sources
    return source


def _read(folder: Path) -> Scan:
    return read_scan(_source(folder), unit="HU")


def _check_against_simpleitk(scan: Scan, indices: list[tuple[int, int, int]]) -> None:
    """Compare value and world position at `indices` with SimpleITK's own reading of each slice."""
    slices = [sitk.ReadImage(str(path)) for path in _source(scan.path).files]
    for index in indices:
        x, y, _ = index
        position = world(scan.grid, np.array(index)) * LPS_TO_RAS
        nearest = min(
            slices, key=lambda s: np.linalg.norm(position - s.TransformIndexToPhysicalPoint((x, y, 0)))
        )
        np.testing.assert_allclose(nearest.TransformIndexToPhysicalPoint((x, y, 0)), position, atol=1e-3)
        assert scan.voxels[index] == nearest.GetPixel((x, y, 0))


@pytest.mark.shared
@pytest.mark.skipif(not REAL.is_dir(), reason="the real DICOM series in ../shared/data is absent")
def test_real_jpeg2000_series() -> None:
    scan = _read(REAL)
    assert scan.case == "dicom_ct"
    assert (scan.sform_code, scan.qform_code, scan.notes) == (1, 1, ())
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(REAL)))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    assert scan.voxels.dtype == array.dtype
    np.testing.assert_array_equal(scan.voxels, array)
    for index in [(0, 0, 0), (511, 0, 0), (0, 511, 0), (0, 0, 19), (100, 200, 7)]:
        expected = np.array(image.TransformIndexToPhysicalPoint(index)) * LPS_TO_RAS
        np.testing.assert_allclose(world(scan.grid, np.array(index)), expected, atol=1e-4)
    assert read_header(_source(REAL)) == scan.grid


@pytest.mark.parametrize(
    ("rotation", "codes"),
    [
        (None, "LPS"),
        (np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]), "PIR"),
        (Rotation.from_euler("xyz", [20, -15, 30], degrees=True).as_matrix(), "LPS"),
    ],
    ids=["axial", "sagittal", "oblique"],
)
def test_positions_and_values(tmp_path: Path, rotation: np.ndarray | None, codes: str) -> None:
    values = _write_series(tmp_path / "ct", rotation=rotation)
    scan = _read(tmp_path / "ct")
    np.testing.assert_array_equal(scan.voxels, values)
    assert axis_codes(scan.grid) == codes
    np.testing.assert_allclose(spacing(scan.grid), (0.75, 1.25, 2.5), atol=1e-6)
    ends = [(x, y, z) for x in (0, COLUMNS - 1) for y in (0, ROWS - 1) for z in (0, 2, COUNT - 1)]
    _check_against_simpleitk(scan, ends)


def test_tilted_gantry_is_a_sheared_grid(tmp_path: Path) -> None:
    values = _write_series(tmp_path / "ct", shift=(0.0, 0.8, 0.0))
    scan = _read(tmp_path / "ct")
    np.testing.assert_array_equal(scan.voxels, values)
    np.testing.assert_allclose(scan.grid.affine[:3, 2], (0.0, -0.8, 2.5), atol=1e-6)
    assert (scan.sform_code, scan.qform_code) == (1, 0)
    assert any("sheared" in note for note in scan.notes)
    _check_against_simpleitk(scan, [(0, 0, 0), (3, 8, 5), (6, 0, 3)])


def test_files_without_suffix_beside_others(tmp_path: Path) -> None:
    values = _write_series(tmp_path / "ct", name="IM{}")
    (tmp_path / "ct" / "notes.txt").write_text("hello")
    (tmp_path / "ct" / ".DS_Store").write_text("hello")
    (tmp_path / "ct" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found = discover([tmp_path / "ct"])
    assert [path.name for path in found.ignored] == ["DICOMDIR", "notes.txt"]
    np.testing.assert_array_equal(_read(tmp_path / "ct").voxels, values)


def test_rounded_positions_are_accepted(tmp_path: Path) -> None:
    """0.625 mm steps, written with one decimal."""
    _write_series(tmp_path / "ct", along=[round(0.625 * k, 1) for k in range(9)])
    np.testing.assert_allclose(spacing(_read(tmp_path / "ct").grid)[2], 0.625, atol=1e-6)


def test_mr_taken_for_hu_is_noted(tmp_path: Path) -> None:
    _write_series(tmp_path / "mr", modality="MR")
    source = _source(tmp_path / "mr")
    assert any("MR" in note for note in read_scan(source, unit="HU").notes)
    assert read_scan(source, unit="a.u.").notes == ()


def test_slopes_that_differ_between_slices_give_float32(tmp_path: Path) -> None:
    """A slice with a fractional slope must not be rounded to the first slice's integers."""
    _write_series(tmp_path / "ct")
    path = tmp_path / "ct" / "003.dcm"
    raw = path.read_bytes()
    tag = b"\x28\x00\x53\x10"  # (0028,1053) Rescale Slope, implicit little endian
    assert raw.count(tag + b"\x02\x00\x00\x001 ") == 1
    path.write_bytes(raw.replace(tag + b"\x02\x00\x00\x001 ", tag + b"\x04\x00\x00\x000.5 "))
    scan = _read(tmp_path / "ct")
    assert scan.voxels.dtype == np.float32
    assert (scan.voxels % 1 != 0).any()
    _check_against_simpleitk(scan, [(x, 3, z) for x in range(COLUMNS) for z in range(COUNT)])


BAD: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    (
        "a missing slice",
        [{"along": [0, 1, 2, 4, 5]}],
        ["missing slices", "1.000 to 2.000 mm", "slice 3 of 5"],
    ),
    ("second slice missing", [{"along": [0, 2, 3, 4, 5, 6, 7, 8]}], ["missing slices", "slice 1 of 8"]),
    ("growing gaps", [{"along": [0, 1, 2.2, 3.6, 5.2]}], ["uneven gaps"]),
    ("doubled slice", [{"along": [0, 1, 2, 2, 3]}], ["at one position"]),
    ("one slice", [{"along": [0]}], ["single file", "(1 file, CT"]),
    (
        "two series",
        [{"uid": "1.2.3"}, {"uid": "1.2.4", "modality": "MR", "name": "b{}", "along": [0, 1, 2]}],
        ["2 series", "6 files, CT", "3 files, MR", "a folder of its own"],
    ),
    ("PET", [{"modality": "PT"}], ["6 files, PT", "expected one CT or MR series"]),
    (
        "two orientations",
        [{}, {"rotation": np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]), "name": "b{}"}],
        ["different orientation"],
    ),
]


@pytest.mark.parametrize(("series", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_anything_but_one_whole_series_is_refused(
    tmp_path: Path, series: list[dict[str, Any]], words: list[str]
) -> None:
    folder = tmp_path / "ct"
    for options in series:
        _write_series(folder, **options)
    for read in (_read, lambda f: read_header(_source(f))):
        with pytest.raises(ScanReadError) as caught:
            read(folder)
        message = str(caught.value)
        assert str(folder) in message
        assert [word for word in words if word not in message] == []
        assert "SECRET" not in message
        assert caught.value.case == "ct"


def test_damaged_file_is_named(tmp_path: Path) -> None:
    _write_series(tmp_path / "ct")
    (tmp_path / "ct" / "003.dcm").write_bytes(b"junk" * 100)
    with pytest.raises(ScanReadError, match=re.escape(str(tmp_path / "ct")) + r".*003\.dcm"):
        _read(tmp_path / "ct")


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    _write_series(tmp_path / "ct")
    path = tmp_path / "ct" / "003.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ScanReadError, match=r"003\.dcm"):
        _read(tmp_path / "ct")


def test_folder_of_series(tmp_path: Path) -> None:
    _write_series(tmp_path / "in" / "p 1" / "ct")
    _write_series(tmp_path / "in" / "p2")
    found = discover([tmp_path / "in"])
    assert [(s.case, s.kind, len(s.files)) for s in found.sources] == [
        ("p_1__ct", "dicom", COUNT),
        ("p2", "dicom", COUNT),
    ]
