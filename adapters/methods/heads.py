"""Linear heads to start from: the encoder's own, or a logistic regression on sampled voxels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from adapters.methods.regression import fit_logistic
from adapters.model import HeadRows
from adapters.sampling import VoxelSample, channel_moments
from adapters.task import Task
from featcache.errors import TaskError
from featcache.head import LinearHead

FOREGROUND = 3.0  # weight of structures: between the likelihood's optimum and Dice's
_DECAY = 1e-4  # weight decay per voxel on standardised features
_ITERATIONS = 100


def own_head(head: LinearHead, task: Task, channels: Mapping[str, int]) -> HeadRows | None:
    """Return the encoder's own head in terms of `task`, None where it lacks a class or reads another level.

    A softmax head keeps all its rows: those of other structures count as background. Of independent
    (multi-label) rows only the task's are kept, with a zero background row for several classes.
    """
    if head.level not in channels:
        return None
    groups = [0] * len(head.classes)
    for value, wanted in enumerate(task.classes, 1):
        own = [next((n for n in s.split("|") if n in head.classes), "") for s in wanted.sources]
        names = own if all(own) else [wanted.name]
        for name in names:
            if name not in head.classes:
                return None
            groups[head.classes.index(name)] = value
    weights, bias = torch.from_numpy(head.weights), torch.from_numpy(head.bias)
    if head.multilabel:
        rows = [row for row, group in enumerate(groups) if group]
        weights, bias, groups = weights[rows], bias[rows], [groups[row] for row in rows]
        if not task.binary:
            weights = torch.cat([torch.zeros(1, weights.shape[1]), weights])
            bias = torch.cat([torch.zeros(1), bias])
            groups = [0, *groups]
    wide = torch.zeros(len(weights), sum(channels.values()))
    first = 0
    for name, count in channels.items():
        if name == head.level:
            wide[:, first : first + count] = weights
        first += count
    return HeadRows(wide, bias.clone(), tuple(groups))


def regress(sample: VoxelSample, task: Task) -> HeadRows:
    """Return a logistic regression by L-BFGS on weighted voxels, one row a task logit.

    Voxels count as many times as they stand for, structures three times that: a likelihood without it
    finds too little of small structures, drawn voxels without weights find too much.

    Raises
    ------
    TaskError
        If a class of the task occurs in no support case.
    """
    sample = known_voxels(sample, task)
    mean, deviation = channel_moments(sample.features)
    coefficients, bias = fit_logistic(
        (sample.features - mean) / deviation,
        sample.values,
        torch.where(sample.values > 0, FOREGROUND, 1.0) * sample.weights,
        len(task.classes) + 1,
        decay=_DECAY,
        iterations=_ITERATIONS,
    )
    coefficients = coefficients / deviation
    bias = bias - coefficients @ mean
    groups = (1,) if task.binary else tuple(range(len(task.classes) + 1))
    return HeadRows(coefficients, bias, groups)


def known_voxels(sample: VoxelSample, task: Task) -> VoxelSample:
    """Return the voxels whose class is known for certain.

    Background of a case that does not annotate every class may be any of those; it is left out where
    other cases have background to show, and kept (as background) where none has.

    Raises
    ------
    TaskError
        If a class of the task occurs in no support case.
    """
    whole = sample.annotated.all(1)
    usable = (sample.values > 0) | (
        whole[sample.cases] if whole.any() else torch.ones_like(sample.values > 0)
    )
    values = sample.values[usable]
    found = set(np.unique(values.numpy()).tolist())
    absent = [name for name, value in task.values.items() if value not in found]
    if absent:
        raise TaskError(
            f"no voxel of {absent} in the support cases; choose cases that show every class, with --support, "
            "or leave the class out with --classes"
        )
    return dataclasses.replace(
        sample,
        features=sample.features[usable],
        values=values,
        weights=sample.weights[usable],
        cases=sample.cases[usable],
    )
