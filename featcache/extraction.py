"""Scans -> feature store: read | prepare | encode | stitch | write, one case after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from featcache import __version__
from featcache.calibrate import RECIPE, calibrate
from featcache.card import EncoderCard
from featcache.card_json import canonical_digest
from featcache.encode import count_windows, encode, level_grid
from featcache.errors import CorruptStore, EncoderError, FeatcacheError, GeometryError, ScanReadError
from featcache.events import Event, ExtractResult, OnEvent, Tally
from featcache.geometry import FloatTriple, Grid
from featcache.head import HeadSampler, LinearHead
from featcache.job import Complete, Job, load, needs_head, source_files
from featcache.labelling import Labeller, write_labels
from featcache.prepare import PreparedVolume
from featcache.quantise import Features, Precision, StorePrecision, get_precision
from featcache.room import check_room
from featcache.runtime import ComputePrecision, Device, Runtime, WindowEncoder, open_encoder
from featcache.runtime.difference import Difference
from featcache.scans import Annotated, ScanSource, read_header
from featcache.spool import Spool
from featcache.storable import storable
from featcache.store import CaseInfo, FeatureStore, PrivateRecord, RootDocument, SourceState, StoreWriter
from featcache.store.create import existing_root

DEFAULT_STORE = "features.zarr"


@dataclass(frozen=True)
class ExtractOptions:
    """How scans are read and features are made.

    Parameters
    ----------
    runtime : {"onnxruntime", "openvino"}
        What computes the encoder.
    compute_precision : {"float32", "bfloat16"}
        What it computes in; part of the recipe.
    device : {"auto", "cpu", "cuda"}
        Where the encoder runs.
    threads : int, optional
        CPU threads of the encoder.
    spacing : tuple of 3 float, optional
        Takes the place of the card's spacing, mm; part of the recipe.
    store_precision : str
        How features are stored, one of `featcache.quantise.PRECISIONS`; part of the recipe.
    nan_to : float, optional
        Value for NaN voxels, an error without; part of the recipe.
    assume_hu : bool
        Do not refuse CTs whose values evidently are no Hounsfield units.
    annotated : {"all", "present"}
        Which classes count as annotated in a case where a table does not say.
    """

    runtime: Runtime = "onnxruntime"
    compute_precision: ComputePrecision = "float32"
    device: Device = "auto"
    threads: int | None = None
    spacing: FloatTriple | None = None
    store_precision: StorePrecision = "float16"
    nan_to: float | None = None
    assume_hu: bool = False
    annotated: Annotated = "all"

    @property
    def precision(self) -> Precision:
        """How features are stored; StoreError if there is no such way."""
        return get_precision(self.store_precision)

    def recipe(self, card: EncoderCard) -> dict[str, Any]:
        """Return what makes features of one scan and encoder differ, as JSON."""
        document = card.to_json()
        calibration = {"calibration": RECIPE} if self.precision.calibrated else {}
        return {
            "window": document["input"]["window"],
            "blending": document["blending"],
            "spacing": list(self.spacing or card.preparation.spacing or ()) or None,
            "compute_precision": self.compute_precision,
            "store_precision": self.store_precision,
            "nan_to": self.nan_to,
            **calibration,
        }

    def encoder(self, model: Path, card: EncoderCard) -> WindowEncoder:
        """Return the encoder as these options compute it; EncoderError if it cannot be loaded so."""
        return open_encoder(
            model,
            card,
            runtime=self.runtime,
            device=self.device,
            threads=self.threads,
            precision=self.compute_precision,
        )

    def following(self, recipe: Mapping[str, Any]) -> ExtractOptions:
        """Return the options with all that features of `recipe` were made by; OpenVINO where that takes it.

        Integers mean something in their own store only: float16 comes nearest.
        """
        spacing, store_precision = recipe["spacing"], recipe["store_precision"]
        return replace(
            self,
            runtime=self.runtime if recipe["compute_precision"] == "float32" else "openvino",
            compute_precision=recipe["compute_precision"],
            spacing=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
            store_precision="float16" if get_precision(store_precision).calibrated else store_precision,
            nan_to=recipe["nan_to"],
        )

    def root(self, identity: str, card: EncoderCard, head: LinearHead | None = None) -> RootDocument:
        """Return what a store of such features begins with; `identity` is the encoder's fingerprint."""
        recipe = self.recipe(card)
        return RootDocument(
            encoder_id=identity,
            recipe_id=canonical_digest(recipe),
            card=card.to_json(),
            recipe=recipe,
            software=f"featcache {__version__}",
            head=None if head is None else head.to_json(),
            format_version=self.precision.format_version,
        )


def extract(
    model: Path | str,
    inputs: Path | str | Sequence[Path | str],
    out: Path | str = DEFAULT_STORE,
    *,
    labels: Path | str | None = None,
    options: ExtractOptions | None = None,
    on_event: OnEvent | None = None,
) -> ExtractResult:
    """Encode every scan once and keep its dense features in the store `out`.

    Complete cases whose source is unchanged are skipped; a bad scan fails alone.

    Parameters
    ----------
    model : Path or str
        ONNX file with an encoder card, or the name of a built-in encoder (`featcache.encoders.BUILTIN`).
    inputs : Path, str or sequence of them
        What `featcache.scans.discover` takes.
    out : Path or str
        The store, made if it does not exist.
    labels : Path or str, optional
        Labels to be used in place of those found by themselves.
    options : ExtractOptions, optional
    on_event : callable, optional
        Told about progress.

    Raises
    ------
    CardError, EncoderError, ScanReadError, StoreError
        Where nothing can be done at all, such as on a disk without room (`featcache.room`), or that fills up;
        errors of single cases are in the result.
    """
    options = options or ExtractOptions()
    job = Job.of(model, inputs, options, labels)
    fresh = existing_root(Path(out).resolve(), job.root) is None
    if fresh:
        check_room(Path(out), job.found.sources, job.card, options)  # before a store is made
    with StoreWriter.open(Path(out), job.root) as writer:
        run = _Run(job, options, writer, on_event or (lambda event: None))
        if not fresh:
            run.check_room()
        return run.all()


class _Run:
    """One run of `extract` over a store that is open for writing."""

    def __init__(self, job: Job, options: ExtractOptions, writer: StoreWriter, emit: OnEvent) -> None:
        self._job, self._options, self._writer, self._emit = job, options, writer, emit
        self._labeller = Labeller(writer, job.found.labels, options.annotated)
        self._record = PrivateRecord.load(writer.path)
        self._store = FeatureStore.open(writer.path)
        self._known = Complete(self._store, self._record)
        self._tally = Tally()
        self._features = ScanEncoder(
            job.model, job.card, options, writer=writer, emit=emit, recover_head=True
        )

    def check_room(self) -> None:
        left = self._known.left(self._job.found.sources)
        check_room(self._writer.path, left, self._job.card, self._options, self._store)

    def all(self) -> ExtractResult:
        for note in self._job.found.notes:
            self._emit(Event("note", text=note))
        sources = self._sources()
        if not self._record.path.exists() and (known := self._store.cases()):
            self._emit(
                Event(
                    "note",
                    text=f"{self._record.path.name} is not beside the store, so nobody can tell whether the sources of "
                    f"its {len(known)} cases changed: those found here are extracted again",
                )
            )
        for index, source in enumerate(sources, 1):
            position = (index, len(sources))
            try:
                self._one(source, position)
            except (ScanReadError, GeometryError, CorruptStore) as error:
                self._fail(source, error, position)
            except EncoderError as error:
                # A fault of the encoder itself will meet every case; one of this scan's values or size, or
                # one that shows after the encoder has done its work on another scan, will not.
                if error.case is None and not (self._tally.done or self._tally.skipped):
                    raise
                self._fail(source, error, position)
        return self._tally.freeze(self._writer.path)

    def _sources(self) -> Sequence[ScanSource]:
        """Return the scans in the order of the input; by id where the first one will calibrate the store."""
        sources = self._job.found.sources
        uncalibrated = self._features.precision.calibrated and self._writer.root.calibration is None
        return sorted(sources, key=lambda source: source.case) if uncalibrated else sources

    def _fail(self, source: ScanSource, error: FeatcacheError, position: tuple[int, int]) -> None:
        self._tally.failed[source.case] = str(error)
        self._emit(Event("fail", source.case, str(error), *position))

    def _one(self, source: ScanSource, position: tuple[int, int]) -> None:
        if self._complete(source):
            self._tally.skipped.append(source.case)
            self._emit(Event("skip", source.case, "complete", *position))
            grid = read_header(source)
        else:
            self._emit(Event("start", source.case, str(source.path), *position))
            state = SourceState.of(source_files(source))
            grid, seal = self._features.write(source, position)
            self._record.add(source.case, state, seal)
            self._tally.done.append(source.case)
            self._emit(Event("done", source.case, "", *position))
        write_labels(self._labeller, source, grid, self._tally, self._emit, position=position)

    def _complete(self, source: ScanSource) -> bool:
        return not needs_head(self._job.card, self._writer.root) and self._known.has(source)


class ScanEncoder:
    """Puts the features of one scan after the other into a store.

    Parameters
    ----------
    model : Path
        The ONNX file.
    card : EncoderCard
    options : ExtractOptions
    writer : StoreWriter
    emit : callable
        Told about progress.
    recover_head : bool
        Fit the encoder's own head, where the card tells of one and the store has none yet.
    """

    def __init__(
        self,
        model: Path,
        card: EncoderCard,
        options: ExtractOptions,
        *,
        writer: StoreWriter,
        emit: OnEvent,
        recover_head: bool,
    ) -> None:
        self._model, self._card, self._options = model, card, options
        self._writer, self._emit, self._recover_head = writer, emit, recover_head
        self._measured = False
        self.precision = options.precision

    @cached_property
    def encoder(self) -> WindowEncoder:
        """The encoder; made when it is first asked for, which may take seconds."""
        options = self._options
        encoder = options.encoder(self._model, self._card)
        how = (
            "" if options.runtime == "onnxruntime" else f", {options.runtime} in {options.compute_precision}"
        )
        self._emit(Event("note", text=f"encoding on {encoder.device}{how}"))
        return encoder

    def write(self, source: ScanSource, position: tuple[int, int]) -> tuple[Grid, str]:
        """Read, prepare and encode a scan into the store.

        Returns
        -------
        Grid
            The scan's own.
        str
            Seal of the case.

        Raises
        ------
        ScanReadError, GeometryError, EncoderError, StoreError
        """
        scan = load(
            source, self._card, self._options, lambda note: self._emit(Event("note", source.case, note))
        )
        volume = scan.volume
        encoder = self.encoder
        count = count_windows(volume.grid.shape, self._card)
        self._emit(Event("windows", source.case, "", *position, count))
        unfitted = self._recover_head and needs_head(self._card, self._writer.root)
        sampler = HeadSampler(self._card, count) if unfitted else None
        steps = [*volume.steps, *self._what_precision_costs(volume)]
        info = CaseInfo(scan.native, scan.codes, volume.grid, self._card.unit, volume.foreground, steps)
        done = Event("window", source.case, "", *position, count)
        slabs = encode(volume, encoder, sampler=sampler, on_window=lambda: self._emit(done))
        levels = {
            o.name: (level_grid(volume.grid, self._card, o.name), o.channels) for o in self._card.outputs
        }
        with (
            self._writer.new_case(source.case, info) as case,
            self._studied(source.case, slabs, sampler) as ready,
        ):
            case.write(levels, ready, self.precision, self._writer.root)
            if sampler is not None:
                self._keep_head(sampler)
            return scan.native, case.commit()

    @contextmanager
    def _studied(
        self, case: str, slabs: Iterator[tuple[str, Features]], sampler: HeadSampler | None
    ) -> Iterator[Iterable[tuple[str, Features]]]:
        """Yield the slabs once all is known that storing them needs.

        Integers need a calibration, and comparing decisions needs the encoder's head. Both come from the
        whole of the first scan, whose features wait in files meanwhile.
        """
        calibrates = self.precision.calibrated and self._writer.root.calibration is None
        if not calibrates and (sampler is None or self.precision.plain):
            yield slabs
            return
        with self._writer.scratch() as folder:
            spool = Spool(folder, storable(case, slabs, self.precision))
            if sampler is not None:
                self._keep_head(sampler)
            if calibrates:
                found = calibrate(case, spool, self.precision.bits)
                self._writer.set_calibration(found.to_json())
                self._emit(Event("note", text=f"stored integers were calibrated on case {case}"))
            yield spool

    def _keep_head(self, sampler: HeadSampler) -> None:
        """Put the encoder's head into the store, once."""
        if self._writer.root.head is None:
            head = sampler.fit()
            self._writer.set_head(head.to_json())
            self._emit(Event("note", text=f"the encoder's own head was recovered (R² {head.r2:.6f})"))

    def _what_precision_costs(self, volume: PreparedVolume) -> list[str]:
        """Return a sentence for the case's record, with the difference to float32 on the first case of a run."""
        precision = self._options.compute_precision
        if precision == "float32":
            return []
        text = f"encoded in {precision}"
        if not self._measured:
            self._measured = True
            reference = replace(self._options, compute_precision="float32").encoder(self._model, self._card)
            text += f"; against float32 {Difference.of(volume, self.encoder, reference)}"
            self._emit(Event("note", text=text))
        return [text]
