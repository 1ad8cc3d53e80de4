"""`adapters export` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from featcache.onnxfile import inspect_model, read_card, read_metadata
from featcache.store import FeatureStore


def test_alone_and_fused(extracted: FeatureStore, home: Path, run: Any) -> None:
    assert run("adapters train --shots 2").code == 0
    fused = run("adapters export --adapter adapter/ --model fm.onnx --out fused.onnx")
    assert fused.code == 0, fused.text
    assert "sigmoid box" in fused.text
    assert "fused.onnx: toy with its spatial adapter, opset 17" in fused.text
    assert "of the largest logit, on a random window" in fused.text
    assert [i.name for i in inspect_model(home / "fused.onnx").inputs] == ["image"]
    assert read_card(home / "fused.onnx") == read_card(home / "fm.onnx")
    again = run("adapters export --adapter adapter/ --model fm.onnx --out fused.onnx")
    assert (again.code, "fused.onnx exists" in again.text) == (1, True)
    levels = run("adapters export")
    assert levels.code == 1
    assert "reads the levels ['l1', 'l2', 'l3']" in levels.text
    alone = run("adapters export --store features.zarr")
    assert alone.code == 0, alone.text
    assert "adapter.onnx: spatial adapter, opset 17" in alone.text
    document = json.loads(read_metadata(home / "adapter.onnx")["featcache.adapter"])
    assert document["encoder_id"] == extracted.root.encoder_id
    assert [level["name"] for level in document["levels"]] == ["l1", "l2", "l3"]


def test_an_adapter_of_one_level_needs_no_store(extracted: FeatureStore, home: Path, run: Any) -> None:
    assert run("adapters train --shots 1 --method logistic --levels l2").code == 0
    alone = run("adapters export --out alone.onnx")
    assert alone.code == 0, alone.text
    assert [i.name for i in inspect_model(home / "alone.onnx").inputs] == ["l2"]


def test_what_is_refused(extracted: FeatureStore, home: Path, fakes: Any, run: Any) -> None:
    assert run("adapters train --shots 1 --method logistic").code == 0
    both = run("adapters export --model fm.onnx --store features.zarr")
    assert (both.code, "expected --model, or --store" in both.text) == (2, True)
    fakes.conv_encoder(home / "other.onnx", seed=1)
    other = run("adapters export --model other.onnx")
    assert (other.code, "the adapter was trained on features of 'toy'" in other.text) == (1, True)
    missing = run("adapters export --adapter nowhere")
    assert (missing.code, "nowhere: no adapter here" in missing.text) == (1, True)
    assert not (home / "adapter.onnx").exists()


@pytest.mark.parametrize("word", ["--model", "--store", "borders", "blend"])
def test_the_help_says_what_differs_from_predict(run: Any, word: str) -> None:
    shown = run("adapters export --help")
    assert (shown.code, word in shown.text) == (0, True)
