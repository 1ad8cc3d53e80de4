"""What a store holds, as plain JSON values: the data behind `featcache info`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featcache.geometry import Grid, axis_codes, spacing
from featcache.store.layout import level_prefix
from featcache.store.manifest import Manifest

if TYPE_CHECKING:
    from featcache.store.case import Case
    from featcache.store.reader import FeatureStore


def describe(store: FeatureStore) -> dict[str, Any]:
    """Return encoder, recipe, head, cases with grids and sizes in bytes, and labels of a store."""
    cases = [_case(store.case(case)) for case in store.cases()]
    root = store.root
    return {
        "path": str(store.path),
        "format_version": root.format_version,
        "encoder": {"name": root.card.get("name"), "id": root.encoder_id},
        "recipe": {**root.recipe, "id": root.recipe_id},
        "head": None if root.head is None else {k: root.head.get(k) for k in ("level", "classes", "r2")},
        "calibration": None if root.calibration is None else root.calibration["case"],
        "software": root.software,
        "bytes": sum(case["bytes"] for case in cases),
        "levels": sorted({level for case in cases for level in case["levels"]}),
        "classes": sorted(
            {name for case in cases for labels in case["labels"].values() for name in labels["classes"]}
        ),
        "cases": cases,
    }


def _case(case: Case) -> dict[str, Any]:
    document = case.document
    levels = {
        name: {
            **_grid(level.grid),
            "channels": level.channels,
            "dtype": level.precision.dtype,
            "precision": level.precision.name,
            "stored_error": level.stored_error.to_json(),
            "bytes": _bytes(document.manifest, f"{level_prefix(name)}/"),
        }
        for name, level in document.levels.items()
    }
    labels: dict[str, dict[str, Any]] = {}
    for name in case.label_names():
        if found := case.labels(name):
            labels[name] = {
                "classes": found.classes,
                "annotated": list(found.annotated),
                "group": found.group,
                "bytes": _bytes(found.document.manifest),
            }
    return {
        "id": case.id,
        "native": _grid(case.info.native),
        "prepared": _grid(case.info.prepared),
        "unit": case.info.unit,
        "levels": levels,
        "labels": labels,
        "bytes": _bytes(document.manifest) + sum(entry["bytes"] for entry in labels.values()),
    }


def _grid(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "spacing": list(spacing(grid)), "orientation": axis_codes(grid)}


def _bytes(manifest: Manifest, prefix: str = "") -> int:
    return sum(size for key, (size, _) in manifest.items() if key.startswith(prefix))
