from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import StoreError
from featcache.quantise import PRECISIONS
from featcache.store.layout import CHUNK_BYTES, SHARD_BYTES, check_name, chunk_edge, shard_shape

SCHEMA = Path(__file__).parents[2] / "docs" / "store-format.schema.json"
GOLDEN = Path(__file__).parents[1] / "golden" / "v2.zarr"


@pytest.mark.parametrize(
    ("channels", "dtype", "edge"),
    [
        (1, "float16", 32),
        (48, "float16", 32),
        (64, "float16", 32),
        (65, "float16", 24),
        (64, "float32", 24),
        (256, "float16", 16),
        (768, "float16", 8),
        (100_000, "float32", 8),
    ],
)
def test_chunk_edge(channels: int, dtype: str, edge: int) -> None:
    assert chunk_edge(channels, dtype) == edge


@pytest.mark.parametrize("channels", [1, 48, 256, 5000])
def test_shards_tile_the_array_within_the_bound(channels: int) -> None:
    for shape in itertools.product((1, 31, 192, 401, 512), (7, 160, 512), (3, 900)):
        c, x, y, z = shard_shape(channels, shape, "float16")
        edge = chunk_edge(channels, "float16")
        assert (c, z) == (channels, edge)
        assert c * x * y * z * 2 <= SHARD_BYTES or (x, y) == (edge, edge)
        for width, size in ((x, shape[0]), (y, shape[1])):
            assert width % edge == 0
            assert -(-size // edge) % (width // edge) == 0  # no chunk outside of the array


def test_chunk_bound_holds_where_it_can() -> None:
    assert all(c * chunk_edge(c, "float16") ** 3 * 2 <= CHUNK_BYTES for c in range(1, 4096, 7))


@pytest.mark.parametrize("name", ["a", "case_01.v2-x", "Ünï", "x" * 200])
def test_names_that_fit(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "a b", "a\n", "x" * 201, "zarr.json"])
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(StoreError, match="case id"):
        check_name(name)


def _problems(value: Any, rule: dict[str, Any], where: str = "$") -> list[str]:
    """Return where `value` breaks a JSON Schema; the keywords that ours uses and no others."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    if "$ref" in rule:
        rule = schema["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    found = []
    types = rule.get("type", list(kinds))
    if not isinstance(value, tuple(kinds[t] for t in ([types] if isinstance(types, str) else types))):
        found.append(f"{where}: not {types}")
    checks = {
        "const": lambda v: value == v,
        "enum": lambda v: value in v,
        "pattern": lambda v: re.search(v, value),
        "minimum": lambda v: value >= v,
        "maximum": lambda v: value <= v,
        "exclusiveMinimum": lambda v: value > v,
        "minItems": lambda v: len(value) >= v,
        "maxItems": lambda v: len(value) <= v,
        "minLength": lambda v: len(value) >= v,
        "required": lambda v: set(v) <= set(value),
    }
    known = {*checks, "type", "properties", "additionalProperties", "items", "prefixItems"}
    assert set(rule) <= known, set(rule) - known
    if value is not None:
        found += [f"{where}: {n}" for n, check in checks.items() if n in rule and not check(rule[n])]
    if isinstance(value, dict):
        for key, part in value.items():
            below = rule.get("properties", {}).get(key, rule.get("additionalProperties"))
            found += _problems(part, below, f"{where}.{key}") if below else []
    if isinstance(value, list):
        for i, part in enumerate(value):
            below = rule["prefixItems"][i] if "prefixItems" in rule else rule.get("items")
            found += _problems(part, below, f"{where}[{i}]") if below else []
    return found


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ("zarr.json", "store"),
        ("cases.json", "index"),
        ("cases/a/zarr.json", "case"),
        ("labels/a/labels/zarr.json", "labels"),
    ],
)
def test_documents_follow_the_published_schema(toy_store: Path, document: str, kind: str) -> None:
    value = json.loads((toy_store / document).read_bytes())
    slot = value if kind == "index" else value["attributes"]["featcache"]
    rule = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"][kind]
    assert _problems(slot, rule) == []
    assert set(slot) | {"calibration"} == set(rule["properties"]) | {
        "calibration"
    }  # nothing unspecified is written
    assert slot["format_version"] == 1
    assert _problems({**slot, "sha256": "x"}, rule)
    assert _problems({**slot, "format_version": 3}, rule)


@pytest.mark.parametrize(("document", "kind"), [("zarr.json", "store"), ("cases/case_1/zarr.json", "case")])
def test_documents_of_version_2_follow_the_published_schema(document: str, kind: str) -> None:
    slot = json.loads((GOLDEN / document).read_bytes())["attributes"]["featcache"]
    rule = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"][kind]
    assert _problems(slot, rule) == []
    assert slot["format_version"] == 2
    assert set(slot) == set(rule["properties"])
    if kind == "case":
        level = rule["properties"]["levels"]["additionalProperties"]["properties"]
        assert set(slot["levels"]["five"]) == set(level)
        assert set(slot["levels"]["five"]["stored_error"]) == set(level["stored_error"]["properties"])


def test_the_schema_knows_every_precision() -> None:
    case = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]["case"]["properties"]
    rule = case["levels"]["additionalProperties"]["properties"]
    assert rule["precision"]["enum"] == [p.name for p in PRECISIONS.values() if not p.plain]
    assert set(rule["dtype"]["enum"]) == {p.dtype for p in PRECISIONS.values()}
    page = (SCHEMA.parent / "store-format.md").read_text(encoding="utf-8")
    assert all(
        f"`{name}`" in page or f"`-{name.partition('-')[2]}`" in page for name in rule["precision"]["enum"]
    )


def test_arrays_are_stored_as_specified(toy_store: Path) -> None:
    document = json.loads((toy_store / "cases/a/features/l1/0/zarr.json").read_bytes())
    (sharding,) = document["codecs"]
    names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
    blosc = sharding["configuration"]["codecs"][1]["configuration"]
    assert names == ["bytes", "blosc", "crc32c"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"], blosc["typesize"]) == (
        "zstd",
        1,
        "bitshuffle",
        2,
    )
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert sharding["configuration"]["index_location"] == "end"
    assert sharding["configuration"]["chunk_shape"] == [3, 32, 32, 32]
    labels = json.loads((toy_store / "labels/a/labels/0/zarr.json").read_bytes())
    assert [codec["name"] for codec in labels["codecs"]] == ["bytes", "zstd", "crc32c"]
    assert labels["data_type"] == "uint8"


def test_levels_are_ngff_multiscales(toy_store: Path, toy: Any) -> None:
    attributes = json.loads((toy_store / "cases/a/features/l2/zarr.json").read_bytes())["attributes"]
    (multiscale,) = attributes["ome"]["multiscales"]
    assert attributes["ome"]["version"] == "0.5"
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "x", "y", "z"]
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1, 8, 4, 8]
    assert translation["translation"] == [0, 0, 0, 0]
    assert np.array_equal(attributes["featcache"]["affine"], toy.levels["l2"][2].affine)
