"""The demo's edges and pictures; `make demo` runs the whole of it."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest

from cli import demo, demo_pictures
from featcache.errors import StoreError

FITS = (("zero-shot", 0, "zero-shot"), ("linear", 1, "linear-1"), ("linear", 5, "linear-5"))
NAMES = {"background": 0, "spleen": 16, "liver": 14}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        demo.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A demo's folder after everything ran, in small: masks of other values than the truth's."""
    random = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    truth = np.zeros((20, 16, 10), np.uint8)
    truth[3:9, 4:12, 2:8], truth[12:17, 4:12, 2:8] = 14, 16
    mask = (truth == 14) * 1 + (truth == 16) * 2
    for folder, array in (("scans", random.normal(0, 100, truth.shape).astype(np.int16)), ("truth", truth)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(array, affine), tmp_path / folder / "demo_05.nii.gz")
    (tmp_path / "truth" / "labels.json").write_text(json.dumps(NAMES))
    for _, shots, name in FITS:
        (tmp_path / "masks" / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / "masks" / name / "demo_05.nii.gz")
        own = {"background": 0, "liver": 1, "spleen": 2}
        (tmp_path / "masks" / name / "classes.json").write_text(json.dumps(own))
        (tmp_path / "adapters" / name).mkdir(parents=True)
        curve = np.exp(-np.arange(50 if shots else 0) / 20).tolist()
        (tmp_path / "adapters" / name / "adapter_config.json").write_text(json.dumps({"curve": curve}))
        rows = {"liver": {"dice": 1.0}, "spleen": {"dice": None}}
        report = {"cases": {"demo_05": rows}, "summary": {"mean_of_classes": {"dice": 0.5 + shots / 10}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    return tmp_path


def test_pictures_show_what_was_made(finished: Path) -> None:
    paths = demo_pictures.save(finished, "demo_05", FITS)
    assert [path.name for path in paths] == ["comparison.png", "dice_by_shots.png", "learning_curves.png"]
    drawn = matplotlib.image.imread(paths[0])[..., :3]
    width = drawn.shape[1] // 4
    saturation = [
        float(np.ptp(drawn[:, i * width : (i + 1) * width], axis=2).mean()) for i in range(4)
    ]  # scan, truth, two masks
    assert saturation[0] < 0.3 * saturation[1]
    # Masks count their classes from 1, the truth does not: in the same colours all the same.
    assert saturation[2] == pytest.approx(saturation[1], rel=0.2)
    assert all(path.stat().st_size > 5000 for path in paths)
