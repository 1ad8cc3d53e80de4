"""JSON -> EncoderCard, following its type hints: an error names the field, expected and found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from featcache.card import CARD_VERSION, FILL_IN, METADATA_KEY, EncoderCard
from featcache.errors import CardError


def parse_card(text: str | bytes, where: str) -> EncoderCard:
    """Return the card written in `text`.

    Raises
    ------
    CardError
        Naming `where`, the field, what was found and what was expected; every unfilled field of a
        template is listed at once.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        hint = "; JSON wants double quotes, and true, false, null" if "'" in str(text) else ""
        raise CardError(f"{where}: the encoder card is no JSON document: {error}{hint}") from error
    try:
        return card_from_json(document)
    except CardError as error:
        raise CardError(f"{where}: {error}") from error


def card_from_json(document: Any) -> EncoderCard:
    """Return the card in a JSON document, checked field by field."""
    unfilled = sorted(_unfilled(document, ""))
    if unfilled:
        raise CardError("the card still has to be filled in by a person: " + ", ".join(unfilled))
    _expect(isinstance(document, dict), "encoder card", "a JSON object", document)
    found = (document.get("format"), document.get("card_version"))
    _expect(
        found == (METADATA_KEY, CARD_VERSION),
        "encoder card, format and card_version",
        f"{METADATA_KEY!r} and {CARD_VERSION}; a newer card needs a newer featcache",
        found,
    )
    body = {k: v for k, v in document.items() if k not in ("format", "card_version")}
    card: EncoderCard = build(EncoderCard, body, "encoder card")
    return card


def _unfilled(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unfilled(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unfilled(item, f"{field}[{index}]")
    elif isinstance(value, str) and value.startswith(FILL_IN):
        yield field


def canonical_digest(document: Any) -> str:
    """Return the sha256 (hex) of `document` as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def build(kind: Any, value: Any, field: str) -> Any:
    """Return `value` (from json.loads) as an instance of the annotated type `kind`.

    Raises
    ------
    CardError
        On a missing or unknown key or a value of another type; the message names the field.
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, field)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return build(inner, value, field)
    if origin is tuple:
        return _tuple(arguments, value, field)
    if origin is Mapping:
        _expect(isinstance(value, dict), field, "an object", value)
        return {str(k): build(arguments[1], v, f"{field}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        _expect(value in arguments, field, " or ".join(map(repr, arguments)), value)
        return value
    return _scalar(kind, value, field)


def _dataclass(kind: Any, value: Any, field: str) -> Any:
    _expect(isinstance(value, dict), field, "an object", value)
    hints = typing.get_type_hints(kind)
    known = dataclasses.fields(kind)
    names = [f.name for f in known]
    unknown = sorted(set(value) - set(names))
    _expect(not unknown, field, f"only the keys {names}", unknown)
    missing = [
        f.name
        for f in known
        if f.name not in value
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    _expect(not missing, field, f"the keys {missing}", sorted(value))
    return kind(**{k: build(hints[k], v, f"{field}.{k}") for k, v in value.items()})


def _tuple(arguments: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    _expect(isinstance(value, list | tuple), field, "a list", value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    _expect(len(value) == len(arguments), field, f"{len(arguments)} values", value)
    pairs = zip(arguments, value, strict=True)
    return tuple(build(a, v, f"{field}[{i}]") for i, (a, v) in enumerate(pairs))


def _scalar(kind: Any, value: Any, field: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        # Python's JSON reads NaN and Infinity, which no field means and no digest can be taken of.
        _expect(math.isfinite(value), field, "a finite number", value)
        return float(value)
    # bool is an int to Python, but not to a person who writes a card.
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    _expect(
        fits,
        field,
        {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind],
        value,
    )
    return value


def _expect(condition: bool, field: str, expected: str, found: object) -> None:
    if not condition:
        raise CardError(f"{field}: expected {expected}, found {found!r}")
