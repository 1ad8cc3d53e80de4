"""Labels -> store, with or without an extraction; features are never touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from featcache.errors import CorruptStore, FeatcacheError, ScanReadError
from featcache.events import Event, ExtractResult, OnEvent, Tally
from featcache.geometry import Grid
from featcache.scans import (
    Annotated,
    LabelSource,
    LabelVolume,
    ScanSource,
    discover,
    label_values,
    numbered_classes,
    read_labels,
)
from featcache.store import FeatureStore, StoreWriter


def add_labels(
    store: Path | str,
    inputs: Path | str | Sequence[Path | str],
    labels: Path | str | None = None,
    *,
    annotated: Annotated = "all",
    on_event: OnEvent | None = None,
) -> ExtractResult:
    """Put labels into an existing store; features are not touched, the encoder is not needed.

    Parameters
    ----------
    store : Path or str
        The store.
    inputs : Path, str or sequence of them
        The scans, for their ids and grids.
    labels : Path or str, optional
        As in `extract`.
    annotated : {"all", "present"}
        As in `ExtractOptions`.
    on_event : callable, optional
        Told about progress.

    Raises
    ------
    ScanReadError, StoreError
        Where nothing can be done at all; errors of single cases are in the result.
    """
    places = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found = discover([Path(p) for p in places], None if labels is None else Path(labels))
    if not found.labels:
        raise ScanReadError(f"{places[0]}: no labels found; name them with --labels", path=places[0])
    opened = FeatureStore.open(Path(store))
    known = set(opened.cases())
    result = Tally()
    emit = on_event or (lambda event: None)
    with StoreWriter.open(opened.path, opened.root) as writer:
        labeller = Labeller(writer, found.labels, annotated)
        wanted = [s for s in found.sources if s.case in found.labels]
        for index, source in enumerate(wanted, 1):
            try:
                if source.case not in known:
                    raise ScanReadError(
                        f"{source.path}: case {source.case} is not in {store}; extract it first"
                    )
                grid = opened.case(source.case).info.native
                write_labels(labeller, source, grid, result, emit, position=(index, len(wanted)))
            except FeatcacheError as error:
                result.failed[source.case] = str(error)
                emit(Event("fail", source.case, str(error), index, len(wanted)))
    return result.freeze(opened.path)


class Labeller:
    """Writes label sets that differ from what the store holds."""

    def __init__(self, writer: StoreWriter, labels: Mapping[str, LabelSource], annotated: Annotated) -> None:
        self._writer, self._labels, self._annotated = writer, labels, annotated
        self._store = FeatureStore.open(writer.path)
        self._numbered: dict[str, int] | None = None

    def write(self, source: ScanSource, grid: Grid) -> bool:
        """Write the labels of one case onto its scan's grid; False if there are none or they are there."""
        label = self._labels.get(source.case)
        if label is None:
            return False
        classes = self._classes() if label.classes is None else None
        volume = read_labels(label, grid, scan_path=source.path, annotated=self._annotated, classes=classes)
        if self._stored(source.case, volume):
            return False
        self._writer.write_labels(
            source.case,
            volume.voxels,
            grid,
            volume.codes,
            classes=volume.classes,
            annotated=volume.annotated,
            group=volume.group,
        )
        return True

    def _stored(self, case: str, volume: LabelVolume) -> bool:
        """Return whether the store holds these very labels; damaged ones count as absent."""
        try:
            stored = self._store.case(case).labels()
            return (
                stored is not None
                and (stored.grid, stored.codes, stored.group) == (volume.grid, volume.codes, volume.group)
                and dict(stored.classes) == dict(volume.classes)
                and set(stored.annotated) == set(volume.annotated)
                and np.array_equal(stored.read(), volume.voxels)
            )
        except CorruptStore:
            return False

    def _classes(self) -> dict[str, int]:
        """Return the values of all unnamed label files: a class missing from one is annotated all the same."""
        if self._numbered is None:
            values: set[int] = set()
            for label in self._labels.values():
                if label.classes is None:
                    try:
                        values |= set(label_values([label]))
                    except ScanReadError:
                        continue  # told when this case's turn comes
            self._numbered = numbered_classes(values)
        return self._numbered


def write_labels(
    labeller: Labeller,
    source: ScanSource,
    grid: Grid,
    tally: Tally,
    emit: OnEvent,
    *,
    position: tuple[int, int],
) -> None:
    """Write one case's labels and tell so."""
    if labeller.write(source, grid):
        tally.labelled.append(source.case)
        emit(Event("labels", source.case, "labels written", *position))
    elif source.case not in (*tally.done, *tally.skipped):
        tally.skipped.append(source.case)
