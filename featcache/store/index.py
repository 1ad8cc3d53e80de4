"""cases.json: which cases and label sets a store holds, for hosts that cannot list and as a second witness."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featcache.errors import CorruptStore
from featcache.store.layout import CASES, DOCUMENT, INDEX, LABELS
from featcache.store.manifest import read_file
from featcache.store.seal import seal, unseal


@dataclass
class Index:
    """Case ids, and label set names per case id."""

    cases: set[str] = field(default_factory=set)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the sealed cases.json."""
        labels = {case: sorted(names) for case, names in self.labels.items() if names}
        return seal({"format_version": 1, "cases": sorted(self.cases), "labels": labels})

    @classmethod
    def load(cls, store: Path) -> Index:
        """Return the index of a store.

        Raises
        ------
        CorruptStore
            If cases.json is lost or damaged.
        """
        path = store / INDEX
        document: dict[str, Any] = unseal(read_file(path), path)
        try:
            labels = {case: set(names) for case, names in document["labels"].items()}
            return cls(set(document["cases"]), labels)
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptStore(f"{path}: not an index of cases: {error!r}", path=path) from error

    @classmethod
    def of_folders(cls, store: Path) -> Index:
        """Return what is committed in a store's folders."""
        cases = set(committed(store / CASES))
        labels = {case: set(committed(store / LABELS / case)) for case in folders(store / LABELS)}
        return cls(cases, {case: names for case, names in labels.items() if names})

    def merged(self, other: Index) -> Index:
        """Return what either knows of."""
        ids = self.labels.keys() | other.labels.keys()
        labels = {case: self.labels.get(case, set()) | other.labels.get(case, set()) for case in ids}
        return Index(self.cases | other.cases, labels)


def folders(parent: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none where it is not there."""
    return sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []


def committed(parent: Path) -> list[str]:
    """Return the names of the folders that hold a commit, sorted."""
    return [name for name in folders(parent) if (parent / name / DOCUMENT).is_file()]
