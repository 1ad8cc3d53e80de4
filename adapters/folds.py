"""Which cases are support and which are tested: drawn by group, or as a file says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adapters.comparison import Fold
from adapters.labels import LABELS, labelled_cases
from featcache.errors import TaskError
from featcache.store import FeatureStore


def draw_folds(
    store: FeatureStore, *, shots: int, folds: int, test: Sequence[str] | None = None, seed: int = 0
) -> tuple[Fold, ...]:
    """Return folds as FSEFT draws them: fixed test cases, support drawn anew for each fold from the rest.

    Groups (patients, named when labels are added) are never split between support and test.

    Parameters
    ----------
    shots : int
        The most that will be asked for.
    folds : int
    test : sequence of str, optional
        The test cases; a third of the labelled ones, or as many as the shots leave over, if not given.
    seed : int
        Of the draws; fold f of a seed is always the same.

    Raises
    ------
    TaskError
        If there are too few cases, a test case has no labels, or a test case's group would be split.
    """
    groups = _groups(store)
    if test is None:
        chosen = _draw_test(groups, shots, seed, store.path)
    else:
        unknown = [case for case in test if case not in groups]
        if unknown or not test:
            raise TaskError(
                f"--test: {unknown or 'nothing'} is not among the labelled cases of {store.path}: "
                f"{', '.join(list(groups)[:8])}; expected their ids",
                path=store.path,
            )
        chosen = list(dict.fromkeys(test))
    tested = {groups[case] for case in chosen}
    pool = [case for case in groups if groups[case] not in tested]
    if len(pool) < shots:
        raise TaskError(
            f"--shots {shots}: {store.path} has {len(groups)} labelled cases, {len(chosen)} of them are tested and "
            f"{len(pool)} are left to draw from (cases of a tested group are not); ask for fewer shots, or label more",
            path=store.path,
        )
    return tuple(
        Fold(
            tuple(pool[i] for i in np.random.default_rng([seed, fold]).permutation(len(pool))), tuple(chosen)
        )
        for fold in range(folds)
    )


def cross_validation(store: FeatureStore, cases: Sequence[str], *, most: int = 5) -> tuple[Fold, ...]:
    """Return folds that test each of `cases` once, trained on the others: one group out, or one of `most` parts.

    Raises
    ------
    TaskError
        If the cases are of fewer than two groups.
    """
    groups = {case: group for case, group in _groups(store).items() if case in cases}
    names = list(dict.fromkeys(groups[case] for case in cases))
    if len(names) < 2:
        raise TaskError(
            f"--cross-validate needs labelled cases of two patients or more; found {len(cases)} cases of "
            f"{len(names)}: label more, or name more with --support",
            path=store.path,
        )
    parts = [names[number :: min(most, len(names))] for number in range(min(most, len(names)))]
    return tuple(
        Fold(tuple(c for c in cases if groups[c] not in part), tuple(c for c in cases if groups[c] in part))
        for part in parts
    )


def read_folds(path: Path, store: FeatureStore, shots: int) -> tuple[Fold, ...]:
    """Return the folds of a file: ``{"folds": [{"support": [...], "test": [...]}, ...]}``.

    Raises
    ------
    TaskError
        If it is no such file, names a case without labels, tests a support case or its group, or has too few
        support cases.
    """
    try:
        document: Any = json.loads(path.read_text("utf-8"))
        folds = tuple(Fold(tuple(f["support"]), tuple(f["test"])) for f in document["folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(
            f'{path}: no folds here ({error!r}); expected {{"folds": [{{"support": ["a", "b"], "test": ["c"]}}]}}',
            path=path,
        ) from error
    groups = _groups(store)
    for number, fold in enumerate(folds):
        where = f"{path}: fold {number}"
        unknown = [case for case in (*fold.support, *fold.test) if case not in groups]
        if unknown:
            raise TaskError(f"{where} names {unknown}; {store.path} has no labels of them", path=path)
        both = {groups[case] for case in fold.support} & {groups[case] for case in fold.test}
        if both:
            raise TaskError(
                f"{where}: {sorted(both)} is in support and test; expected each case and group in one of them",
                path=path,
            )
        if len(set(fold.support)) < shots or not fold.test:
            raise TaskError(
                f"{where} has {len(set(fold.support))} support and {len(fold.test)} test cases; expected {shots} "
                "support cases (the most of --shots) and a test case",
                path=path,
            )
    if not folds:
        raise TaskError(f"{path} lists no folds; expected one or more", path=path)
    return folds


def _groups(store: FeatureStore) -> dict[str, str]:
    """Return the group of each labelled case; a case without one is its own."""
    groups = {}
    for case in labelled_cases(store):
        labels = store.case(case).labels(LABELS)
        assert labels is not None
        groups[case] = labels.group or f"case {case}"
    return groups


def _draw_test(groups: dict[str, str], shots: int, seed: int, path: Path) -> list[str]:
    """Return whole groups, drawn until a third of the cases is tested or no more can be spared."""
    names = list(dict.fromkeys(groups.values()))
    order = np.random.default_rng([seed, 2**20]).permutation(len(names))
    spare = len(groups) - shots
    wanted = max(1, min(round(len(groups) / 3), spare))
    chosen: list[str] = []
    for number in order:
        members = [case for case in groups if groups[case] == names[number]]
        if len(chosen) + len(members) <= spare and len(chosen) < wanted:
            chosen += members
    if not chosen:
        raise TaskError(
            f"--shots {shots}: {path} has {len(groups)} labelled cases, and none is left to test on; ask for fewer "
            "shots, or label more",
            path=path,
        )
    return sorted(chosen)
