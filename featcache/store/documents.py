"""What the sealed documents say, as dataclasses: one for the root, a case, a level, a label set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featcache.errors import CorruptStore, GeometryError, StoreError
from featcache.geometry import Box, Grid
from featcache.quantise import PRECISIONS, Precision
from featcache.store.layout import FORMAT_VERSION
from featcache.store.manifest import Manifest
from featcache.stored_error import StoredError

Codes = tuple[int, int]
"""The sform and qform codes of a NIfTI header."""


@dataclass(frozen=True)
class RootDocument:
    """Which encoder and which recipe made a store.

    Parameters
    ----------
    encoder_id, recipe_id : str
        The two fingerprints.
    card, recipe : dict
        What they were taken of, for people and for messages; JSON, not looked into.
    software : str
        Name and version of the writer.
    head : dict, optional
        The encoder's own linear head.
    calibration : dict, optional
        What stored integers stand for, JSON (`featcache.calibrate.StoreCalibration`).
    format_version : int
        1, or 2 where features are stored as something else than plain floats.
    """

    encoder_id: str
    recipe_id: str
    card: dict[str, Any]
    recipe: dict[str, Any]
    software: str
    head: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    format_version: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the document of the root group, not yet sealed."""
        fields = {k: v for k, v in vars(self).items() if k != "calibration" or self.format_version > 1}
        return _group("store", **fields)

    @classmethod
    def parse(cls, slot: Mapping[str, Any], path: Path) -> RootDocument:
        """Return what an unsealed root document says."""
        with _parsing(slot, "store", path):
            names = [name for name in cls.__dataclass_fields__ if name != "calibration"]
            return cls(**{name: slot[name] for name in names}, calibration=slot.get("calibration"))


@dataclass(frozen=True)
class CaseInfo:
    """What is known of a case besides its features.

    Parameters
    ----------
    native : Grid
        The scan's own grid.
    codes : (int, int)
        Its sform and qform codes.
    prepared : Grid
        The grid that the encoder saw.
    unit : str
        Of the scan's voxels, ``"HU"`` or ``"a.u."``.
    foreground : three pairs of int
        First voxel and one past the last that was prepared, along each axis of the native grid.
    steps : list
        The preparation steps that were applied, JSON.
    """

    native: Grid
    codes: Codes
    prepared: Grid
    unit: str
    foreground: Box
    steps: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class LevelInfo:
    """A level of features, and what storing them with `precision` did (see docs/store-format.md)."""

    grid: Grid
    channels: int
    precision: Precision
    stored_error: StoredError

    def to_json(self) -> dict[str, Any]:
        """Return the level's entry in the case's document."""
        level = {"grid": self.grid.to_json(), "channels": self.channels, "dtype": self.precision.dtype}
        name = {} if self.precision.plain else {"precision": self.precision.name}
        return {**level, **name, "stored_error": self.stored_error.to_json()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> LevelInfo:
        """Return the level described by `to_json`."""
        grid, error = Grid.from_json(entry["grid"]), StoredError.from_json(entry["stored_error"])
        precision = PRECISIONS[entry.get("precision", entry["dtype"])]
        return cls(grid, int(entry["channels"]), precision, error)


@dataclass(frozen=True)
class CaseDocument:
    """A case's commit: its description, levels, manifest and seal."""

    info: CaseInfo
    levels: dict[str, LevelInfo]
    manifest: Manifest
    seal: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the document of the case's group, not yet sealed."""
        return _group(
            "case",
            format_version=max((level.precision.format_version for level in self.levels.values()), default=1),
            native=_native(self.info.native, self.info.codes),
            prepared=self.info.prepared.to_json(),
            unit=self.info.unit,
            foreground=[list(pair) for pair in self.info.foreground],
            steps=list(self.info.steps),
            levels={name: level.to_json() for name, level in self.levels.items()},
            manifest=self.manifest,
        )

    @classmethod
    def parse(cls, slot: Mapping[str, Any], path: Path) -> CaseDocument:
        """Return what an unsealed case document says."""
        with _parsing(slot, "case", path):
            native, codes = _parse_native(slot["native"])
            prepared = Grid.from_json(slot["prepared"])
            foreground = _parse_box(slot["foreground"], native)
            info = CaseInfo(native, codes, prepared, str(slot["unit"]), foreground, list(slot["steps"]))
            levels = {name: LevelInfo.from_json(entry) for name, entry in slot["levels"].items()}
            return cls(info, levels, _parse_manifest(slot["manifest"]), slot["sha256"])


@dataclass(frozen=True)
class LabelDocument:
    """A label set's commit.

    Parameters
    ----------
    grid : Grid
        The scan's own grid.
    codes : (int, int)
        Its sform and qform codes.
    classes : dict
        Class name to integer value.
    annotated : tuple of str
        The classes that were annotated in this case; the others are unknown.
    group : str or None
        What must not be split between training and test, such as a patient.
    manifest : dict
        The objects.
    seal : str
        Empty until sealed.
    """

    grid: Grid
    codes: Codes
    classes: dict[str, int]
    annotated: tuple[str, ...]
    group: str | None
    manifest: Manifest = field(default_factory=dict)
    seal: str = ""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.annotated) - set(self.classes))
        if unknown:
            raise StoreError(f"annotated classes {unknown} are not among the classes {sorted(self.classes)}")

    def to_json(self) -> dict[str, Any]:
        """Return our attributes of the label set's group, not yet sealed."""
        document = _group(
            "labels",
            grid=_native(self.grid, self.codes),
            classes={name: int(value) for name, value in self.classes.items()},
            annotated=list(self.annotated),
            group=self.group,
            manifest=self.manifest,
        )
        attributes: dict[str, Any] = document["attributes"]["featcache"]
        return attributes

    @classmethod
    def parse(cls, slot: Mapping[str, Any], path: Path) -> LabelDocument:
        """Return what an unsealed label document says."""
        with _parsing(slot, "labels", path):
            grid, codes = _parse_native(slot["grid"])
            manifest = _parse_manifest(slot["manifest"])
            annotated = tuple(slot["annotated"])
            return cls(grid, codes, dict(slot["classes"]), annotated, slot["group"], manifest, slot["sha256"])


def _parse_box(pairs: Any, native: Grid) -> Box:
    x, y, z = ((int(start), int(stop)) for start, stop in pairs)
    for (start, stop), size in zip((x, y, z), native.shape, strict=True):
        if not 0 <= start < stop <= size:
            raise ValueError(f"foreground {pairs} in a scan of {native.shape} voxels")
    return x, y, z


@contextmanager
def _parsing(slot: Mapping[str, Any], kind: str, path: Path) -> Iterator[None]:
    """Check version and kind, and turn what goes wrong within into errors that name the file."""
    version = slot.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in store format {version}, this featcache reads up to {FORMAT_VERSION}; "
            "install a newer featcache",
            path=path,
        )
    if version not in range(1, FORMAT_VERSION + 1) or slot.get("kind") != kind:
        raise CorruptStore(
            f"{path}: expected kind {kind!r} in format 1 to {FORMAT_VERSION}, found kind "
            f"{slot.get('kind')!r} in format {version!r}; run `featcache verify`",
            path=path,
        )
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, GeometryError) as error:
        raise CorruptStore(
            f"{path}: the seal is whole but the document is not as docs/store-format.md has it: "
            f"{error!r}; it was written by other software",
            path=path,
        ) from error


def _group(kind: str, **fields: Any) -> dict[str, Any]:
    slot = {"format_version": 1, "kind": kind, **fields}
    return {"attributes": {"featcache": slot}, "node_type": "group", "zarr_format": 3}


def _native(grid: Grid, codes: Codes) -> dict[str, Any]:
    return {**grid.to_json(), "sform_code": int(codes[0]), "qform_code": int(codes[1])}


def _parse_native(entry: Mapping[str, Any]) -> tuple[Grid, Codes]:
    return Grid.from_json(dict(entry)), (int(entry["sform_code"]), int(entry["qform_code"]))


def _parse_manifest(entry: Mapping[str, Any]) -> Manifest:
    return {key: (int(size), str(digest)) for key, (size, digest) in entry.items()}
