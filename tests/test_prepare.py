"""Preparation: what the card says is what the encoder sees."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from featcache import geometry
from featcache.card import Crop, Intensity, Preparation
from featcache.errors import ScanReadError
from featcache.geometry import Grid
from featcache.prepare import check_hounsfield, foreground_share, prepare, uncropped_grid
from featcache.scans import Scan, ScanSource, read_scan


def scan_of(voxels, affine=None, unit="HU"):
    grid = Grid(voxels.shape, np.eye(4) if affine is None else affine)
    return Scan(voxels, grid, 1, 0, unit=unit, case="a", path=Path("scans/a.nii.gz"))


def ct(shape=(12, 10, 8), seed=0):
    """Return air with a block of tissue in it, int16."""
    voxels = np.full(shape, -1000, np.int16)
    rng = np.random.default_rng(seed)
    voxels[3:9, 2:7, 1:6] = rng.integers(-100, 200, (6, 5, 5))
    voxels[5, 4, 3] = 900
    return voxels


def plain(kind="none", low=0.0, high=0.0, output=(0.0, 1.0), **more):
    return Preparation(
        **{"orientation": "RAS", "spacing": None} | more, intensity=Intensity(kind, low, high, output)
    )


def test_a_window_is_mapped_linearly_and_clipped():
    voxels = np.array([-2000, -200, 25, 250, 3000], np.int16).reshape(5, 1, 1)
    volume = prepare(scan_of(voxels), plain("window", -200, 250, (-1, 1)))
    assert volume.voxels.dtype == np.float32
    assert volume.voxels.shape == (1, 5, 1, 1)
    np.testing.assert_allclose(volume.voxels.ravel(), [-1, -1, 0, 1, 1], atol=1e-6)


def test_percentiles_are_those_of_the_whole_scan():
    voxels = ct()
    low, high = np.percentile(voxels, (2, 98))
    crop = Crop(-500)
    volume = prepare(scan_of(voxels), plain("percentile", 2, 98, (0, 1), crop=crop))
    expected = np.clip((voxels[3:9, 2:7, 1:6] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(volume.voxels[0], expected, atol=1e-6)


def test_a_z_score_has_mean_0_and_deviation_1_and_is_clipped():
    voxels = ct().astype(np.float32)
    volume = prepare(scan_of(voxels), plain("zscore", -10, 10))
    assert volume.voxels.mean() == pytest.approx(0, abs=1e-5)
    assert volume.voxels.std() == pytest.approx(1, abs=1e-5)
    assert prepare(scan_of(voxels), plain("zscore", -1, 1)).voxels.max() == 1


def test_values_as_they_are_and_the_scan_is_not_changed():
    voxels = ct()
    before = voxels.copy()
    volume = prepare(scan_of(voxels), plain())
    np.testing.assert_array_equal(volume.voxels[0], voxels)
    volume.voxels[...] = 0
    np.testing.assert_array_equal(voxels, before)
    for kind in ("window", "zscore", "percentile"):
        prepare(scan_of(voxels.astype(np.float32)), plain(kind, 1, 99))
        prepare(scan_of(voxels), plain(kind, 1, 99, orientation="LIA", spacing=(2, 2, 2)))
    np.testing.assert_array_equal(voxels, before)


@pytest.mark.parametrize("margin", [0, 1.0, 2.5, 100])
def test_the_crop_is_the_box_of_the_foreground_and_its_margin(margin):
    affine = np.diag([1.0, 2.0, 0.5, 1.0])
    scan = scan_of(ct(), affine)
    volume = prepare(scan, plain(crop=Crop(-300, margin)))
    first = np.maximum(np.array([3, 2, 1]) - np.ceil(margin / np.array([1, 2, 0.5])), 0)
    last = np.minimum(np.array([9, 7, 6]) + np.ceil(margin / np.array([1, 2, 0.5])), scan.grid.shape)
    assert volume.grid == geometry.crop(scan.grid, first, last - first)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, ">i2", np.float16, np.int32, np.int64, np.float32, np.float64, bool]
)
def test_every_voxel_type_is_resampled(dtype):
    voxels = np.arange(60).reshape(5, 4, 3).astype(dtype)
    volume = prepare(scan_of(voxels), plain(spacing=(0.5, 0.5, 0.5)))
    assert volume.grid.shape == (9, 7, 5)
    np.testing.assert_array_equal(volume.voxels[0, ::2, ::2, ::2], voxels.astype(np.float32))
    middle = (voxels[:-1].astype(np.float32) + voxels[1:]) / 2
    np.testing.assert_allclose(volume.voxels[0, 1::2, ::2, ::2], middle)


def test_behind_the_last_voxel_the_border_is_repeated():
    voxels = np.array([0, 10, 20], np.int16).reshape(3, 1, 1)
    volume = prepare(scan_of(voxels), plain(spacing=(1.5, 1, 1)))
    np.testing.assert_allclose(volume.voxels.ravel(), [0, 15, 20])


def test_a_spacing_that_agrees_is_not_interpolated():
    scan = scan_of(ct(), np.diag([1.0005, 1, 1, 1]))
    volume = prepare(scan, plain(spacing=(1, 1, 1)))
    assert volume.grid == scan.grid
    np.testing.assert_array_equal(volume.voxels[0], scan.voxels)


def test_an_override_takes_the_place_of_the_cards_spacing():
    volume = prepare(scan_of(ct()), plain(spacing=(1, 1, 1)), (2, 2, 1))
    assert geometry.spacing(volume.grid) == (2, 2, 1)
    assert volume.grid.shape == (7, 6, 8)


def test_steps_say_what_was_done():
    preparation = plain("window", -1000, 1000, crop=Crop(-300), orientation="LIA", spacing=(2, 2, 2))
    steps = prepare(scan_of(ct()), preparation).steps
    assert steps == (
        "orientation RAS to LIA",
        "cropped to (6, 5, 5) voxels above -300 HU",
        "resampled to 2 x 2 x 2 mm, (4, 3, 3) voxels",
        "values -1000 to 1000 to (0.0, 1.0)",
    )


def test_an_empty_foreground_is_refused():
    with pytest.raises(
        ScanReadError, match=r"a\.nii\.gz: empty foreground: no voxel is above 2000 HU"
    ) as caught:
        prepare(scan_of(ct()), plain(crop=Crop(2000)))
    assert caught.value.case == "a"


@pytest.mark.parametrize(("kind", "low", "high"), [("percentile", 1, 99), ("zscore", -3, 3)])
def test_a_scan_without_contrast_is_refused_where_its_values_scale_it(kind, low, high):
    with pytest.raises(ScanReadError, match="no contrast"):
        prepare(scan_of(np.full((4, 4, 4), 7, np.int16)), plain(kind, low, high))


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (lambda v: v, True),
        (lambda v: v + 1000, False),  # raw values without the rescale intercept
        (lambda v: (v + 1000) / 2000, False),  # scaled to 0..1
        (np.zeros_like, False),
        (lambda v: np.full_like(v, -1000), False),  # nothing but air
    ],
)
def test_what_evidently_is_not_hounsfield_is_refused(change, fits):
    scan = scan_of(change(ct().astype(np.float32)))
    if fits:
        check_hounsfield(scan)
    else:
        with pytest.raises(
            ScanReadError, match=r"a\.nii\.gz: evidently not in Hounsfield units.*--assume-hu"
        ):
            check_hounsfield(scan)


def test_a_file_of_foreign_byte_order_is_prepared(tmp_path):
    image = nib.Nifti1Image(ct().astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    path = tmp_path / "a.nii"
    nib.save(image, path)
    assert path.read_bytes()[:4] == b"\x00\x00\x01\x5c"
    scan = read_scan(ScanSource("a", (path,)), unit="HU")
    volume = prepare(scan, plain("window", -1000, 1000, spacing=(0.5, 1, 1)))
    np.testing.assert_allclose(volume.voxels[0, ::2], (ct() + 1000.0).clip(0, 2000) / 2000, atol=1e-6)


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "PSR"])
@pytest.mark.parametrize(
    ("card", "option"), [(None, None), ((2.0, 1.5, 3.0), None), ((2.0, 2.0, 2.0), (1.0, 3.0, 0.7))]
)
def test_the_grid_is_known_without_voxels_where_nothing_is_cropped(orientation, card, option):
    affine = np.array([[0, -1.25, 0, 40.0], [0, 0, -1.0, 10.0], [2.0, 0, 0.1, -300.0], [0, 0, 0, 1]])
    preparation = plain(orientation=orientation, spacing=card)
    scan = scan_of(ct(), affine)
    assert uncropped_grid(scan.grid, preparation, option) == prepare(scan, preparation, option).grid


def test_the_share_that_a_crop_keeps_is_that_of_its_box():
    scan = scan_of(ct(), np.diag([-1.0, 2.0, 1.0, 1.0]))
    preparation = plain(orientation="LIA", crop=Crop(-500, 2.0))
    kept = prepare(scan, preparation).grid.shape
    assert foreground_share(scan, preparation) == pytest.approx(np.prod(kept) / scan.voxels.size)
    assert foreground_share(scan, preparation) < 0.6
    assert foreground_share(scan, plain()) == 1
