from __future__ import annotations

import json
from pathlib import Path

import pytest

from featcache.errors import CorruptStore, StoreError
from featcache.store.seal import seal, unseal

PATH = Path("zarr.json")
DOCUMENT = {
    "zarr_format": 3,
    "attributes": {"featcache": {"kind": "case", "x": [1e-05, 0.1], "zeros": "0" * 64, "ä": None}},
}


def test_round_trip_keeps_content_and_argument() -> None:
    slot = unseal(seal(DOCUMENT), PATH)
    digest = slot.pop("sha256")
    assert slot == DOCUMENT["attributes"]["featcache"]  # type: ignore[index]
    assert len(digest) == 64


def test_index_is_sealed_at_the_top() -> None:
    data = seal({"cases": ["a"]})
    assert set(json.loads(data)) == {"cases", "sha256"}
    assert unseal(data, PATH)["cases"] == ["a"]


def test_every_flipped_bit_is_found() -> None:
    data = seal(DOCUMENT)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptStore, match=r"zarr\.json"):
            unseal(bytes(damaged), PATH)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"1e-05", b"1E-05"),
        lambda data: data.replace(b"1e-05", b"1e-5"),
        lambda data: data + b"\n",
        lambda data: data.replace(b" ", b"", 1),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"[]",
        lambda data: b"7",
        lambda data: b'{"sha256": 7}',
    ],
)
def test_other_spellings_of_the_same_content_are_found(change) -> None:  # type: ignore[no-untyped-def]
    data = seal(DOCUMENT)
    assert change(data) != data
    with pytest.raises(CorruptStore):
        unseal(change(data), PATH)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(StoreError, match="finite JSON"):
        seal({"attributes": {"featcache": {"x": value}}})
