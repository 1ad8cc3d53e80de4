"""The encoder's own linear classifier, recovered from what it puts out.

Many encoders end in a 1x1x1 convolution: logits = W f + b. From pairs of features and logits, W and b
follow by least squares, so that zero-shot works from the store without looking into the ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.card import EncoderCard, Head
from featcache.errors import EncoderError

REQUIRED_R2 = 0.999
_A_WINDOW = 4096  # voxels sampled of one window
_AT_MOST = 60_000  # voxels in all
_SATURATED = 1e-6  # sigmoids nearer to 0 or 1 say nothing about the logit in float32
_UNDERFLOW = 1e-30  # softmax probabilities keep their logarithm down to here


@dataclass(frozen=True)
class LinearHead:
    """logits = weights @ features + bias.

    Parameters
    ----------
    level : str
        The level that it reads.
    classes : tuple of str
        One a row; without `multilabel` the first is the background.
    weights : ndarray, shape (K, C), float32
    bias : ndarray, shape (K,), float32
    multilabel : bool
        Whether the classes are independent of each other.
    r2 : float
        Smallest coefficient of determination over the classes, on voxels that were not fitted; 1 for a
        head given by the vendor.
    """

    level: str
    classes: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    multilabel: bool
    r2: float

    def decide(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """Return what the head makes of features (C, n).

        Returns
        -------
        ndarray
            The class with the largest logit, (n,) integers; with `multilabel` whether each class' logit is
            above 0, (K, n) bool.
        """
        logits = self.weights @ features + self.bias[:, None]
        return logits > 0 if self.multilabel else logits.argmax(axis=0)

    def to_json(self) -> dict[str, Any]:
        """Return the head as JSON values."""
        return {
            "level": self.level,
            "classes": list(self.classes),
            "weights": self.weights.astype(float).tolist(),
            "bias": self.bias.astype(float).tolist(),
            "multilabel": self.multilabel,
            "r2": self.r2,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LinearHead:
        """Return the head written by `to_json`."""
        weights = np.asarray(document["weights"], np.float32)
        bias = np.asarray(document["bias"], np.float32)
        classes = tuple(str(name) for name in document["classes"])
        return cls(document["level"], classes, weights, bias, document["multilabel"], document["r2"])


class HeadSampler:
    """Collects pairs of features and outputs while windows are encoded, then fits the head.

    Parameters
    ----------
    card : EncoderCard
        Its `head` names an output.
    windows : int
        How many windows will be added: each gives its share, so that memory does not grow with the scan.
    seed : int
        Of the voxels drawn.
    """

    def __init__(self, card: EncoderCard, windows: int = 1, seed: int = 0) -> None:
        assert card.head is not None
        assert card.head.output is not None
        self._card = card
        self._head: Head = card.head
        self._output: str = card.head.output
        self._share = -(-_AT_MOST // windows)
        self._random = np.random.default_rng(seed)
        self._features: list[NDArray[np.float32]] = []
        self._logits: list[NDArray[np.float64]] = []

    def add(self, window: dict[str, NDArray[np.float32]]) -> None:
        """Draw voxels of one window's outputs.

        Raises
        ------
        EncoderError
            If the head's output does not lie on the grid of its level, or has another number of classes.
        """
        features, output = window[self._head.level], window[self._output]
        expected = (len(self._head.classes), *features.shape[1:])
        if output.shape != expected:
            raise EncoderError(
                f"the head's output {self._output!r} has the shape {output.shape}; expected {expected}: a row "
                f"for each of its {len(self._head.classes)} classes on the grid of level {self._head.level!r}. "
                "Name another level or remove the head from the card"
            )
        flat, rows = features.reshape(len(features), -1), output.reshape(len(output), -1)
        taken = self._random.permutation(flat.shape[1])[:_A_WINDOW]
        values, known = _to_logits(rows[:, taken].astype(np.float64), self._head)
        kept = np.flatnonzero(known)[: self._share]
        self._features.append(flat[:, taken[kept]].T.copy())
        self._logits.append(values[:, kept].T.copy())

    def fit(self) -> LinearHead:
        """Return the head, fitted on half of the voxels and checked on the others.

        Raises
        ------
        EncoderError
            If R² stays below 0.999: the output is no linear function of the level.
        """
        x = np.concatenate(self._features).astype(np.float64)
        y = np.concatenate(self._logits)
        order = self._random.permutation(len(x))[:_AT_MOST]
        x, y = x[order], y[order]
        half = len(x) // 2
        design = np.column_stack([x, np.ones(len(x))])
        if half <= design.shape[1]:
            raise EncoderError(
                f"the head cannot be recovered from output {self._output!r}: {len(x)} usable voxels of the first "
                f"scan are too few for {x.shape[1]} channels; expected more than {2 * design.shape[1]}. Begin with "
                "a larger scan; where the output is saturated probabilities, export logits in their place"
            )
        solution, *_ = np.linalg.lstsq(design[:half], y[:half], rcond=None)
        r2 = _r2(y[half:], design[half:] @ solution)
        if not r2 >= REQUIRED_R2:
            raise EncoderError(
                f"the head's output {self._output!r} is no linear function of level {self._head.level!r}: "
                f"R² {r2:.4f}, expected at least {REQUIRED_R2}. Name the level that the classifier reads, or "
                "remove the head from the card (adapters then start without zero-shot)"
            )
        weights = solution[:-1].T.astype(np.float32)
        bias = solution[-1].astype(np.float32)
        return LinearHead(
            self._head.level, self._head.classes, weights, bias, self._head.multilabel, float(r2)
        )


def given_head(card: EncoderCard) -> LinearHead | None:
    """Return the head whose weights stand in the card, None if there are none."""
    head = card.head
    if head is None or head.weights is None or head.bias is None:
        return None
    weights, bias = np.asarray(head.weights, np.float32), np.asarray(head.bias, np.float32)
    return LinearHead(head.level, head.classes, weights, bias, head.multilabel, 1.0)


def _to_logits(rows: NDArray[np.float64], head: Head) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return logits (K, n) and the voxels where they can be told.

    Softmax probabilities give logits up to a common term: that of the background is set to zero.
    """
    if head.activation == "none":
        return rows, np.ones(rows.shape[1], np.bool_)
    known: NDArray[np.bool_]
    if head.activation == "sigmoid":
        known = np.all((rows > _SATURATED) & (rows < 1 - _SATURATED), axis=0)
        inside = np.clip(rows, _SATURATED, 1 - _SATURATED)
        return np.log(inside / (1 - inside)), known
    known = np.all(rows > _UNDERFLOW, axis=0)
    logarithm = np.log(np.maximum(rows, _UNDERFLOW))
    return logarithm - logarithm[:1], known


def _r2(truth: NDArray[np.float64], fitted: NDArray[np.float64]) -> float:
    """Return the smallest R² over the columns that vary."""
    variance = truth.var(axis=0)
    varies = variance > 1e-12
    if not varies.any():
        return 0.0
    residual = np.square(truth - fitted).mean(axis=0)
    return float((1 - residual[varies] / variance[varies]).min())
