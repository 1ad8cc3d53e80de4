"""Float features <-> stored numbers: rounded floats, or integers of a few bits with a scale and an offset a channel.

Rounded floats, ``float16-mN``: float16 whose last 10 - N mantissa bits are zero. The codec does the rest.

Integers, ``intN``, with n = 2^N - 1 and one scale s > 0 and offset o a channel::

    stored = clip(round((value - o) / s), 0, n)        uint8
    value  = stored * s + o                            float32

Inside of [o, o + n s] the error is at most s / 2; values outside of it are clipped, and counted. Scales and
offsets are calibrated once a store, on one case, so that a number means the same in every case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError

StorePrecision = Literal[
    "float32",
    "float16",
    "float16-m7",
    "float16-m5",
    "float16-m4",
    "float16-m3",
    "int8",
    "int6",
    "int5",
    "int4",
]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Precision:
    """How features are stored.

    Parameters
    ----------
    name : str
        As in ``--store-precision`` and in the recipe.
    dtype : {"float32", "float16", "uint8"}
        Of the array on the disk.
    bits : int
        Mantissa bits that are kept, or bits of an integer.
    """

    name: StorePrecision
    dtype: Literal["float32", "float16", "uint8"]
    bits: int

    @property
    def plain(self) -> bool:
        """Whether it is a type of the array and nothing more."""
        return self.name == self.dtype

    @property
    def calibrated(self) -> bool:
        """Whether it needs a `Calibration`."""
        return self.dtype == "uint8"

    @property
    def format_version(self) -> int:
        """The first version of the store's format that knows it."""
        return 1 if self.plain else 2

    @property
    def limit(self) -> float:
        """The largest magnitude that it takes; integers take every float32, clipped."""
        if self.dtype == "float16":
            return (2 - 2.0**-self.bits) * 2.0**15
        return float(np.finfo(np.float32).max)

    def encode(self, values: Features, calibration: Calibration | None) -> tuple[NDArray[Any], int]:
        """Return the numbers to be stored, and how many were clipped.

        Parameters
        ----------
        values : ndarray, shape (C, ...), float32
            Finite, at most `limit` in magnitude.
        calibration : Calibration or None
            Of these channels, for integers.

        Returns
        -------
        ndarray, shape (C, ...), `dtype`
        int
        """
        if self.dtype == "float32":
            return values, 0
        if self.dtype == "float16":
            return round_mantissa(values, self.bits), 0
        assert calibration is not None
        return quantise(values, calibration)

    def decode(self, numbers: NDArray[Any], calibration: Calibration | None) -> Features:
        """Return the features, (C, ...) float32, that stored numbers stand for."""
        if self.dtype != "uint8":
            return numbers.astype(np.float32, copy=False)
        assert calibration is not None
        return dequantise(numbers, calibration)


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        precision.name: precision
        for precision in (
            Precision("float32", "float32", 23),
            Precision("float16", "float16", 10),
            Precision("float16-m7", "float16", 7),
            Precision("float16-m5", "float16", 5),
            Precision("float16-m4", "float16", 4),
            Precision("float16-m3", "float16", 3),
            Precision("int8", "uint8", 8),
            Precision("int6", "uint8", 6),
            Precision("int5", "uint8", 5),
            Precision("int4", "uint8", 4),
        )
    }
)
"""Every precision by name, the finest first."""


def get_precision(name: str) -> Precision:
    """Return a precision by its name.

    Raises
    ------
    StoreError
        If there is none of this name.
    """
    if name not in PRECISIONS:
        raise StoreError(f"store precision {name!r}: expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


@dataclass(frozen=True)
class Calibration:
    """What the integers of one level stand for.

    Parameters
    ----------
    bits : int
        Of an integer, at most 8.
    scale, offset : ndarray, shape (C,), float32
        Step, above 0, and the value of the number 0, in units of the features.
    """

    bits: int
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __post_init__(self) -> None:
        fits = self.scale.shape == self.offset.shape and self.scale.ndim == 1 and 1 <= self.bits <= 8
        if not fits or not np.isfinite([self.scale, self.offset]).all() or not (self.scale > 0).all():
            raise StoreError(
                f"scales {self.scale.shape} and offsets {self.offset.shape} of {self.bits} bits: expected finite "
                "numbers, one a channel, scales above 0, and 1 to 8 bits"
            )

    @property
    def highest(self) -> int:
        """The largest number, 2^bits - 1."""
        return (1 << self.bits) - 1

    def channel(self, number: int) -> Calibration:
        """Return the calibration of one channel."""
        one = slice(number, number + 1)
        return Calibration(self.bits, self.scale[one], self.offset[one])

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values; float32 survives."""
        return {
            "bits": self.bits,
            "scale": self.scale.astype(float).tolist(),
            "offset": self.offset.astype(float).tolist(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Return the calibration written by `to_json`."""
        scale, offset = (np.asarray(document[name], np.float32) for name in ("scale", "offset"))
        return cls(int(document["bits"]), scale, offset)


def round_mantissa(values: Features, bits: int) -> NDArray[np.float16]:
    """Return float16 values with at most `bits` mantissa bits, rounded to nearest, ties to even.

    Values are rounded to float16 first, so that a stored float16 rounds to the same. Magnitudes above
    (2 - 2^-bits) 2^15 may become infinite.

    Parameters
    ----------
    values : ndarray, float32
    bits : int
        1 to 10; the relative error is at most 2^-(bits + 1), and half of it more by float16's own rounding.
    """
    half = values.astype(np.float16)
    dropped = 10 - bits
    if not dropped:
        return half
    # A carry out of the mantissa raises the exponent, as it should: the fields of a float are in order.
    pattern = half.view(np.uint16)
    odd = (pattern >> dropped) & 1
    rounded = (pattern + (odd + np.uint16((1 << (dropped - 1)) - 1))) >> dropped << dropped
    return rounded.astype(np.uint16, copy=False).view(np.float16)


def quantise(values: Features, calibration: Calibration) -> tuple[NDArray[np.uint8], int]:
    """Return clip(round((value - offset) / scale), 0, 2^bits - 1), and how many values were clipped.

    Parameters
    ----------
    values : ndarray, shape (C, ...), float32
    calibration : Calibration
        Of the C channels.

    Returns
    -------
    ndarray, shape (C, ...), uint8
    int
        Values more than half a step outside of [offset, offset + (2^bits - 1) scale].
    """
    steps = values - _columns(calibration.offset, values.ndim)
    steps /= _columns(calibration.scale, values.ndim)
    np.rint(steps, out=steps)
    clipped = int(np.count_nonzero(steps < 0) + np.count_nonzero(steps > calibration.highest))
    return np.clip(steps, 0, calibration.highest, out=steps).astype(np.uint8), clipped


def dequantise(numbers: NDArray[np.uint8], calibration: Calibration) -> Features:
    """Return number * scale + offset, in float32.

    Parameters
    ----------
    numbers : ndarray, shape (C, ...), uint8
    calibration : Calibration
        Of the C channels.
    """
    values = numbers.astype(np.float32)
    values *= _columns(calibration.scale, values.ndim)
    values += _columns(calibration.offset, values.ndim)
    return values


def _columns(values: NDArray[np.float32], ndim: int) -> NDArray[np.float32]:
    return values.reshape(-1, *[1] * (ndim - 1))
