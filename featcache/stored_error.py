"""What storing features did to them, measured while they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.quantise import Features


@dataclass(frozen=True)
class StoredError:
    """How the stored features of a level differ from those computed (docs/store-format.md, `stored_error`).

    Parameters
    ----------
    relative_rms : float
        rms(stored - computed) / rms(computed).
    max_abs : float
        max |stored - computed|.
    relative_sigma : float, optional
        rms(stored - computed) / rms(computed - mean of its channel); None for plain float16 and float32.
    clipped : int, optional
        Values beyond the range of the stored integers; None for plain float16 and float32.
    head_agreement : float, optional
        Share of the voxels where the encoder's own head decides alike; None without a head that reads the level.
    """

    relative_rms: float = 0.0
    max_abs: float = 0.0
    relative_sigma: float | None = None
    clipped: int | None = None
    head_agreement: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known, as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> StoredError:
        """Return what `to_json` wrote; unknown fields are left out."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**{"relative_rms": document["relative_rms"], "max_abs": document["max_abs"], **known})


class ErrorMeter:
    """Gathers the error of one level of a case, piece by piece.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._squares = 0.0  # sum over all values of computed ** 2
        self._errors = 0.0  # sum of (stored - computed) ** 2
        self._max_abs = 0.0
        self._clipped = 0
        self._voxels = np.zeros(channels, np.int64)
        self._means = np.zeros(channels, np.float64)
        self._spreads = np.zeros(channels, np.float64)  # sum of (computed - mean) ** 2
        self._decided = self._alike = 0

    def add(self, computed: Features, stored: Features) -> None:
        """Take features and what a reader will find in their place, any equal shape, float32."""
        error, flat = (stored - computed).ravel(), computed.ravel()
        self._errors += float(np.dot(error, error))
        self._squares += float(np.dot(flat, flat))
        self._max_abs = max(self._max_abs, float(error.max()), -float(error.min()))

    def add_channel(self, channel: int, computed: Features, clipped: int) -> None:
        """Take features of one channel for its spread, and how many of them were clipped."""
        self._clipped += clipped
        n, mean = computed.size, float(computed.mean(dtype=np.float64))
        spread = float(np.square(computed - np.float32(mean)).sum(dtype=np.float64))
        # Chan, Golub & LeVeque 1979: two samples' sums of squared deviations, joined without cancellation.
        before, shift = int(self._voxels[channel]), mean - float(self._means[channel])
        both = before + n
        self._spreads[channel] += spread + shift**2 * before * n / both
        self._means[channel] += shift * n / both
        self._voxels[channel] = both

    def add_decisions(self, computed: NDArray[Any], stored: NDArray[Any]) -> None:
        """Take what the encoder's own head decides of both, as `LinearHead.decide` returns it."""
        same = computed == stored
        if same.ndim > 1:  # independent classes: all have to be alike
            same = same.all(axis=0)
        self._decided += same.size
        self._alike += int(np.count_nonzero(same))

    def result(self, *, full: bool) -> StoredError:
        """Return the error so far; `full` with everything that was measured beyond the first two figures."""
        relative = math.sqrt(self._errors / self._squares) if self._squares else 0.0
        if not full:
            return StoredError(relative, self._max_abs)
        spread = float(self._spreads.sum())
        # Constant features: there is no spread to hold the error against.
        to_sigma = math.sqrt(self._errors / spread) if spread else 0.0
        agreement = self._alike / self._decided if self._decided else None
        return StoredError(relative, self._max_abs, to_sigma, self._clipped, agreement)
