"""JSON values -> frozen dataclasses, following the type hints: names the field, expected and found."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from featcache.errors import CardError


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
