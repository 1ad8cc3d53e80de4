"""Stores and cases whose features follow from their labels, so that every adapter has something to learn.

Loaded by the conftest files of the folders that need it: test folders are no packages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featcache import geometry
from featcache.card import EncoderCard
from featcache.encode import level_grid
from featcache.geometry import Grid, Triple, whole
from featcache.head import LinearHead
from featcache.store import CaseInfo, FeatureStore, RootDocument, StoreWriter, files

# Left, posterior, superior with the axes permuted: nothing lies as the encoder wants it.
NATIVE = Grid(
    (14, 18, 16),
    np.array([[0, -1.25, 0, 40.0], [0, 0, -1.0, 10.0], [2.0, 0, 0, -300.0], [0, 0, 0, 1]]),
)
CLASSES = {"liver": 1, "spleen": 2, "cord": 3}
NOISE = 0.3


class MemoryLevel:
    """What FeatureVolume needs of a level, in memory and in float32."""

    chunk = 8

    def __init__(self, grid: Grid, values: NDArray[np.float32]) -> None:
        self.grid, self.values, self.channels = grid, values, len(values)

    def read(self, start: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        values = self.values[(slice(None), *box)]
        assert values.shape[1:] == tuple(size), "a read beyond the level"
        return values.copy()


class MemoryLabels:
    """What CaseLabels needs of a label set."""

    def __init__(self, grid: Grid, values: NDArray[Any], classes: Mapping[str, int]) -> None:
        self.grid, self._values = grid, values
        self.classes, self.annotated = dict(classes), tuple(classes)

    def read(self) -> NDArray[Any]:
        return self._values


class MemoryCase:
    """A case that was never stored."""

    def __init__(
        self,
        levels: Mapping[str, tuple[Grid, NDArray[np.float32]]] | None = None,
        info: CaseInfo | None = None,
        labels: MemoryLabels | None = None,
    ) -> None:
        if info is None and labels is not None:
            info = CaseInfo(labels.grid, (1, 0), labels.grid, "a.u.", whole(labels.grid))
        self.id, self.info, self._labels = "memory", info, labels
        self.levels = {name: MemoryLevel(*level) for name, level in (levels or {}).items()}

    def level(self, name: str) -> MemoryLevel:
        return self.levels[name]

    def labels(self, name: str) -> MemoryLabels | None:
        return self._labels


def box_labels(number: int, values: Sequence[int], shape: Triple = NATIVE.shape) -> NDArray[np.uint8]:
    """Return labels with one box of each value, elsewhere in every case."""
    labels = np.zeros(shape, np.uint8)
    random = np.random.default_rng([number, 7])
    width = shape[2] // len(values)
    for place, value in enumerate(values):
        x, y = (int(random.integers(0, n - 7)) for n in shape[:2])
        labels[x : x + 7, y : y + 7, place * width + 1 : (place + 1) * width] = value
    return labels


def directions(channels: int, classes: int, seed: int) -> NDArray[np.float64]:
    """Return each class' mean feature, (classes, channels): the background's is zero."""
    means = np.random.default_rng([seed, channels]).normal(size=(classes, channels))
    means[0] = 0
    return means / np.linalg.norm(means[1:], axis=1).mean() * 2


def features_of(
    labels: NDArray[Any], card: EncoderCard, prepared: Grid, level: str, *, number: int, seed: int
) -> NDArray[np.float32]:
    """Return features, (C, X, Y, Z): the mean over each cell of the classes' mean features, and noise."""
    output = card.output(level)
    means = directions(output.channels, max(CLASSES.values()) + 1, seed)
    grid = level_grid(prepared, card, level)
    shares = np.stack([labels == value for value in range(len(means))]).astype(np.float64)
    for axis, stride in enumerate(output.stride, 1):
        first = np.arange(0, shares.shape[axis], stride)
        sizes = np.minimum(stride, shares.shape[axis] - first)
        shape = [1] * 4
        shape[axis] = -1
        shares = np.add.reduceat(shares, first, axis=axis) / sizes.reshape(shape)
    noise = np.random.default_rng([number, output.channels, seed]).normal(size=(output.channels, *grid.shape))
    return (np.tensordot(means.T, shares, axes=1) + NOISE * noise).astype(np.float32)


def own_head(card: EncoderCard, level: str, names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return the classifier that knows how `features_of` made its features, as the store keeps it."""
    means = directions(card.output(level).channels, max(CLASSES.values()) + 1, seed)
    rows = np.stack([means[0], *(means[CLASSES[name]] for name in names)])
    bias = -0.5 * np.square(rows).sum(1)
    head = LinearHead(
        level, ("background", *names), rows.astype(np.float32), bias.astype(np.float32), False, 1.0
    )
    return head.to_json()


def make_store(
    path: Path,
    card: EncoderCard,
    *,
    cases: Sequence[str] = ("a", "b", "c"),
    names: Sequence[str] = ("liver", "spleen"),
    annotated: Mapping[str, Sequence[str]] | None = None,
    unlabelled: Sequence[str] = (),
    head: dict[str, Any] | None = None,
    precision: str = "float16",
    encoder_id: str = "e" * 64,
    recipe_id: str = "a" * 64,
    seed: int = 0,
) -> FeatureStore:
    """Return a store of synthetic cases.

    Parameters
    ----------
    annotated : mapping, optional
        The classes outlined in a case; the others are there, but not in its labels.
    """
    root = RootDocument(encoder_id, recipe_id, card.to_json(), {"window": [16] * 3}, "test", head)
    prepared, turn = geometry.reorient(NATIVE, card.preparation.orientation)
    with no_waiting(), StoreWriter.open(path, root) as writer:
        for number, case in enumerate(cases):
            labels = box_labels(number, [CLASSES[name] for name in names])
            turned = geometry.apply_reorientation(labels, turn)
            with writer.new_case(case, CaseInfo(NATIVE, (1, 0), prepared, card.unit, whole(NATIVE))) as new:
                for output in card.outputs:
                    values = features_of(turned, card, prepared, output.name, number=number, seed=seed)
                    grid = level_grid(prepared, card, output.name)
                    new.level(output.name, grid, output.channels, precision).append(values)
                new.commit()
            if case in unlabelled:
                continue
            known = (annotated or {}).get(case, tuple(names))
            outlined = np.where(np.isin(labels, [CLASSES[name] for name in known]), labels, 0)
            classes = {name: CLASSES[name] for name in names}
            writer.write_labels(case, outlined, NATIVE, (1, 0), classes=classes, annotated=known)
    return FeatureStore.open(path)


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@contextmanager
def no_waiting() -> Iterator[None]:
    """Leave fsync out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda descriptor: None)
        yield
