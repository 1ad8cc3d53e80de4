"""dataset.json of the Medical Segmentation Decathlon and of nnU-Net -> scans and labels.

Sources: medicaldecathlon.com (``training``: list of image and label); nnU-Net v2's dataset_format.md
(``file_ending``, files named CASE_0000 in imagesTr, CASE in labelsTr).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featcache.errors import ScanReadError
from featcache.scans.classes import class_places, find_classes, load_json
from featcache.scans.folder import from_folder
from featcache.scans.names import listed_id, refuse_channels
from featcache.scans.types import Discovery, LabelSource, ScanSource


def is_dataset(folder: Path) -> bool:
    """Return whether a folder holds a dataset.json that lists or stands beside training images."""
    path = folder / "dataset.json"
    return path.is_file() and ((folder / "imagesTr").is_dir() or "training" in load_json(path))


def from_dataset_json(path: Path) -> Discovery:
    """Return the training scans with labels, and the test scans without.

    Raises
    ------
    ScanReadError
        If it is neither kind of dataset, lists training files that do not exist, has files other than
        NIfTI, or cases of several channels.
    """
    document = load_json(path)
    ending = document.get("file_ending", ".nii.gz")
    if ending not in (".nii", ".nii.gz"):
        raise ScanReadError(
            f"{path}: the dataset's files end in {ending!r}; expected .nii or .nii.gz: convert them",
            path=path,
        )
    training = document.get("training")
    if isinstance(training, list) and training:
        return _from_list(path, training, document.get("test"))
    if (path.parent / "imagesTr").is_dir():
        return from_folder(path.parent)
    raise ScanReadError(
        f"{path}: found neither a list 'training' nor a folder imagesTr beside the file; expected the "
        "dataset.json of a Decathlon or nnU-Net dataset: give the folder of scans instead",
        path=path,
    )


def _from_list(path: Path, training: list[Any], test: Any) -> Discovery:
    root = path.parent
    sources: list[ScanSource] = []
    labels: dict[str, LabelSource] = {}
    classes = None
    for number, entry in enumerate(training):
        where = f"{path}: training[{number}]"
        image, label = _entry(entry, where, path)
        file = _existing(root, image)
        if file is None:
            raise ScanReadError(f"{where}: no file {root / image}; expected it to exist", path=path)
        source = ScanSource(listed_id(image), (file,))
        sources.append(source)
        if label is None:
            continue
        if not (root / label).is_file():
            raise ScanReadError(f"{where}: no label file {root / label}; expected it to exist", path=path)
        classes = classes or find_classes(class_places(root / label, root))
        labels[source.case] = LabelSource(root / label, classes)
    listed = [_entry(entry, f"{path}: test", path)[0] for entry in test or []]
    found = [(image, _existing(root, image)) for image in listed]
    tests = [ScanSource(listed_id(image), (file,)) for image, file in found if file is not None]
    sources += tests
    _refuse_unlisted_channels(sources)
    missing = len(listed) - len(tests)
    notes = [f"{missing} of {len(listed)} test scans listed in {path} are not there"] if missing else []
    return Discovery(tuple(sources), labels, tuple(notes))


def _refuse_unlisted_channels(sources: list[ScanSource]) -> None:
    """Refuse CASE_0001 beside CASE_0000, unless the dataset lists it as a case of its own."""
    listed = {source.path for source in sources}
    there = {file for folder in {path.parent for path in listed} for file in folder.glob("*_0001.nii*")}
    refuse_channels([*(listed - there), *(there - listed)])


def _entry(entry: Any, where: str, path: Path) -> tuple[Path, Path | None]:
    """Return the image's and the label's path, relative to the dataset."""
    if isinstance(entry, str):
        return Path(entry), None
    if isinstance(entry, dict) and isinstance(entry.get("image"), str):
        label = entry.get("label")
        return Path(entry["image"]), Path(label) if isinstance(label, str) else None
    raise ScanReadError(
        f'{where}: found {entry!r}; expected a file name or {{"image": file, "label": file}}', path=path
    )


def _existing(root: Path, image: Path) -> Path | None:
    """Return the file, also where nnU-Net v1 lists CASE.nii.gz for a file CASE_0000.nii.gz."""
    plain = root / image
    if plain.is_file():
        return plain
    name, dot, ending = image.name.partition(".nii")
    channel = root / image.with_name(f"{name}_0000{dot}{ending}")
    return channel if channel.is_file() else None
