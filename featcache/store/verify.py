"""Verifying a store: every byte against seals, manifests and constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from featcache.errors import CorruptStore, StoreError
from featcache.store.documents import CaseDocument, LabelDocument
from featcache.store.index import Index, folders
from featcache.store.layout import CASES, DOCUMENT, GROUP, INDEX, LABELS
from featcache.store.manifest import Manifest, files_below, object_problem, read_file
from featcache.store.reader import read_root
from featcache.store.seal import unseal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where (relative to the store), what, and what to do about it."""

    path: str
    problem: str
    advice: str


@dataclass
class Report:
    """What `verify` found, in how many objects and bytes."""

    findings: list[Finding] = field(default_factory=list)
    n_objects: int = 0
    n_bytes: int = 0


_AGAIN = "run `featcache extract` (or `requantise`) again"
_REDO_CASE = f"delete the folder {{path}} and {_AGAIN}"
_REDO_LABELS = "delete the folder {path} and run `featcache label` again"
_REWRITE = f"{_AGAIN}: it is written anew"
_RESTORE = "restore it from a copy, or extract into a new store"
_REMOVE = "delete it if you put it there"


def verify(path: Path | str, on_object: Callable[[int, int], None] | None = None) -> Report:
    """Return every deviation of a store from what was written; none in a healthy one.

    Parameters
    ----------
    path : Path or str
        The store.
    on_object : callable, optional
        Called with the objects compared so far and their number.

    Raises
    ------
    StoreError
        If there is no store, or a newer featcache wrote it.
    """
    path = Path(path)
    check = _Check(path)
    check.root()
    check.constants()
    check.commits()
    check.lost_cases()
    check.unknown_files()
    done, total = check.report.n_objects, check.report.n_objects + len(check.objects)
    for key, entry, advice in check.objects:
        problem = object_problem(path / key, entry)
        if problem:
            check.add(key, problem, advice)
        check.report.n_objects += 1
        check.report.n_bytes += entry[0]
        done += 1
        if on_object is not None:
            on_object(done, total)
    check.report.findings.sort(key=lambda finding: finding.path)
    return check.report


class _Check:
    """Collects findings, the objects to compare, and the files that are accounted for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report = Report()
        self.objects: list[tuple[str, tuple[int, str], str]] = []
        self.known = {DOCUMENT, INDEX}
        self.present = files_below(path)

    def add(self, key: str, problem: str, advice: str) -> None:
        self.report.findings.append(Finding(key, problem, advice))

    def root(self) -> None:
        try:
            read_root(self.path)
        except CorruptStore as error:
            self.add(DOCUMENT, str(error), _RESTORE)
        self._count(DOCUMENT)

    def constants(self) -> None:
        folder_keys = [CASES, LABELS] + [f"{LABELS}/{case}" for case in folders(self.path / LABELS)]
        for key in (f"{folder}/{DOCUMENT}" for folder in folder_keys):
            if key not in self.present:
                self.add(key, "lost: the file is not there", _REWRITE)
            elif read_file(self.path / key) != GROUP:
                self.add(key, "changed: it differs from the plain group that stands there", _REWRITE)
            self._count(key)

    def commits(self) -> None:
        for case in folders(self.path / CASES):
            self._commit(f"{CASES}/{case}", CaseDocument, _REDO_CASE)
        for case in folders(self.path / LABELS):
            for name in folders(self.path / LABELS / case):
                self._commit(f"{LABELS}/{case}/{name}", LabelDocument, _REDO_LABELS)

    def _commit(self, folder: str, kind: type[CaseDocument | LabelDocument], advice: str) -> None:
        advice = advice.format(path=folder)
        key = f"{folder}/{DOCUMENT}"
        self._count(key)
        if key not in self.present:
            # Everything below hangs on this document: one finding says it all.
            self.add(key, "lost: a folder without its commit is not complete", advice)
            self.known |= {k for k in self.present if k.startswith(f"{folder}/")}
            return
        try:
            slot = unseal(read_file(self.path / key), self.path / key)
            manifest: Manifest = kind.parse(slot, self.path / key).manifest
        except StoreError as error:
            self.add(key, str(error), advice)
            self.known |= {k for k in self.present if k.startswith(f"{folder}/")}
            return
        for name, entry in manifest.items():
            self.objects.append((f"{folder}/{name}", entry, advice))
            self.known.add(f"{folder}/{name}")

    def lost_cases(self) -> None:
        self._count(INDEX)
        try:
            index = Index.load(self.path)
        except CorruptStore as error:
            self.add(INDEX, str(error), _REWRITE)
            return
        for case in sorted(index.cases - set(folders(self.path / CASES))):
            self.add(f"{CASES}/{case}", f"lost: {INDEX} lists this case", _AGAIN)
        for case, names in sorted(index.labels.items()):
            for name in sorted(names - set(folders(self.path / LABELS / case))):
                advice = "run `featcache label` again"
                self.add(f"{LABELS}/{case}/{name}", f"lost: {INDEX} lists these labels", advice)

    def unknown_files(self) -> None:
        for key in sorted(self.present - self.known):
            self.add(key, "extra: no manifest has this file", _REMOVE)

    def _count(self, key: str) -> None:
        self.known.add(key)
        if key in self.present:
            self.report.n_objects += 1
            self.report.n_bytes += (self.path / key).stat().st_size
