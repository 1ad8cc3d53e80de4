"""`featcache requantise`, and stores of few bits on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from featcache.store import FeatureStore, StoreWriter


def test_extract_info_train_predict(home: Path, run: Any) -> None:
    done = run("featcache extract --model fm.onnx --in scans/ --store-precision int6")
    assert done.code == 0, done.text
    assert "stored integers were calibrated on case a" in done.text
    shown = run("featcache info")
    assert shown.code == 0, shown.text
    for words in ("int6", "calibrated on case a", " σ", "head 9"):
        assert words in shown.text, words
    described = json.loads(run("featcache info --json").out)
    level = described["cases"][0]["levels"]["l2"]
    assert (level["precision"], level["dtype"], described["format_version"]) == ("int6", "uint8", 2)
    assert set(level["stored_error"]) == {
        "relative_rms",
        "max_abs",
        "relative_sigma",
        "clipped",
        "head_agreement",
    }
    trained = run("adapters train --shots 2 --method linear")
    assert trained.code == 0, trained.text
    predicted = run("adapters predict --adapter adapter/ --store features.zarr --out masks/")
    assert predicted.code == 0, predicted.text
    assert "another recipe" not in predicted.text
    live = run("adapters predict --adapter adapter/ --model fm.onnx --in scans/ --out live/")
    assert live.code == 0, live.text
    assert "stored as int6; those of --model and --in are float16" in live.text


def test_masks_from_scans_use_the_mantissa_of_the_training(home: Path, run: Any) -> None:
    assert run("featcache extract --model fm.onnx --in scans/ --store-precision float16-m5").code == 0
    assert run("adapters train --shots 2 --method linear").code == 0
    live = run("adapters predict --adapter adapter/ --model fm.onnx --in scans/ --out live/")
    assert live.code == 0, live.text
    assert "another recipe" not in live.text


def test_requantise_and_go_on(extracted: FeatureStore, run: Any) -> None:
    done = run("featcache requantise features.zarr --store-precision int5 -o smaller.zarr")
    assert done.code == 0, done.text
    assert "smaller.zarr: 3 cases requantised, 0 complete before, 0 failed" in done.text
    assert "labels of 3 cases written" in done.text
    small = FeatureStore.open("smaller.zarr")
    assert small.labelled() == extracted.labelled()
    assert small.root.recipe["requantised_from"]["recipe_id"] == extracted.root.recipe_id
    again = run("featcache requantise features.zarr --store-precision int5 --out smaller.zarr")
    assert "0 cases requantised, 3 complete before, 0 failed" in again.text
    assert "whole" in run("featcache verify smaller.zarr").text
    shown = run("featcache info smaller.zarr").text
    assert f"int5 calibrated on case a, from float16 ({extracted.root.recipe_id[:12]})" in shown
    other = run("featcache requantise features.zarr --store-precision int4 -o smaller.zarr")
    assert (other.code, "another recipe" in other.text) == (1, True)


def test_a_damaged_case_has_its_exit_code(extracted: FeatureStore, run: Any) -> None:
    shard = next(p for p in (extracted.path / "cases/b/features/l1/0/c").rglob("*") if p.is_file())
    shard.write_bytes(b"")
    done = run("featcache requantise features.zarr --store-precision int5 -o smaller.zarr")
    assert done.code == 3, done.text
    assert "error: b: " in done.err


def test_what_is_no_precision_or_finer_is_refused(extracted: FeatureStore, run: Any) -> None:
    wrong = run("featcache requantise features.zarr --store-precision int7 -o smaller.zarr")
    assert (wrong.code, "int7" in wrong.text) == (2, True)
    finer = run("featcache requantise features.zarr --store-precision float32 -o smaller.zarr")
    assert (finer.code, "choose one of float16-m7" in finer.text) == (1, True)
    assert not Path("smaller.zarr").exists()
    assert run("featcache extract --model fm.onnx --in scans/ --store-precision int3").code == 2


def test_clipped_values_are_shown(extracted: FeatureStore, run: Any) -> None:
    with StoreWriter.open(extracted.path, extracted.root) as writer:
        case = extracted.case("c")
        with writer.new_case("c", case.info) as new:
            for name, level in case.levels.items():
                values = np.full((level.channels, *level.grid.shape), 1e4, np.float32)
                new.level(name, level.grid, level.channels).append(values)
            new.commit()
    assert run("featcache requantise features.zarr --store-precision int5 -o smaller.zarr").code == 0
    assert " clipped" in run("featcache info smaller.zarr").text
