"""The encoders that ship: their cards, and that the network does what its head promises on an unseen generated scan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from adapters import FewShotSegmenter
from featcache import FeatureStore, extract
from featcache.encoders import BUILTIN, model_path
from featcache.onnxfile import encoder_id, read_card
from featcache.phantom import KNOWN_STRUCTURES, NEW_STRUCTURES, find_site, write_cohort


@pytest.mark.parametrize("name", list(BUILTIN))
def test_card_and_size(name: str) -> None:
    path = model_path(name)
    card = read_card(path)
    assert path.stat().st_size <= 8e6
    assert card.head is not None
    assert card.head.classes == ("background", *KNOWN_STRUCTURES)
    assert not set(card.head.classes) & set(NEW_STRUCTURES)
    assert card.golden is not None
    assert card.default_levels == ("features",)


def test_a_card_for_each_modality() -> None:
    ct, mr = (read_card(model_path(name)) for name in ("builtin", "builtin-mr"))
    assert (ct.modality, mr.modality) == ("CT", "MR")
    assert mr.preparation.intensity.kind == "percentile"
    assert encoder_id(model_path("builtin"), ct) != encoder_id(model_path("builtin-mr"), mr)


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("builtin").parent.name == "encoders"
    Path("builtin").touch()
    assert model_path("builtin") == Path("builtin")
    assert model_path("fm.onnx") == Path("fm.onnx")


def test_zero_shot_finds_large_organs_of_an_unseen_person(tmp_path: Path) -> None:
    site = find_site("organs")
    acquisition = dataclasses.replace(site.acquisition, coverage=(-50.0, 110.0))
    write_cohort(tmp_path, dataclasses.replace(site, acquisition=acquisition), 1, seed=77)
    result = extract("builtin", tmp_path / "scans", tmp_path / "features.zarr")
    assert not result.failed
    store = FeatureStore.open(tmp_path / "features.zarr")
    case = store.case("organs_00")
    mask = FewShotSegmenter(method="zero-shot", classes="liver,aorta").fit(store).predict(case)
    labels = case.labels()
    assert labels is not None
    truth = labels.read()
    a, b = mask.values == mask.classes["liver"], truth == labels.classes["liver"]
    dice = 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
    assert dice > 0.7
