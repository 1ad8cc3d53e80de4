"""Case ids, and what a path's name says about it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from featcache.errors import ScanReadError

IMAGE_FOLDERS = ("imagesTr", "images", "imagesTs")
LABEL_FOLDERS = ("labelsTr", "labels")
_NEVER_SCANS = {"labelstr", "labels", "labelsts"}
_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_CHANNEL = re.compile(r"_(\d{4})$")
_LABEL_SUFFIX = re.compile(r"_(labels?|seg)$", re.IGNORECASE)


_LONGEST = 200  # bytes of a case id: it names folders and masks


def is_nifti(path: PurePath) -> bool:
    """Return whether the name ends in .nii or .nii.gz."""
    return _NIFTI.search(path.name) is not None


def is_hidden(path: PurePath) -> bool:
    """Return whether the name starts with a dot, as macOS's ``._scan.nii.gz`` does."""
    return path.name.startswith(".")


def is_closed(folder: PurePath) -> bool:
    """Return whether no scan is searched in a folder: hidden, labels, or a feature store."""
    return is_hidden(folder) or folder.name.lower() in _NEVER_SCANS or folder.suffix.lower() == ".zarr"


def stem(path: PurePath) -> str:
    """Return the name without .nii or .nii.gz."""
    return _NIFTI.sub("", path.name)


def case_id(relative: PurePath) -> str:
    """Return the case id of a path relative to the place that was searched.

    ``site a/ct_0000.nii.gz`` -> ``site_a__ct``. A leading images, imagesTr or imagesTs does not count, so
    that a scan has one id whether it is found through its folder, a dataset.json or a table.

    Raises
    ------
    ScanReadError
        If nothing is left to name the case by.
    """
    parts = relative.parts
    if len(parts) > 1 and parts[0] in IMAGE_FOLDERS:
        parts = parts[1:]
    text = _CHANNEL.sub(lambda m: "" if m[1] == "0000" else m[0], _NIFTI.sub("", "/".join(parts)))
    return clean_id(text)


def listed_id(file: Path) -> str:
    """Return the case id of a path as a table or dataset.json lists it, relative to that."""
    return case_id(Path(file.name) if file.is_absolute() or ".." in file.parts else file)


def clean_id(text: str) -> str:
    """Return `text` as a case id: separators become ``__``, all else outside ``[\\w.-]`` becomes ``_``."""
    # macOS hands out decomposed letters; the same name must match on every system.
    text = unicodedata.normalize("NFC", text.strip()).replace("\\", "/").replace("/", "__")
    cleaned = re.sub(r"[^\w.-]", "_", text).lstrip(".")
    if len(cleaned.encode()) > _LONGEST:
        raise ScanReadError(
            f"{text!r} makes a case id of {len(cleaned.encode())} bytes; expected at most {_LONGEST}: name the scan in "
            "the column case of a CSV, or give a deeper folder to --in"
        )
    if not cleaned:
        raise ScanReadError(f"{text!r} leaves no case id; expected a name with a letter or digit in it")
    return cleaned


def labelled_stem(path: PurePath) -> str | None:
    """Return the scan's stem if the name is that of a label beside it (``ct_labels``, ``ct_seg``)."""
    shorter = _LABEL_SUFFIX.sub("", stem(path))
    return shorter if shorter != stem(path) else None


def refuse_channels(paths: Iterable[Path]) -> None:
    """Raise ScanReadError if an nnU-Net case has several channels (``_0000`` and ``_0001``)."""
    known = {path.parent / stem(path) for path in paths}
    for path in sorted(known):
        if path.name.endswith("_0000") and path.with_name(path.name[:-4] + "0001") in known:
            raise ScanReadError(
                f"{path}.nii.gz: the case has further channels (_0001); expected one, as encoders take a "
                "single channel: give a folder or a table with the channel to use",
                path=path.with_name(path.name + ".nii.gz"),
            )


def unique_ids(files: Iterable[tuple[str, Path]]) -> Mapping[str, Path]:
    """Return files by id.

    Raises
    ------
    ScanReadError
        If two files have one id, also without regard to case (file systems differ in that).
    """
    found: dict[str, tuple[str, Path]] = {}
    for name, path in files:
        other = found.setdefault(name.casefold(), (name, path))
        if other[1] is not path:
            raise ScanReadError(
                f"{other[1]} and {path} both give the case id {name!r}; expected one file a case: "
                "rename one, or list them in a CSV with a column 'case'",
                path=path,
                case=name,
            )
    return dict(found.values())
