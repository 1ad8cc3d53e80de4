"""Making a store, and recognising one that was made by the same encoder and recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featcache.errors import StaleFeatures, StoreError
from featcache.store.documents import RootDocument
from featcache.store.files import sync_folder, sync_tree, write_errors, write_synced
from featcache.store.index import Index
from featcache.store.layout import CASES, DOCUMENT, GROUP, INDEX, LABELS
from featcache.store.reader import read_root
from featcache.store.seal import seal
from featcache.store.staging import Staging


def existing_root(path: Path, root: RootDocument) -> RootDocument | None:
    """Return the root of the store at `path`, or None if one can be made there.

    Raises
    ------
    StaleFeatures
        If it is another encoder's or another recipe's than `root`.
    StoreError
        If something else is there.
    """
    for parent in path.parents:
        if (parent / INDEX).is_file() and (parent / DOCUMENT).is_file():
            raise StoreError(
                f"{path} lies inside of the store {parent}; expected a place of its own: choose another --out",
                path=path,
            )
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    found = read_root(path)
    _check_same(path, "encoder", (found.encoder_id, found.card), (root.encoder_id, root.card))
    _check_same(path, "recipe", (found.recipe_id, found.recipe), (root.recipe_id, root.recipe))
    return found


def _check_same(
    path: Path, what: str, found: tuple[str, dict[str, Any]], asked: tuple[str, dict[str, Any]]
) -> None:
    if found[0] == asked[0]:
        return
    names = sorted(found[1].keys() | asked[1].keys())
    differing = [
        f"{name}: found {_short(found[1].get(name))}, asked for {_short(asked[1].get(name))}"
        for name in names
        if found[1].get(name) != asked[1].get(name)
    ]
    who = [f"{fields.get('name', '')} {identity[:12]}".strip() for identity, fields in (found, asked)]
    raise StaleFeatures(
        f"{path} holds features of another {what}: found {who[0]}, asked for {who[1]} "
        f"({'; '.join(differing) or 'the model itself differs'}); choose another --out, or the {what} it was "
        "made with",
        path=path,
    )


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def create_store(path: Path, root: RootDocument, staging: Staging) -> None:
    """Make an empty store in staging and move it to `path`: there is never half a store."""
    staged = staging.new_folder("store")
    for group in (CASES, LABELS):
        write_synced(staged / group / DOCUMENT, GROUP)
    write_synced(staged / INDEX, Index().to_bytes())
    write_synced(staged / DOCUMENT, seal(root.to_json()))
    with write_errors(path):
        sync_tree(staged)
        if path.exists():
            path.rmdir()
        staged.rename(path)
        sync_folder(path.parent)
