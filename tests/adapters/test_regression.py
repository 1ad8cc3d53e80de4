"""Our logistic regression reaches scikit-learn's optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from adapters.methods.regression import fit_logistic

DECAY = 1e-3


def _problem(classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    features = random.normal(size=(2000, 12)).astype(np.float32)
    features = features @ random.normal(size=(12, 12)).astype(np.float32)  # correlated
    features = (features - features.mean(0)) / features.std(0)
    logits = features @ random.normal(size=(12, classes)) + random.gumbel(size=(2000, classes)) * 2
    return features, logits.argmax(1), random.random(2000).astype(np.float32) + 0.1


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_optimum_is_scikit_learns(classes: int) -> None:
    features, values, weights = _problem(classes)
    model = LogisticRegression(C=1 / (2 * DECAY * len(values)), max_iter=2000, tol=1e-8)
    model.fit(features.astype(np.float64), values, sample_weight=weights / weights.mean())
    found, bias = fit_logistic(
        torch.from_numpy(features),
        torch.from_numpy(values),
        torch.from_numpy(weights),
        classes,
        decay=DECAY,
        iterations=500,
    )
    assert found.shape == model.coef_.shape
    np.testing.assert_allclose(found.numpy(), model.coef_, atol=5e-3)
    # Biases of a softmax are known up to a constant.
    offset = 0 if classes == 2 else bias.mean().item() - model.intercept_.mean()
    np.testing.assert_allclose(bias.numpy() - offset, model.intercept_, atol=5e-3)
