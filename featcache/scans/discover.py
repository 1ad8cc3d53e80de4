"""What a user named with --in and --labels -> scans, labels and what to say about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from featcache.errors import ScanReadError
from featcache.scans.dataset_json import from_dataset_json, is_dataset
from featcache.scans.folder import contents, from_folder, label_source, labels_beside, labels_in
from featcache.scans.names import LABEL_FOLDERS, case_id, is_nifti, unique_ids
from featcache.scans.table import from_table, labels_from_table
from featcache.scans.types import Discovery, LabelSource, ScanSource


def discover(inputs: Sequence[Path], labels: Path | None = None) -> Discovery:
    """Return the scans at `inputs` and their labels, without reading any voxel.

    Parameters
    ----------
    inputs : sequence of Path
        Folders, NIfTI files, dataset.json files, CSV tables, in any mixture.
    labels : Path, optional
        A folder, a file (for a single scan) or a CSV of labels, used instead of those found by themselves.

    Returns
    -------
    Discovery
        Sources with unique case ids, labels by case, sentences about both, and what was left aside.

    Raises
    ------
    ScanReadError
        If a place does not exist or holds no scan, two scans give one case id, or `labels` fits no scan.
    """
    places = [_from_place(Path(place)) for place in inputs]
    sources = [source for place in places for source in place.sources]
    unique_ids((source.case, source.path) for source in sources)
    if labels is None:
        found = {case: label for place in places for case, label in place.labels.items()}
    else:
        found = _given_labels(Path(labels), sources)
    notes = [note for place in places for note in place.notes]
    notes += _label_notes(sources, found)
    ignored = dict.fromkeys(path for place in places for path in place.ignored)
    return Discovery(tuple(sources), found, tuple(notes), tuple(ignored))


def _from_place(place: Path) -> Discovery:
    if place.is_dir():
        dataset = is_dataset(place)
        found = from_dataset_json(place / "dataset.json") if dataset else from_folder(place)
        where = f"lying there: {contents(place)}"
    elif not place.is_file():
        raise ScanReadError(f"{place}: no such file or folder; expected scans to read", path=place)
    elif is_nifti(place):
        source = ScanSource(case_id(Path(place.name)), (place,))
        return Discovery((source,), labels_beside([source], place.parent))
    elif place.suffix.lower() == ".json":
        found, where = from_dataset_json(place), "the lists in it are empty"
    elif place.suffix.lower() == ".csv":
        found, where = from_table(place), "the table has no rows"
    else:
        raise ScanReadError(
            f"{place}: a {place.suffix or 'nameless'} file; expected .nii, .nii.gz, dataset.json or .csv "
            "(for DICOM give the folder that holds the series)",
            path=place,
        )
    if not found.sources:
        raise ScanReadError(
            f"{place}: no scans found ({where}); looked for .nii and .nii.gz files at any depth outside "
            "label folders, DICOM series, imagesTr or images, and dataset.json: give the place of the scans",
            path=place,
        )
    return found


def _given_labels(path: Path, sources: Sequence[ScanSource]) -> dict[str, LabelSource]:
    """Return labels by case from what --labels names."""
    if path.is_dir():
        inside = [path / name for name in LABEL_FOLDERS if (path / name).is_dir()]
        known = labels_in(inside[0] if inside else path)
        found = {source.case: known[source.case] for source in sources if source.case in known}
        there = f"labels for {', '.join(list(known)[:3])}" if known else contents(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        found, there = labels_from_table(path, sources), "rows for other cases"
    elif path.is_file() and is_nifti(path):
        if len(sources) != 1:
            raise ScanReadError(
                f"{path}: one label file for {len(sources)} scans; expected a folder with a file per case, "
                "or a CSV with the columns case and label",
                path=path,
            )
        return {sources[0].case: label_source(path)}
    else:
        found, there = {}, "another kind of file" if path.exists() else "no such file or folder"
    if not found:
        cases = ", ".join(source.case for source in sources[:3])
        raise ScanReadError(
            f"{path}: no label for any of the {len(sources)} scans (found {there}; the scans are {cases}); "
            "expected a folder of .nii.gz named like the cases, a .nii.gz, or a CSV with case and label",
            path=path,
        )
    return found


def _label_notes(sources: Sequence[ScanSource], labels: dict[str, LabelSource]) -> list[str]:
    if not labels:
        return ["no labels found (looked for labelsTr/ and labels/ inside and beside the scans' folder)"]
    folders = Counter(label.path.parent for label in labels.values())
    notes = [
        f"labels found in {folder} ({count} of {len(sources)} cases)" for folder, count in folders.items()
    ]
    if any(label.classes is None for label in labels.values()):
        notes.append(
            "some labels have no class names: classes are called by their values; "
            'a labels.json such as {"background": 0, "liver": 1} in the label folder names them'
        )
    return notes
