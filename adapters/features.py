"""One case's features as an adapter sees them: several levels on the finest one's grid, box by box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adapters.interpolate import interpolate, source_positions
from featcache.errors import AdapterMismatchError, CorruptStore
from featcache.geometry import AxisMap, Grid, Triple, axis_map, spacing
from featcache.store import Case, Level


@dataclass(frozen=True)
class LinearMap:
    """``y = sum over levels of weights[level] @ features + bias``.

    Applied to each level on its own grid, before interpolation, with which it commutes: a coarse level of
    many channels is never brought to the fine grid.

    Parameters
    ----------
    weights : mapping of str to Tensor, shape (R, C_level), float32
    bias : Tensor, shape (R,), float32
    """

    weights: Mapping[str, torch.Tensor]
    bias: torch.Tensor


def split_channels(weights: torch.Tensor, channels: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Return `weights` (R, sum of C) cut into a piece for each level, in the order of `channels`."""
    pieces = torch.split(weights, list(channels.values()), dim=1)
    return dict(zip(channels, pieces, strict=True))


class FeatureVolume:
    """Lazily read features of one case; nothing is kept between reads.

    Parameters
    ----------
    case : featcache.store.Case
        The case in its store.
    levels : sequence of str
        Levels to read, concatenated along channels in this order.
    device : str
        Where boxes are returned.

    Attributes
    ----------
    grid : Grid
        The grid of the finest of the levels.
    channels : dict of str to int
        Channels of each level.
    """

    def __init__(self, case: Case, levels: Sequence[str], device: str = "cpu") -> None:
        self.case = case
        self.device = device
        self._levels: dict[str, Level] = {name: case.level(name) for name in levels}
        finest = min(self._levels.values(), key=lambda level: float(np.prod(spacing(level.grid))))
        self.grid: Grid = finest.grid
        self.chunk = finest.chunk
        self.channels = {name: level.channels for name, level in self._levels.items()}
        self._maps: dict[str, AxisMap] = {
            name: axis_map(level.grid, self.grid) for name, level in self._levels.items()
        }

    def read(self, start: Sequence[int], size: Sequence[int], maps: Sequence[LinearMap] = ()) -> torch.Tensor:
        """Return the box of `size` voxels at `start` of the finest grid.

        Parameters
        ----------
        start, size : sequences of 3 int
            A box inside the grid.
        maps : sequence of LinearMap
            Their outputs are returned one after the other in place of the features.

        Returns
        -------
        Tensor, shape (C, x, y, z), float32

        Raises
        ------
        CorruptStore
            If a feature is NaN or infinite, or a chunk is damaged.
        """
        parts = []
        total: torch.Tensor | None = None
        weights = self._stack(maps)
        for name in self._levels:
            values, positions = self._read_level(name, start, size)
            if weights is None:
                parts.append(interpolate(values, positions))
                continue
            mapped = torch.tensordot(weights[name], values, dims=1)
            mapped = interpolate(mapped, positions)
            total = mapped if total is None else total.add_(mapped)
        if total is None:
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        bias = torch.cat([m.bias for m in maps]).to(self.device)
        return total + bias[:, None, None, None]

    def _stack(self, maps: Sequence[LinearMap]) -> dict[str, torch.Tensor] | None:
        if not maps:
            return None
        return {name: torch.cat([m.weights[name] for m in maps]).to(self.device) for name in self._levels}

    def _read_level(
        self, name: str, start: Sequence[int], size: Sequence[int]
    ) -> tuple[torch.Tensor, list[np.ndarray[tuple[int], np.dtype[np.float64]]]]:
        """Return the box of one level that the fine box needs, and the fine voxels' indices in it."""
        level = self._levels[name]
        positions, _ = source_positions(self._maps[name], start, size)
        low, count = [], []
        for axis, position in enumerate(positions):
            last = level.grid.shape[axis] - 1
            first = int(np.clip(np.floor(position.min() + 1e-6), 0, last))
            end = int(np.clip(np.ceil(position.max() - 1e-6), first, last))
            low.append(first)
            count.append(end - first + 1)
        box: Triple = (count[0], count[1], count[2])
        values = torch.from_numpy(level.read((low[0], low[1], low[2]), box)).to(self.device)
        # The sum tells for almost nothing; it may also overflow.
        if not values.sum().isfinite() and not values.isfinite().all():
            raise CorruptStore(
                f"case {self.case.id}, level {name}: {int((~values.isfinite()).sum())} of {values.numel()} features in "
                f"the box at {tuple(low)} are NaN or infinite; expected numbers. featcache writes none: extract the "
                "case again",
                case=self.case.id,
            )
        inside = [np.round(p - a, 6) for p, a in zip(positions, low, strict=True)]
        return values, inside


def check_levels(case: Case, levels: Sequence[str]) -> None:
    """Raise AdapterMismatchError if the case's store lacks one of `levels`."""
    missing = [name for name in levels if name not in case.levels]
    if missing:
        raise AdapterMismatchError(
            f"case {case.id}: the store holds no level {missing}; it has {sorted(case.levels)}. Choose with --levels",
            case=case.id,
        )
