"""A small store with two cases, two levels and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from featcache.geometry import Grid, whole
from featcache.store import CaseInfo, RootDocument, StoreWriter, files

NATIVE = Grid(
    (11, 7, 6), np.array([[-0.9, 0, 0, 50], [0, 0.8, 0.1, -30], [0, -0.1, 2.5, 7.25], [0, 0, 0, 1]])
)
PREPARED = Grid((40, 9, 10), np.diag([1.5, 1.5, 2.0, 1.0]))
LEVELS = {"l1": ("float16", 3, PREPARED), "l2": ("float32", 2, Grid((5, 4, 3), np.diag([8.0, 4, 8, 1])))}
ROOT = RootDocument(
    encoder_id="e" * 64,
    recipe_id="a" * 64,
    card={"name": "toy", "version": "1", "note": "0" * 64},
    recipe={"window": [32, 32, 32], "blending": "halo"},
    software="featcache 0.1.0",
)


def features(case: str, level: str) -> NDArray[np.float32]:
    """Return what the store holds: values that float16 rounds."""
    _, channels, grid = LEVELS[level]
    rng = np.random.default_rng([len(level), *case.encode(), *level.encode()])
    return rng.normal(size=(channels, *grid.shape)).astype(np.float32)


def labels() -> NDArray[np.int64]:
    return np.random.default_rng(5).integers(0, 4, NATIVE.shape)


def write_case(writer: StoreWriter, case: str) -> str:
    with writer.new_case(
        case, CaseInfo(NATIVE, (1, 2), PREPARED, "HU", whole(NATIVE), [{"step": "clip"}])
    ) as new:
        for name, (dtype, channels, grid) in LEVELS.items():
            new.level(name, grid, channels, dtype).append(features(case, name))
        return new.commit()


def write_labels(writer: StoreWriter, case: str, **changes: Any) -> None:
    arguments = {"classes": {"liver": 1, "spleen": 2, "cord": 3}, "annotated": ["liver"], "group": "p1"}
    writer.write_labels(case, labels(), NATIVE, (1, 2), **{**arguments, **changes})


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that no test may change; copy it."""
    path = tmp_path_factory.mktemp("toy") / "features.zarr"
    with StoreWriter.open(path, ROOT) as writer:
        for case in ("a", "b"):
            write_case(writer, case)
            write_labels(writer, case)
    return path


@pytest.fixture
def toy() -> Any:
    """Return the toy store's recipe, for tests that write it themselves."""

    class Toy:
        root, native, prepared, levels = ROOT, NATIVE, PREPARED, LEVELS
        write_case: Callable[..., str] = staticmethod(write_case)
        write_labels = staticmethod(write_labels)
        features = staticmethod(features)
        labels = staticmethod(labels)

    return Toy
