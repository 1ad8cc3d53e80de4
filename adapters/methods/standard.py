"""Training a head on standardised features, and folding the standardisation into it afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from adapters.model import Adapter, HeadRows
from adapters.sampling import VoxelSample, channel_moments


def standardised(
    sample: VoxelSample, head: HeadRows
) -> tuple[VoxelSample, HeadRows, Callable[[Adapter], None]]:
    """Return the sample with mean 0 and deviation 1 a channel, the same head for it, and the way back.

    Returns
    -------
    sample : VoxelSample
    head : HeadRows
        Gives on the new sample what `head` gave on the old one.
    restore : callable
        Turns a trained adapter without residual into one for features as they are, in place.
    """
    features = sample.features
    mean, deviation = channel_moments(features)
    standard = dataclasses.replace(sample, features=(features - mean) / deviation)
    rows = HeadRows(head.weights * deviation, head.bias + head.weights @ mean, head.groups)

    def restore(adapter: Adapter) -> None:
        with torch.no_grad():
            weights = adapter.head.weight.flatten(1) / deviation
            assert adapter.head.bias is not None
            adapter.head.bias -= weights @ mean
            adapter.head.weight.copy_(weights[:, :, None, None, None])

    return standard, rows, restore
