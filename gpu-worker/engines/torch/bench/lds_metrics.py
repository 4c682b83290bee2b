"""How well scores predict what retraining shows (`test/bench/attribution/metrics.ts`)."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """From 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else 0.0


def datamodel_score(scores: np.ndarray, subsets: np.ndarray, losses: np.ndarray) -> float:
    """
    Linear datamodelling score (Park et al. 2023): over subsets, the rank correlation of the summed scores of the records
    trained on with the negative loss; mean over queries. `scores` [query, record], `subsets` [subset, record] the weights,
    `losses` [subset, query].
    """
    predicted = subsets @ scores.T
    return float(np.mean([spearman(predicted[:, q], -losses[:, q]) for q in range(len(scores))]))


def precision(scores: np.ndarray, same: np.ndarray, top: int = 10) -> float:
    """Part of the `top` best records that are of the query's domain: `same` [query, record]."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return float(np.take_along_axis(same, best, axis=1).mean())
