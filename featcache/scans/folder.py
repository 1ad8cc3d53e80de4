"""A folder -> its scans and their labels: plain, nested, images/labels side by side, DICOM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from featcache.errors import ScanReadError
from featcache.scans.classes import class_places, find_classes
from featcache.scans.dicom import is_dicom
from featcache.scans.names import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    case_id,
    is_closed,
    is_hidden,
    is_nifti,
    labelled_stem,
    refuse_channels,
    stem,
    unique_ids,
)
from featcache.scans.types import Discovery, LabelSource, ScanSource

_SIDE_FILES = {"labels.json", "dataset.json"}


def from_folder(folder: Path) -> Discovery:
    """Return the scans in a folder and the labels beside or inside it.

    A folder with imagesTr or images in it stands for those (and imagesTs); any other is searched all the
    way down. The first of labelsTr and labels, inside then beside, that has a label for a case is used.
    """
    roots = _image_folders(folder)
    sources: list[ScanSource] = []
    labels: dict[str, LabelSource] = {}
    ignored: list[Path] = []
    notes: list[str] = []
    for root in roots:
        found = _search(root)
        if root.name in ("imagesTr", "imagesTs"):
            refuse_channels(source.path for source in found.sources)
        sources += found.sources
        labels |= found.labels
        ignored += found.ignored
        notes += found.notes
    labels |= labels_beside(sources, folder)
    if roots != [folder]:
        rest = [path for path in _entries(folder) if not is_hidden(path) and path not in roots]
        ignored += [p for p in rest if p.name not in LABEL_FOLDERS and p.name not in _SIDE_FILES]
        notes += [
            f"{path} was not read; give it as --in to use its columns"
            for path in rest
            if path.suffix.lower() == ".csv"
        ]
    return Discovery(tuple(sources), labels, tuple(notes), tuple(ignored))


def labels_beside(sources: Iterable[ScanSource], folder: Path) -> dict[str, LabelSource]:
    """Return labels by case from the folders named for them inside `folder`, then beside it."""
    sources = list(sources)
    # Path(".").parent is "." again.
    parent = folder.parent if folder.name not in ("", "..") else folder.resolve().parent
    for place in (folder, parent):
        for name in LABEL_FOLDERS:
            if (place / name).is_dir():
                found = labels_in(place / name)
                hits = {source.case: found[source.case] for source in sources if source.case in found}
                if hits:
                    return hits
    return {}


def labels_in(folder: Path) -> dict[str, LabelSource]:
    """Return every label file in a folder by case id, with the class names that stand there.

    Raises
    ------
    ScanReadError
        If two files give one id.
    """
    files = [path for _, members in _walk(folder) for path in members if is_nifti(path)]
    unique = unique_ids((case_id(path.relative_to(folder)), path) for path in files)
    return {case: label_source(path) for case, path in unique.items()}


def label_source(path: Path, *beside: Path) -> LabelSource:
    """Return a label file with its class names, looked for as `class_places` says."""
    return LabelSource(path, find_classes(class_places(path, *beside)))


def dicom_source(folder: Path, case: str) -> ScanSource | None:
    """Return the DICOM series directly in a folder, None if there are no DICOM files."""
    files = tuple(p for p in _entries(folder) if p.is_file() and not is_hidden(p) and is_dicom(p))
    return ScanSource(case, files, "dicom") if files else None


def contents(folder: Path) -> str:
    """Return the first few names in a folder, for messages."""
    names = [path.name + "/" * path.is_dir() for path in _entries(folder)]
    shown = ", ".join(names[:5]) or "nothing"
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)} in all)"


def _image_folders(folder: Path) -> list[Path]:
    inside = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()]
    # imagesTs alone is no reason to leave out what lies beside it.
    return [folder] if [path.name for path in inside] in ([], ["imagesTs"]) else inside


def _search(root: Path) -> Discovery:
    """Return the scans below `root`, with labels that lie beside them under a telling name."""
    sources: list[ScanSource] = []
    labels: dict[str, LabelSource] = {}
    ignored: list[Path] = []
    notes: list[str] = []
    for folder, files in _walk(root):
        niftis = [path for path in files if is_nifti(path)]
        stems = {stem(path) for path in niftis}
        paired = {path: labelled_stem(path) for path in niftis}
        for path in niftis:
            if paired[path] not in stems:
                sources.append(ScanSource(case_id(path.relative_to(root)), (path,)))
                continue
            case = case_id((folder / str(paired[path])).relative_to(root))
            if case in labels:
                ignored.append(path)
            else:
                labels[case] = label_source(path)
        others = [path for path in files if path not in paired]
        dicom = tuple(path for path in others if is_dicom(path))
        if dicom:
            name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
            sources.append(ScanSource(case_id(Path(name)), dicom, "dicom"))
        if folder != root:
            notes += [
                f"{folder / name} is not used: give {folder} as --in of its own"
                for name in LABEL_FOLDERS
                if (folder / name).is_dir()
            ]
        used = {*dicom, *(path for path in others if path.name in _SIDE_FILES)}
        ignored += [path for path in others if path not in used]
    return Discovery(tuple(sources), labels, tuple(notes), tuple(ignored))


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield folders and their files in order; links are followed, each folder visited once."""
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        entries = [path for path in _entries(folder) if not is_hidden(path)]
        # A dangling link named like a scan stays in, to be reported when it is read.
        yield folder, [p for p in entries if p.is_file() or (is_nifti(p) and not p.is_dir())]
        waiting += [path for path in reversed(entries) if path.is_dir() and not is_closed(path)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ScanReadError(
            f"{folder}: cannot be listed ({error}); expected a folder that you may read", path=folder
        ) from error
