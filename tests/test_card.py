"""Encoder cards: round trips, and every way to write one wrongly is named."""

from __future__ import annotations

import copy
import json

import pytest

from featcache.card import FILL_IN, EncoderCard, Golden
from featcache.card_json import canonical_digest, card_from_json, parse_card
from featcache.errors import CardError

GOOD = {
    "format": "featcache.card",
    "card_version": 1,
    "name": "toy",
    "version": "1",
    "licence": "MIT",
    "modality": "CT",
    "input": {"name": "image", "window": [32, 32, 16], "dynamic": True},
    "preparation": {
        "orientation": "LIA",
        "spacing": [1, 1.5, 2],
        "intensity": {"kind": "window", "low": -1000, "high": 1000, "output": [0, 1]},
        "crop": {"above": -300, "margin": 10},
    },
    "blending": {"kind": "halo", "halo": [8, 8, 4]},
    "outputs": [
        {"name": "l1", "channels": 2, "stride": [4, 4, 2], "offset": [0, 0, 0]},
        {"name": "l2", "channels": 3, "stride": [8, 8, 4], "offset": [3.5, 3.5, 1.5], "default": False},
    ],
    "head": {"level": "l1", "classes": ["background", "liver"], "output": "logits"},
}
REMOVE = object()
WEIGHTS = {"output": None, "weights": [[1, 2], [3, 4]], "bias": [0, 1]}


def changed(where: str, value: object) -> dict:
    """Return the good card with one field (a path such as "outputs.0.stride") set or removed."""
    document = copy.deepcopy(GOOD)
    *parents, last = [int(k) if k.isdigit() else k for k in where.split(".")]
    place = document
    for key in parents:
        place = place[key]
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return document


MALFORMED = [
    # the path to the field, its wrong value, what the message names
    ("format", "nnunet", "format and card_version"),
    ("card_version", 2, "newer featcache"),
    ("name", REMOVE, "'name'"),
    ("name", 3, "encoder card.name: expected a text, found 3"),
    ("colour", "red", "'colour'"),
    ("modality", "PET", "encoder card.modality: expected 'CT' or 'MR', found 'PET'"),
    ("input", [1], "encoder card.input: expected an object"),
    ("input.window", [32, 32], "input.window: expected 3 values"),
    ("input.window", 32, "input.window: expected a list"),
    ("input.window", [32, 32, 15], "input.window: expected a multiple of 4 on axis 2"),
    ("input.window", [32, 0, 16], "input.window: expected three positive sizes"),
    ("input.window", [32.5, 32, 16], r"input.window\[0\]: expected a whole number"),
    ("input.dynamic", "yes", "input.dynamic: expected true or false"),
    ("input.dynamic", 1, "input.dynamic: expected true or false"),
    ("input.channels", 2, "input.channels: expected 1"),
    ("input.channels", True, "input.channels: expected a whole number"),
    ("input.multiple", [0, 1, 1], "input.multiple"),
    ("input.multiple", [5, 1, 1], "input.window: expected a multiple of 40 on axis 0"),
    ("preparation.orientation", "RAX", "preparation.orientation"),
    ("preparation.orientation", "RLS", "preparation.orientation"),
    ("preparation.spacing", [1, 0, 1], "preparation.spacing: expected three positive mm"),
    ("preparation.spacing", [1, float("nan"), 1], r"preparation.spacing\[1\]: expected a finite number"),
    ("preparation.spacing", REMOVE, "spacing"),
    ("preparation.intensity.kind", "minmax", "preparation.intensity.kind"),
    ("preparation.intensity.low", 1000, "preparation.intensity: expected low < high"),
    ("preparation.intensity.output", [0], "preparation.intensity.output: expected 2 values"),
    (
        "preparation.intensity",
        {"kind": "percentile", "low": 1, "high": 101},
        "preparation.intensity: expected percentiles from 0 to 100",
    ),
    ("preparation.crop.margin", -1, "preparation.crop.margin"),
    ("preparation.crop.above", None, "preparation.crop.above: expected a number"),
    ("preparation.pad_value", float("inf"), "preparation.pad_value: expected a finite number"),
    ("blending.kind", "mean", "blending.kind"),
    ("blending.halo", [-1, 0, 0], "blending.halo: expected 0 or more"),
    (
        "blending.halo",
        [13, 0, 0],
        "blending.halo: expected one that leaves a core in a window of 32 voxels on axis 0",
    ),
    ("blending.overlap", 1.0, "blending.overlap"),
    ("outputs", [], "outputs: expected at least one"),
    ("outputs.0.name", "l2", "outputs: expected at least one, distinct names"),
    ("outputs.0.name", "enc/l1", r"outputs\[enc/l1\].name"),
    ("outputs.0.name", "", r"outputs\[\].name"),
    ("outputs.0.name", ".l1", r"outputs\[.l1\].name"),
    ("outputs.0.channels", 0, r"outputs\[l1\].channels"),
    ("outputs.0.stride", [4, 4, 0], r"outputs\[l1\].stride: expected positive"),
    ("outputs.0.offset", REMOVE, "offset"),
    ("outputs.0.offset", [0, 0, "0"], r"outputs\[0\].offset\[2\]: expected a number"),
    ("outputs.0.size", "round", r"outputs\[0\].size: expected 'ceil' or 'floor'"),
    ("outputs.0.default", False, "outputs: expected one with default true"),
    ("head.level", "l3", "head.level: expected one of"),
    ("head.output", "l1", "head.output: expected not a level"),
    ("head.output", None, "head: expected either 'output' or 'weights'"),
    ("head.classes", ["a", "a"], "head.classes: expected distinct names"),
    ("head.classes", [], "head.classes: expected distinct names"),
    ("head.activation", "relu", "head.activation"),
    ("head.activation", "sigmoid", "head.multilabel: expected true with sigmoid"),
    ("head", {**GOOD["head"], **WEIGHTS, "bias": [0]}, "head.weights and .bias: expected a row a class"),
    ("head", {**GOOD["head"], **WEIGHTS, "bias": None}, "head.weights and .bias: expected a row a class"),
    ("head", {**GOOD["head"], **WEIGHTS, "weights": [[1], [2]]}, "head.weights: expected rows of 2"),
    ("golden", {"shape": [8, 8, 4], "values": {"l1": [1, 2]}}, "golden.values.l1: expected 16 values"),
    (
        "golden",
        {"shape": [8, 8, 4], "values": {"l9": [0.5] * 16}},
        "golden.values: expected names of outputs",
    ),
    ("golden", {"shape": [8, 8], "values": {}}, "golden.shape: expected 3 values"),
    ("golden", {"shape": [8, 8, 4], "values": {}, "tolerance": 0}, "golden.tolerance"),
]


@pytest.mark.parametrize(("where", "value", "message"), MALFORMED)
def test_a_malformed_card_is_refused_and_its_field_named(where, value, message):
    with pytest.raises(CardError, match=message) as caught:
        parse_card(json.dumps(changed(where, value)), "fm.card.json")
    assert str(caught.value).startswith("fm.card.json: ")


@pytest.mark.parametrize("text", ["", "{", "not json", "[]", "3", "null", b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(CardError, match=r"^fm\.card\.json: "):
        parse_card(text, "fm.card.json")


def test_a_good_card_survives_json():
    card = card_from_json(GOOD)
    document = card.to_json()
    assert parse_card(json.dumps(document), "fm") == card
    # The document is what JSON gives back, lists and all: stores compare it with what they read.
    assert document == json.loads(json.dumps(document))
    assert card_from_json(changed("head", {**GOOD["head"], **WEIGHTS})).head.weights == ((1, 2), (3, 4))
    values = {"l1": [0.25] * 16}
    assert card_from_json(changed("golden", {"shape": [8, 8, 4], "values": values})).golden == Golden(
        (8, 8, 4), {"l1": (0.25,) * 16}
    )


def test_defaults_of_a_card():
    card = card_from_json(GOOD)
    assert isinstance(card, EncoderCard)
    assert (card.unit, card.default_levels, card.window_step) == ("HU", ("l1",), (8, 8, 4))
    assert (card.preparation.pad_value, card.input.multiple, card.outputs[0].size) == (0.0, (1, 1, 1), "ceil")
    assert card_from_json(changed("modality", "MR")).unit == "a.u."
    assert card.output("l2").offset == (3.5, 3.5, 1.5)
    with pytest.raises(CardError, match=r"no level 'l3': the encoder has \['l1', 'l2'\]"):
        card.output("l3")


def test_all_unfilled_fields_are_listed_at_once():
    document = changed("version", f"{FILL_IN}: the version")
    document["preparation"]["spacing"] = f"{FILL_IN}: mm"
    document["outputs"][1]["offset"] = [0, f"{FILL_IN}: offset", 0]
    with pytest.raises(CardError) as caught:
        card_from_json(document)
    assert str(caught.value).endswith(
        "filled in by a person: outputs[1].offset[1], preparation.spacing, version"
    )


def test_the_digest_does_not_depend_on_the_order_of_keys():
    assert canonical_digest({"a": 1, "b": [1, 2]}) == canonical_digest({"b": [1, 2], "a": 1})
    assert canonical_digest({"a": [1, 2]}) != canonical_digest({"a": [2, 1]})
    assert len(canonical_digest({})) == 64
