"""The soft Dice loss of FSEFT, over voxels that may weigh differently, masked to what is annotated."""

from __future__ import annotations

import torch

_SMOOTH = 1.0  # in numerator and denominator, as in the paper's code


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return class probabilities, (N, K + 1, ...), background first, of task logits.

    One logit is a sigmoid, several are a softmax with the background.
    """
    if logits.shape[1] > 1:
        return logits.softmax(1)
    inside = logits.sigmoid()
    return torch.cat([1 - inside, inside], dim=1)


def give_to_background(shares: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Return `shares` (N, K + 1, ...) with those of classes that are not annotated added to the background.

    Where a structure was not outlined, a voxel called background may well be it: only the sum of both is
    known there (the marginal loss of partly labelled data).

    Parameters
    ----------
    annotated : Tensor, shape (N, K), bool
    """
    shape = (*annotated.shape, *(1,) * (shares.ndim - 2))
    unknown = ~annotated.reshape(shape)
    classes = shares[:, 1:]
    background = shares[:, :1] + (classes * unknown).sum(1, keepdim=True)
    return torch.cat([background, classes * ~unknown], dim=1)


def soft_dice_loss(
    shares: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    annotated: torch.Tensor,
    *,
    per_item: bool,
) -> torch.Tensor:
    """Return 1 - soft Dice, mean over classes (and items).

    Parameters
    ----------
    shares : Tensor, shape (N, K + 1, X, Y, Z)
        Probabilities, what is not annotated given to the background.
    target : Tensor, like `shares`
        Soft labels, likewise.
    weight : Tensor, shape (N, 1, X, Y, Z)
        How many voxels of the scan each voxel stands for; 0 leaves it out.
    annotated : Tensor, shape (N, K), bool
        Classes that count in each item.
    per_item : bool
        Dice of each item, as in the paper; else of all items together, where a patch without the
        structure costs only its false alarms.
    """
    axes = tuple(range(2, shares.ndim))
    overlap = (weight * shares * target).sum(axes)
    volume = (weight * (shares + target)).sum(axes)
    everywhere = torch.ones_like(annotated[:, :1])
    counts = torch.cat([everywhere, annotated], dim=1)
    # A binary task has one channel in the paper: its background is not scored.
    if shares.shape[1] == 2:
        overlap, volume, counts = overlap[:, 1:], volume[:, 1:], counts[:, 1:]
    if not per_item:
        overlap = (overlap * counts).sum(0, keepdim=True)
        volume = (volume * counts).sum(0, keepdim=True)
        counts = counts.any(0, keepdim=True)
    loss = 1 - (2 * overlap + _SMOOTH) / (volume + _SMOOTH)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def cross_entropy_loss(shares: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean of -sum(target * log(shares)); arguments as in `soft_dice_loss`."""
    entropy = -(target * shares.clamp(min=1e-6).log()).sum(1, keepdim=True)
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)
