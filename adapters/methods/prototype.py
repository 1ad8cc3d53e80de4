"""The nearest class mean: solved in one step, one labelled scan is enough."""

from __future__ import annotations

import torch

from adapters.methods.base import FitContext, Fitted, Method
from adapters.methods.heads import FOREGROUND, known_voxels
from adapters.model import Adapter, HeadRows
from adapters.sampling import channel_moments

_SHRINKAGE = 0.02  # of the covariance towards the identity: five scans say little of 768 channels


def fit(context: FitContext) -> Fitted:
    """Return the head that gives a voxel to the class whose mean feature is nearest.

    Near is measured in the spread that features have within classes, and common classes are favoured as
    their share of the scan says: linear discriminant analysis (Fisher 1936), in closed form. The cosine that
    prototypical networks use has no sense for the background, whose mean lies in the middle of everything.

    Raises
    ------
    TaskError
        If a class of the task occurs in no support case.
    """
    sample = known_voxels(context.sample, context.task)
    mean, deviation = channel_moments(sample.features)
    features = (sample.features - mean) / deviation
    classes = len(context.task.classes) + 1
    share = torch.zeros(classes).index_add(0, sample.values, sample.weights)
    centres = torch.zeros(classes, len(mean)).index_add(0, sample.values, features * sample.weights[:, None])
    centres /= share[:, None]
    within = features - centres[sample.values]
    # Every class counts alike: the background's spread would hide what tells the structures apart.
    each = (sample.weights / share[sample.values] / classes)[:, None]
    spread = (within * each).T @ within
    spread = (1 - _SHRINKAGE) * spread + _SHRINKAGE * spread.diagonal().mean() * torch.eye(len(mean))
    weights = torch.linalg.solve(spread, centres.T).T
    prior = share * torch.where(torch.arange(classes) > 0, FOREGROUND, 1.0)
    bias = (prior / prior.sum()).log() - 0.5 * (weights * centres).sum(1)
    weights = weights / deviation
    head = HeadRows(weights, bias - weights @ mean, tuple(range(classes)))
    adapter = Adapter(context.task, head, context.channels)
    return Fitted(adapter, trainable=adapter.trainable)


METHOD = Method("prototype", "the nearest class mean, in closed form, seconds", fit)
