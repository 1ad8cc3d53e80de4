"""Files that `write_cohort` and `featcache phantom` write."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from cli.featcache import app
from featcache.errors import StoreError, TaskError
from featcache.phantom import STRUCTURES, find_site, write_cohort
from featcache.scans import discover


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = find_site("liver")
    acquisition = dataclasses.replace(site.acquisition, spacing=(4.0, 4.0, 6.0), coverage=(-30.0, 60.0))
    out = tmp_path_factory.mktemp("cohort")
    names = write_cohort(out, dataclasses.replace(site, acquisition=acquisition), 2, labelled=1)
    assert names == ["liver_00", "liver_01"]
    return out


def test_scans_and_labels_are_found_and_fit(folder: Path) -> None:
    found = discover([folder / "scans"], None)
    assert [source.case for source in found.sources] == ["liver_00", "liver_01"]
    scan = nib.load(folder / "scans" / "liver_00.nii.gz")
    labels = nib.load(folder / "labels" / "liver_00.nii.gz")
    assert scan.shape == labels.shape
    assert np.array_equal(scan.affine, labels.affine)
    assert (folder / "truth" / "liver_01.nii.gz").exists()
    assert not (folder / "labels" / "liver_01.nii.gz").exists()


def test_labels_show_only_what_the_site_annotates(folder: Path) -> None:
    names = json.loads((folder / "labels" / "labels.json").read_text())
    annotated = find_site("liver").annotated
    assert set(names) == {"background", *annotated}
    values = set(np.unique(np.asarray(nib.load(folder / "labels" / "liver_00.nii.gz").dataobj)).tolist())
    assert {STRUCTURES["liver"]} < values <= {0, *(STRUCTURES[name] for name in annotated)}


def test_unknown_site_is_named_with_those_there_are() -> None:
    with pytest.raises(TaskError, match=r"no generated site is called 'hospital'.*middle"):
        find_site("hospital")


def test_command_lists_sites() -> None:
    result = CliRunner().invoke(app, ["phantom", "--sites"])
    assert result.exit_code == 0
    assert "middle" in result.output
    assert "delayed phase" in result.output


def test_command_leaves_existing_scans_alone(folder: Path) -> None:
    before = (folder / "scans" / "liver_00.nii.gz").read_bytes()
    result = CliRunner().invoke(app, ["phantom", "--site", "liver", "--cases", "1", "--out", str(folder)])
    assert isinstance(result.exception, StoreError)
    assert (folder / "scans" / "liver_00.nii.gz").read_bytes() == before
