"""Labelled cases -> voxels and patches to train on, read once from the store.

What is drawn decides what an adapter learns. Voxels: all of the structures, many around them, some
elsewhere, each weighted by how many voxels it stands for; drawn mostly from structures and unweighted, a
classifier loses its precision. Patches: half of them around structures, as in FSEFT (1:1).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.features import FeatureVolume, LinearMap
from adapters.labels import CaseLabels
from adapters.positions import positions
from adapters.task import Task
from featcache.geometry import Triple
from featcache.store import Case

_READERS = 2  # threads that read chunks
_NEAR = 4  # feature voxels around a structure that count as near
_A_CLASS, _NEARBY, _ELSEWHERE = 20_000, 40_000, 15_000  # voxels drawn at most, a fit
_AROUND, _ANYWHERE = (
    600,
    200,
)  # inner chunks of the store read at most, at and around structures and elsewhere, a fit


_STRETCH, _SHIFT = 0.05, 0.05  # deviations by which positions are varied


@dataclass(frozen=True)
class Support:
    """One labelled case, ready to be drawn from.

    Parameters
    ----------
    features : FeatureVolume
    labels : CaseLabels
        On the same grid.
    """

    features: FeatureVolume
    labels: CaseLabels

    @classmethod
    def of(cls, case: Case, task: Task, levels: Sequence[str], device: str = "cpu") -> Support:
        """Return the support case `case`; TaskError if its labels do not serve the task."""
        features = FeatureVolume(case, levels, device)
        return cls(features, CaseLabels(case, task, features.grid))


@dataclass(frozen=True)
class VoxelSample:
    """Voxels of several cases.

    Parameters
    ----------
    features : Tensor, shape (n, C), float32
    values : Tensor, shape (n,), int64
        Task values.
    weights : Tensor, shape (n,), float32
        How many voxels of its scan each one stands for.
    cases : Tensor, shape (n,), int64
        Index of the case.
    annotated : Tensor, shape (cases, K), bool
    """

    features: torch.Tensor
    values: torch.Tensor
    weights: torch.Tensor
    cases: torch.Tensor
    annotated: torch.Tensor


def channel_moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel of voxels (n, C); a constant channel's is kept above 0."""
    return features.mean(0), features.std(0).clamp(min=1e-6)


def sample_voxels(support: Sequence[Support], random: np.random.Generator) -> VoxelSample:
    """Return voxels of all support cases: structures, their surroundings, and the rest of the scan."""
    features, values, weights, cases = [], [], [], []
    for number, item in enumerate(support):
        labels = item.labels.hard()
        index, weight = _draw(labels, item.features.chunk, len(support), random)
        features.append(_read_voxels(item.features, index))
        values.append(torch.from_numpy(labels[tuple(index.T)].astype(np.int64)))
        weights.append(torch.from_numpy(weight))
        cases.append(torch.full((len(index),), number))
    annotated = torch.tensor([item.labels.annotated for item in support])
    return VoxelSample(
        torch.cat(features), torch.cat(values), torch.cat(weights), torch.cat(cases), annotated
    )


def _draw(
    labels: NDArray[Any], chunk: int, shots: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return voxel indices (n, 3) and weights (n,) of one of `shots` cases, from some whole chunks."""
    near = (labels == 0) & _widen(labels > 0)
    strata = [labels == value for value in np.unique(labels) if value] + [near, (labels == 0) & ~near]
    limits = [-(-n // shots) for n in (*[_A_CLASS] * (len(strata) - 2), _NEARBY, _ELSEWHERE)]
    most = max(_AROUND // shots, 8), max(_ANYWHERE // shots, 8)
    allowed = _choose_chunks(labels, near, chunk, most, random)
    found, weights = [], []
    for mask, limit in zip(strata, limits, strict=True):
        total = int(np.count_nonzero(mask))
        inside = np.flatnonzero(mask & allowed)
        if not len(inside):
            continue
        drawn = random.permutation(inside)[:limit]
        found.append(drawn)
        weights.append(np.full(len(drawn), total / len(drawn), np.float32))
    index = np.stack(np.unravel_index(np.concatenate(found), labels.shape), axis=1)
    return index, np.concatenate(weights)


def _widen(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    size = 2 * _NEAR + 1
    wide: NDArray[np.bool_] = ndimage.maximum_filter(mask.view(np.uint8), size=size, mode="constant") > 0
    return wide


def _choose_chunks(
    labels: NDArray[Any],
    near: NDArray[np.bool_],
    chunk: int,
    most: tuple[int, int],
    random: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return where voxels may be drawn: whole chunks at and around structures, and some elsewhere.

    Every class has a chunk, however many there are: a small structure lies in one or two.
    """
    grid = [-(-n // chunk) for n in labels.shape]
    number = np.arange(int(np.prod(grid))).reshape(grid)
    by_voxel = number[np.ix_(*(np.arange(n) // chunk for n in labels.shape))]
    one_each = [
        int(random.choice(np.unique(by_voxel[labels == value]))) for value in np.unique(labels) if value
    ]
    around = np.unique(by_voxel[(labels > 0) | near])
    elsewhere = np.setdiff1d(number.ravel(), around)
    first = random.permutation(around)[: max(most[0] - len(one_each), 0)]
    rest = random.permutation(elsewhere)[: most[1]]
    return np.isin(by_voxel, np.concatenate([np.asarray(one_each, np.int64), first, rest]))


def _read_voxels(features: FeatureVolume, index: NDArray[np.int64]) -> torch.Tensor:
    """Return the features of voxels, (n, C), reading each chunk once."""
    chunk = features.chunk
    block = index // chunk
    keys, member = np.unique(block, axis=0, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    bounds = np.searchsorted(member.ravel()[order], np.arange(len(keys) + 1))
    rows = torch.empty(len(index), sum(features.channels.values()))

    def read(number: int) -> None:
        mine = order[bounds[number] : bounds[number + 1]]
        start = keys[number] * chunk
        size = np.minimum(chunk, np.asarray(features.grid.shape) - start)
        box = features.read(start.tolist(), size.tolist()).cpu()
        x, y, z = torch.from_numpy(index[mine] - start).T
        rows[torch.from_numpy(mine)] = box[:, x, y, z].T

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(read, range(len(keys))))
    return rows


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    Parameters
    ----------
    inputs : Tensor, shape (N, C, X, Y, Z), float32 or bfloat16
    target : Tensor, shape (N, K + 1, X, Y, Z), float32
        Soft labels, background first.
    weight : Tensor, shape (N, 1, X, Y, Z), float32
        How many voxels each stands for, 0 for padding.
    annotated : Tensor, shape (N, K), bool
    """

    inputs: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    annotated: torch.Tensor

    def to(self, device: str) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(t.to(device) for t in (self.inputs, self.target, self.weight, self.annotated)))


class VoxelBatches:
    """Sampled voxels of one case a step, as a volume of shape (n, 1, 1): for adapters that look at one voxel.

    They are shuffled and cut into batches once: gathering and rounding them anew takes longer than a step.

    Parameters
    ----------
    sample : VoxelSample
    count : int
        Voxels a step at most.
    random : numpy Generator
    dtype : torch.dtype
        Of the inputs: what the adapter will compute in.
    """

    def __init__(
        self,
        sample: VoxelSample,
        count: int,
        random: np.random.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.random = random
        self._cases: list[list[Batch]] = []
        for case in range(len(sample.annotated)):
            members = torch.nonzero(sample.cases == case).flatten().numpy()
            parts = np.array_split(random.permutation(members), -(-len(members) // count))
            self._cases.append([_voxel_batch(sample, case, part, len(members), dtype) for part in parts])

    def draw(self) -> Batch:
        """Return the batch of one step: voxels of one case, as in FSEFT."""
        case = self._cases[int(self.random.integers(len(self._cases)))]
        return case[int(self.random.integers(len(case)))]


def _voxel_batch(
    sample: VoxelSample, case: int, members: NDArray[np.int64], of: int, dtype: torch.dtype
) -> Batch:
    """Return some of the `of` voxels of a case, weighted to stand for all of them."""
    chosen = torch.from_numpy(members)
    target = torch.nn.functional.one_hot(sample.values[chosen], sample.annotated.shape[1] + 1).float()
    weight = sample.weights[chosen] * (of / len(chosen))
    return Batch(
        sample.features[chosen].to(dtype).T[None, :, :, None, None],
        target.T[None, :, :, None, None],
        weight[None, None, :, None, None],
        sample.annotated[case : case + 1],
    )


class PatchBatches:
    """Patches at random places, half of them around structures.

    Parameters
    ----------
    support : sequence of Support
    maps : sequence of LinearMap
        What the adapter reads through.
    size : tuple of 3 int
        Feature voxels of a patch.
    count : int
        Patches a step.
    one_case : bool
        Whether all patches of a step come from one case, as in FSEFT.
    positions : bool
        Whether inputs end with the voxels' positions, slightly shifted and stretched at random: scans do not
        cover the same part of the body.
    random : numpy Generator
    memory : int
        Bytes that may be spent on keeping whole cases as float16; cases beyond are read patch by patch.
    """

    def __init__(
        self,
        support: Sequence[Support],
        maps: Sequence[LinearMap],
        size: Triple,
        count: int,
        *,
        one_case: bool,
        positions: bool = False,
        random: np.random.Generator,
        memory: int,
    ) -> None:
        # No larger than the largest scan: what is padded costs as much as what is seen.
        largest = np.max([item.features.grid.shape for item in support], axis=0)
        self._size = np.minimum(size, largest)
        self._support, self._maps, self._count = support, maps, count
        self._one_case, self._positions, self.random = one_case, positions, random
        self._places = [_places(item.labels.hard()) for item in support]
        self._kept: dict[int, torch.Tensor] = {}
        for number, item in enumerate(support):
            channels = sum(len(m.bias) for m in maps) or sum(item.features.channels.values())
            bytes_needed = 2 * channels * int(np.prod(item.features.grid.shape))
            if bytes_needed <= memory:
                memory -= bytes_needed
                self._kept[number] = read_whole(item.features, maps)

    def draw(self) -> Batch:
        """Return the patches of one step."""
        case = int(self.random.integers(len(self._support)))
        patches = []
        for _ in range(self._count):
            patches.append(self._patch(case, positive=bool(self.random.random() < 0.5)))
            if not self._one_case:
                case = int(self.random.integers(len(self._support)))
        return Batch(*(torch.stack(parts) for parts in zip(*patches, strict=True)))

    def _patch(self, case: int, *, positive: bool) -> tuple[torch.Tensor, ...]:
        item = self._support[case]
        shape = np.asarray(item.features.grid.shape)
        size = np.minimum(self._size, shape)
        places = self._places[case]
        if positive and places:
            # A class first, then a voxel of it: small structures come as often as large ones.
            voxels = places[int(self.random.integers(len(places)))]
            centre = np.unravel_index(int(voxels[self.random.integers(len(voxels))]), tuple(shape))
            start = np.asarray(centre) - self.random.integers(0, size)
        else:
            start = self.random.integers(0, shape - size + 1)
        start = np.clip(start, 0, shape - size)
        inputs = self._read(case, start, size)
        if self._positions:
            where = positions(shape.tolist(), start.tolist(), size.tolist())
            stretch, shift = self.random.normal(1, _STRETCH, 3), self.random.normal(0, _SHIFT, 3)
            inputs = torch.cat([inputs, where * _column(stretch) + _column(shift)])
        target = item.labels.soft(start.tolist(), size.tolist())
        weight = torch.ones(1, *target.shape[1:])
        # A scan smaller than a patch: the rest weighs nothing.
        pad = [n for a in (2, 1, 0) for n in (0, int(self._size[a] - size[a]))]
        parts = [torch.nn.functional.pad(t, pad) for t in (inputs, target, weight)]
        return (*parts, torch.tensor(item.labels.annotated))

    def _read(self, case: int, start: NDArray[np.int64], size: NDArray[np.int64]) -> torch.Tensor:
        kept = self._kept.get(case)
        if kept is None:
            return self._support[case].features.read(start.tolist(), size.tolist(), self._maps).cpu()
        x, y, z = (slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
        return kept[:, x, y, z].float()


def _column(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]


def _places(labels: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Return the flat indices of each class that occurs."""
    return [np.flatnonzero(labels == value) for value in np.unique(labels) if value]


def read_whole(features: FeatureVolume, maps: Sequence[LinearMap]) -> torch.Tensor:
    """Return one case's features through `maps` in float16, (C, X, Y, Z), read in blocks of whole chunks."""
    shape, edge = features.grid.shape, 4 * features.chunk
    channels = sum(len(m.bias) for m in maps) or sum(features.channels.values())
    whole = torch.empty(channels, *shape, dtype=torch.float16)
    for start in itertools.product(
        range(0, shape[0], edge), range(0, shape[1], edge), range(0, shape[2], edge)
    ):
        size = [min(edge, n - a) for a, n in zip(start, shape, strict=True)]
        x, y, z = (slice(a, a + n) for a, n in zip(start, size, strict=True))
        whole[:, x, y, z] = features.read(start, size, maps).cpu()
    return whole
