"""Feature store -> a smaller one of another precision, case by case; neither scans nor the encoder are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from featcache import __version__
from featcache.calibrate import RECIPE, calibrate
from featcache.card_json import canonical_digest
from featcache.errors import CorruptStore, EncoderError, FeatcacheError, StoreError
from featcache.events import Event, ExtractResult, OnEvent, Tally
from featcache.quantise import PRECISIONS, Features, Precision, StorePrecision, get_precision
from featcache.store import Case, FeatureStore, PrivateRecord, RootDocument, SourceState, StoreWriter
from featcache.store.layout import DOCUMENT


def requantise(
    store: Path | str,
    out: Path | str,
    store_precision: StorePrecision,
    *,
    on_event: OnEvent | None = None,
) -> ExtractResult:
    """Store the features and labels of a float16 or float32 store in fewer bits.

    What is stored is what an extraction at that precision stores, up to the rounding of the source. Complete
    cases whose source is unchanged are skipped; a damaged case fails alone. Memory holds one row of chunks.

    Parameters
    ----------
    store : Path or str
        The source; it is only read.
    out : Path or str
        The store to make or to go on with.
    store_precision : str
        One of `featcache.quantise.PRECISIONS`, coarser than the source's.
    on_event : callable, optional
        Told about progress.

    Raises
    ------
    StoreError
        If the source is no plain float store, is not finer than asked for, or `out` is another store.
    """
    source, precision = FeatureStore.open(Path(store)), get_precision(store_precision)
    root = _root(source, precision)
    with StoreWriter.open(Path(out), root) as writer:
        return _Job(source, writer, precision, on_event or (lambda event: None)).run()


def _root(source: FeatureStore, precision: Precision) -> RootDocument:
    """Return what the new store begins with.

    Raises
    ------
    StoreError
        If the source cannot be brought to the precision.
    """
    held = get_precision(str(source.root.recipe.get("store_precision")))
    order = list(PRECISIONS)
    if not held.plain or order.index(precision.name) <= order.index(held.name):
        coarser = [name for name in order if order.index(name) > order.index(held.name)]
        advice = (
            f"choose one of {', '.join(coarser)}"
            if held.plain
            else "what was rounded away does not come back, and rounding twice adds up: begin with the float16 store "
            "that it came from, or extract again"
        )
        raise StoreError(
            f"{source.path} is stored as {held.name}, asked for {precision.name}; expected float16 or float32 and "
            f"something coarser: {advice}",
            path=source.path,
        )
    recipe = {
        **source.root.recipe,
        "store_precision": precision.name,
        "requantised_from": {"recipe_id": source.root.recipe_id, "store_precision": held.name},
        **({"calibration": RECIPE} if precision.calibrated else {}),
    }
    return replace(
        source.root,
        recipe=recipe,
        recipe_id=canonical_digest(recipe),
        software=f"featcache {__version__}",
        format_version=precision.format_version,
    )


class _Slabs:
    """A stored case's features, slab by slab, as often as they are asked for."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __iter__(self) -> Iterator[tuple[str, Features]]:
        for name in self._case.levels:
            level = self._case.level(name)
            x, y, depth = level.grid.shape
            for z in range(0, depth, level.chunk):
                yield name, level.read((0, 0, z), (x, y, min(level.chunk, depth - z)))


class _Job:
    """One run of `requantise` over a store that is open for writing."""

    def __init__(
        self, source: FeatureStore, writer: StoreWriter, precision: Precision, emit: OnEvent
    ) -> None:
        self._source, self._writer, self._precision, self._emit = source, writer, precision, emit
        self._made = FeatureStore.open(writer.path)
        self._record = PrivateRecord.load(writer.path)
        self._tally = Tally()

    def run(self) -> ExtractResult:
        cases = self._source.cases()
        for index, case in enumerate(cases, 1):
            position = (index, len(cases))
            try:
                self._one(self._source.case(case), position)
            except (CorruptStore, EncoderError) as error:
                self._fail(case, error, position)
        return self._tally.freeze(self._writer.path)

    def _fail(self, case: str, error: FeatcacheError, position: tuple[int, int]) -> None:
        self._tally.failed[case] = str(error)
        self._emit(Event("fail", case, str(error), *position))

    def _one(self, case: Case, position: tuple[int, int]) -> None:
        commit = case.folder / DOCUMENT  # its bytes stand for all bytes of the case
        if self._record.complete(self._made, case.id, commit):
            self._tally.skipped.append(case.id)
            self._emit(Event("skip", case.id, "complete", *position))
        else:
            self._emit(Event("start", case.id, str(case.folder), *position))
            state = SourceState.of(commit)
            self._record.add(case.id, state, self._write(case))
            self._tally.done.append(case.id)
            self._emit(Event("done", case.id, "", *position))
        if self._copy_labels(case):
            self._tally.labelled.append(case.id)
            self._emit(Event("labels", case.id, "labels written", *position))

    def _write(self, case: Case) -> str:
        """Write a case's features; return its seal."""
        slabs = _Slabs(case)
        if self._precision.calibrated and self._writer.root.calibration is None:
            found = calibrate(case.id, slabs, self._precision.bits)
            self._writer.set_calibration(found.to_json())
            self._emit(Event("note", text=f"stored integers were calibrated on case {case.id}"))
        levels = {name: (level.grid, level.channels) for name, level in case.levels.items()}
        with self._writer.new_case(case.id, case.info) as new:
            new.write(levels, slabs, self._precision, self._writer.root)
            return new.commit()

    def _copy_labels(self, case: Case) -> bool:
        """Copy the label sets that the new store does not have as they are; return whether there was one."""
        made = self._made.case(case.id)
        written = False
        for name in case.label_names():
            labels = case.labels(name)
            assert labels is not None
            if self._has(made, name, labels.document.seal):
                continue
            self._writer.write_labels(
                case.id,
                labels.read(),
                labels.grid,
                labels.codes,
                classes=labels.classes,
                annotated=labels.annotated,
                group=labels.group,
                name=name,
            )
            written = True
        return written

    @staticmethod
    def _has(case: Case, name: str, seal: str) -> bool:
        """Return whether a case has these very labels: the same labels make the same bytes."""
        try:
            labels = case.labels(name)
        except CorruptStore:
            return False
        return labels is not None and labels.document.seal == seal
