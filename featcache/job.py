"""What a run over scans begins with, whether it encodes them or only plans to: model, card, scans, recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from featcache.card import EncoderCard
from featcache.encoders import model_path
from featcache.errors import ScanReadError
from featcache.geometry import Grid
from featcache.head import given_head
from featcache.onnxfile import encoder_id, read_card
from featcache.prepare import PreparedVolume, check_hounsfield, prepare
from featcache.scans import Discovery, ScanSource, discover, read_scan
from featcache.store import FeatureStore, PrivateRecord, RootDocument
from featcache.store.create import existing_root
from featcache.store.documents import Codes

if TYPE_CHECKING:
    from featcache.extraction import ExtractOptions


@dataclass(frozen=True)
class Job:
    """A model, the scans that it is to encode, and what a store of their features begins with."""

    model: Path
    card: EncoderCard
    found: Discovery
    root: RootDocument

    @classmethod
    def of(
        cls,
        model: Path | str,
        inputs: Path | str | Sequence[Path | str],
        options: ExtractOptions,
        labels: Path | str | None = None,
    ) -> Self:
        """Return the job that the arguments of `featcache.extract` name.

        Raises
        ------
        CardError, ScanReadError
            If the model has no card, or there are no scans.
        """
        path = model_path(model)
        card = read_card(path)
        places = [inputs] if isinstance(inputs, str | Path) else list(inputs)
        found = discover([Path(p) for p in places], None if labels is None else Path(labels))
        root = options.root(encoder_id(path, card), card, given_head(card))
        return cls(path, card, found, root)

    def left(self, out: Path) -> list[ScanSource]:
        """Return the scans that a run into the store `out`, made or not, would encode.

        Raises
        ------
        StaleFeatures, StoreError
            If the store is another encoder's or recipe's, or something else is there.
        """
        root = existing_root(out.resolve(), self.root)
        if root is None:
            return list(self.found.sources)
        left = Complete(FeatureStore(out, root), PrivateRecord.load(out)).left(self.found.sources)
        return left or list(self.found.sources[:1]) if needs_head(self.card, root) else left


@dataclass(frozen=True)
class Loaded:
    """A scan as the encoder sees it, and what is kept of the scan itself."""

    volume: PreparedVolume
    native: Grid
    codes: Codes


def load(
    source: ScanSource,
    card: EncoderCard,
    options: ExtractOptions,
    on_note: Callable[[str], None] | None = None,
) -> Loaded:
    """Return a scan, read, checked and prepared.

    Parameters
    ----------
    source : ScanSource
    card : EncoderCard
    options : ExtractOptions
    on_note : callable, optional
        Told what a reader should know about the scan.

    Raises
    ------
    ScanReadError, GeometryError
        If it cannot be read, has no foreground, or evidently is not in the encoder's unit.
    """
    scan = read_scan(source, unit=card.unit, nan_to=options.nan_to)
    if on_note is not None:
        for note in scan.notes:
            on_note(note)
    if card.unit == "HU" and not options.assume_hu:
        check_hounsfield(scan)
    volume = prepare(scan, card.preparation, options.spacing)
    return Loaded(volume, scan.grid, (scan.sform_code, scan.qform_code))


class Complete:
    """Tells which scans have their features in a store and are unchanged since; each is looked at once."""

    def __init__(self, store: FeatureStore, record: PrivateRecord) -> None:
        self._store, self._record = store, record
        self._known: dict[str, bool] = {}

    def has(self, source: ScanSource) -> bool:
        """Tell whether nothing is left to do for a scan.

        Raises
        ------
        ScanReadError
            If its files cannot be read.
        """
        if source.case not in self._known:
            files = source_files(source)
            self._known[source.case] = self._record.complete(self._store, source.case, files)
        return self._known[source.case]

    def left(self, sources: Sequence[ScanSource]) -> list[ScanSource]:
        """Return the scans that are still to be encoded; those whose files cannot be read will fail anyhow."""
        return [source for source in sources if not self._skipped(source)]

    def _skipped(self, source: ScanSource) -> bool:
        try:
            return self.has(source)
        except ScanReadError:
            return True


def source_files(source: ScanSource) -> Path | tuple[Path, ...]:
    """Return a scan's one file, or its files."""
    return source.files[0] if len(source.files) == 1 else source.files


def needs_head(card: EncoderCard, root: RootDocument) -> bool:
    """Tell whether the encoder's own head has still to be recovered, from whichever scan is encoded next."""
    return card.head is not None and root.head is None
