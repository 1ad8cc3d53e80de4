"""Class names from labels.json and dataset.json, written in either direction."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from featcache.errors import ScanReadError


def load_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    ScanReadError
        If the file cannot be read or holds something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ScanReadError(
            f"{path}: no valid JSON ({error}); expected an object: repair it", path=path
        ) from error
    if not isinstance(document, dict):
        raise ScanReadError(
            f"{path}: holds a JSON {type(document).__name__}; expected an object such as "
            '{"background": 0, "liver": 1}',
            path=path,
        )
    return document


def parse_classes(document: Any, path: Path) -> dict[str, int]:
    """Return class names and values without background.

    Parameters
    ----------
    document : dict
        ``{"liver": 1}`` (nnU-Net v2) or ``{"1": "liver"}`` (Medical Segmentation Decathlon).
    path : Path
        Where it stands, for messages.

    Raises
    ------
    ScanReadError
        If it is neither, names a region of several values, gives a value or name twice, or a background
        other than 0.
    """
    if not isinstance(document, dict) or not document:
        raise _malformed(path, f"classes {document!r}")
    if all(_whole(value) is not None for value in document.values()):
        pairs = [(name, _whole(value)) for name, value in document.items()]
    elif all(_whole(key) is not None for key in document):
        pairs = [(str(name), _whole(key)) for key, name in document.items()]
    else:
        raise _malformed(path, f"classes {document}")
    classes = {name: value for name, value in pairs if value}
    if len({value for _, value in pairs}) < len(pairs) or len({name for name, _ in pairs}) < len(pairs):
        raise _malformed(path, f"a value or name twice in {document}")
    if "background" in classes or "" in classes:
        raise _malformed(path, f"a background other than 0, or an empty name, in {document}")
    return classes


def find_classes(places: Iterable[Path]) -> dict[str, int] | None:
    """Return the class names in the first of these files that exists and has any, None if none does.

    A labels.json is the mapping itself; a dataset.json has it under ``labels``.
    """
    for path in places:
        if path.is_file():
            document: Any = load_json(path)
            if path.name == "dataset.json":
                document = document.get("labels")
            if document is not None:
                return parse_classes(document, path)
    return None


def class_places(label: Path, *beside: Path) -> list[Path]:
    """Return where the class names of a label file may stand, most specific first.

    Parameters
    ----------
    label : Path
        The label file.
    *beside : Path
        Further folders to look into, such as that of the table that named the file.
    """
    own = label.name.lower().removesuffix(".gz").removesuffix(".nii")
    folders = [label.parent, *beside, label.parent.parent]
    named = [folder / name for name in ("labels.json", "dataset.json") for folder in folders]
    return [label.parent / f"{label.name[: len(own)]}.json", *named]


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _malformed(path: Path, found: str) -> ScanReadError:
    return ScanReadError(
        f'{path}: found {found}; expected one value a class, {{"background": 0, "liver": 1}} or '
        '{"0": "background", "1": "liver"}; a labels.json in the label folder goes before dataset.json',
        path=path,
    )
