"""Where the masks and the labels lie, by case id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from csv import DictReader
from pathlib import Path

from featcache.errors import ScanReadError
from featcache.scans.folder import contents, label_source, labels_in
from featcache.scans.masks import PROBABILITIES
from featcache.scans.names import (
    LABEL_FOLDERS,
    case_id,
    clean_id,
    is_hidden,
    is_nifti,
    listed_id,
    unique_ids,
)
from featcache.scans.table import labels_from_table
from featcache.scans.types import LabelSource, ScanSource


def find_masks(pred: Path) -> dict[str, Path]:
    """Return the masks directly in a folder, or the one mask named, by case id.

    Raises
    ------
    ScanReadError
        If there is none, or two give one case id.
    """
    if pred.is_dir():
        files = sorted(path for path in pred.iterdir() if is_nifti(path) and not is_hidden(path))
        names = {path.name for path in files}
        files = [path for path in files if not _beside_a_mask(path.name, names)]
        there = contents(pred)
    else:
        files = [pred] if pred.is_file() and is_nifti(pred) else []
        there = "another kind of file" if pred.exists() else "no such file or folder"
    if not files:
        raise ScanReadError(
            f"{pred}: no masks found (found {there}); expected a folder of <case>.nii.gz as `adapters predict` "
            "writes it",
            path=pred,
        )
    return dict(unique_ids((case_id(Path(path.name)), path) for path in files))


def _beside_a_mask(name: str, names: set[str]) -> bool:
    """Whether a file holds the probabilities of a mask that is there too."""
    return name.endswith(PROBABILITIES) and f"{name.removesuffix(PROBABILITIES)}.nii.gz" in names


def find_truths(labels: Path, masks: Mapping[str, Path]) -> dict[str, LabelSource]:
    """Return the labels in a folder, a CSV or a single file, by case id.

    Parameters
    ----------
    labels : Path
        As of --labels; a folder with labelsTr or labels in it stands for those.
    masks : mapping of str to Path
        The masks by case id: a single file takes the only one's id, and a table's image may be named as
        the mask is, without its folders.

    Raises
    ------
    ScanReadError
        If there are no labels, a file named does not exist, or two give one case id.
    """
    if labels.is_dir():
        inside = [labels / name for name in LABEL_FOLDERS if (labels / name).is_dir()]
        found, there = labels_in(inside[0] if inside else labels), contents(labels)
    elif labels.is_file() and labels.suffix.lower() == ".csv":
        # First without cases: this checks the columns and the text before they are read here.
        labels_from_table(labels, ())
        found, there = labels_from_table(labels, list(_listed(labels, masks))), "a table without rows"
    elif labels.is_file() and is_nifti(labels):
        found, there = (
            ({next(iter(masks)): label_source(labels)} if len(masks) == 1 else {}),
            "one label file",
        )
    else:
        found, there = {}, "another kind of file" if labels.exists() else "no such file or folder"
    if not found:
        raise ScanReadError(
            f"{labels}: no labels found for the {len(masks)} masks (found {there}); expected a folder of "
            "<case>.nii.gz, a CSV with the columns case and label, or one file for one mask",
            path=labels,
        )
    return found


def _listed(table: Path, masks: Mapping[str, Path]) -> Iterator[ScanSource]:
    """Yield the cases of a table as `labels_from_table` wants to know them; nothing reads their files."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = DictReader(file)
        reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
        for row in reader:
            case, image = ((row.get(name) or "").strip() for name in ("case", "image"))
            if case:
                yield ScanSource(clean_id(case), (table,))
            elif image:
                own, short = listed_id(Path(image)), case_id(Path(Path(image).name))
                yield ScanSource(
                    short if own not in masks and short in masks else own, (table.parent / image,)
                )
