"""A CSV of scans (image, label, case, group, annotated) or of labels alone -> scans and labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from featcache.errors import ScanReadError
from featcache.scans.folder import dicom_source, label_source
from featcache.scans.names import clean_id, is_nifti, listed_id
from featcache.scans.types import Discovery, LabelSource, ScanSource

Row = dict[str, str]


def from_table(path: Path) -> Discovery:
    """Return the scans a CSV lists and their labels.

    Columns: ``image`` (a NIfTI file or a folder with a DICOM series); optional ``label``, ``case``,
    ``group``, ``annotated`` (class names separated by ``;``). Others are ignored. Paths are relative to
    the table. Without ``case``, the id is that of the image's path, relative to the folder
    that all of them lie in.

    Raises
    ------
    ScanReadError
        If ``image`` is missing, or a file named in a line does not exist.
    """
    sources: list[ScanSource] = []
    labels: dict[str, LabelSource] = {}
    rows = list(_rows(path, "image"))
    common = _common_folder([row["image"] for _, row in rows])
    for where, row in rows:
        image = path.parent / row["image"]
        source = _source(image, _row_case(row, common), where, path)
        sources.append(source)
        if row.get("label"):
            labels[source.case] = _label(row, where, path)
    return Discovery(tuple(sources), labels)


def labels_from_table(path: Path, sources: Sequence[ScanSource]) -> dict[str, LabelSource]:
    """Return labels by case from a CSV with ``label`` and either ``case`` or ``image``.

    Raises
    ------
    ScanReadError
        If a column is missing or a label file named in a line does not exist.
    """
    by_file = {source.path.resolve(): source.case for source in sources}
    cases = {source.case for source in sources}
    labels: dict[str, LabelSource] = {}
    rows = list(_rows(path, "label"))
    common = _common_folder([row["image"] for _, row in rows if row.get("image")])
    for where, row in rows:
        if not (row.get("case") or row.get("image")):
            raise ScanReadError(f"{where}: found neither case nor image; expected one of them", path=path)
        case = _row_case(row, common)
        if not row.get("case"):
            case = by_file.get((path.parent / row["image"]).resolve(), case)
        if case in labels:
            raise ScanReadError(f"{where}: a second label for case {case!r}; expected one a case", path=path)
        if case in cases:
            labels[case] = _label(row, where, path)
    return labels


def _rows(path: Path, required: str) -> Iterator[tuple[str, Row]]:
    """Yield each line with where it stands, and its cells by lower-case column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
            if required not in columns:
                raise ScanReadError(
                    f"{path}: found the columns {columns}; expected {required!r} among them, separated by "
                    "commas (image, label, case, group, annotated)",
                    path=path,
                )
            reader.fieldnames = columns
            for row in reader:
                cells = {name: (row.get(name) or "").strip() for name in columns}
                where = f"{path}, line {reader.line_num}"
                if not cells[required]:
                    raise ScanReadError(f"{where}: the column {required!r} is empty", path=path)
                yield where, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScanReadError(f"{path}: no readable CSV ({error}); expected UTF-8 text", path=path) from error


def _common_folder(images: Sequence[str]) -> Path:
    """Return the deepest folder that all images lie in: ids are relative to it, as when it is given itself."""
    folders = [Path(image).parent for image in images]
    if not folders or len({folder.is_absolute() for folder in folders}) > 1:
        return Path()
    return Path(os.path.commonpath(folders))


def _row_case(row: Row, common: Path) -> str:
    if row.get("case"):
        return clean_id(row["case"])
    return listed_id(Path(row["image"]).relative_to(common))


def _source(image: Path, case: str, where: str, path: Path) -> ScanSource:
    source = dicom_source(image, case) if image.is_dir() else None
    if image.is_file() and is_nifti(image):
        source = ScanSource(case, (image,))
    if source is None:
        found = "no such file" if not image.exists() else "neither NIfTI nor a folder of DICOM files"
        raise ScanReadError(
            f"{where}: image {image}: {found}; expected a .nii or .nii.gz file or a folder with one DICOM "
            "series, relative to the table",
            path=path,
            case=case,
        )
    return source


def _label(row: Row, where: str, path: Path) -> LabelSource:
    label = path.parent / row["label"]
    if not label.is_file() or not is_nifti(label):
        found = "no NIfTI file" if label.is_file() else "no such file"
        raise ScanReadError(
            f"{where}: label {label}: {found}; expected a .nii or .nii.gz file, relative to the table",
            path=path,
        )
    names = [name.strip() for name in row.get("annotated", "").split(";") if name.strip()]
    return replace(
        label_source(label, path.parent),
        annotated=tuple(names) or None,
        group=row.get("group") or None,
    )
