"""Scores against retrainings, mean over seeds, as tables and files."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from common import REPOSITORY, report
from lds_data import Corpus
from lds_methods import Method
from lds_metrics import datamodel_score, precision

#: A table's rows, by column.
Row = dict[str, object]
#: Columns of the methods' table; those of sketches have more.
PLAIN = ("method", "LDS, true answers", "by contributor", "LDS, own answers", "own by contributor", "P@10", "bytes a record")


@dataclass(frozen=True)
class Truth:
    """What each retraining was on, as weights [subset, record], and what each query then lost [subset, query]."""

    halves: tuple[np.ndarray, np.ndarray]
    coalitions: tuple[np.ndarray, np.ndarray]

    @property
    def count(self) -> int:
        return len(self.halves[0]) + len(self.coalitions[0])


def judged(corpus: Corpus, methods: list[Method], truth: Truth) -> list[Row]:
    held = len(corpus.queries)
    same = corpus.query_domain[:, None] == corpus.domain[None, :]
    true, own = slice(0, held), slice(held, None)

    def lds(scores: np.ndarray, part: slice, kind: tuple[np.ndarray, np.ndarray]) -> float:
        if np.isnan(scores[part]).any():
            return float("nan")
        return datamodel_score(scores[part], kind[0], kind[1][:, part])

    return [
        {
            "method": method.name,
            "LDS, true answers": lds(method.scores, true, truth.halves),
            "by contributor": lds(method.scores, true, truth.coalitions),
            "LDS, own answers": lds(method.scores, own, truth.halves),
            "own by contributor": lds(method.scores, own, truth.coalitions),
            "P@10": precision(method.scores[true], same),
            "bytes a record": method.bytes,
            "sketch": method.sketch,
            **method.more,
        }
        for method in methods
    ]


def averaged(seeds: list[list[Row]]) -> list[Row]:
    """Mean over seeds of every figure, of the methods that are in all of them."""
    by_name = [{row["method"]: row for row in seed} for seed in seeds]
    out = []
    for name, first in by_name[0].items():
        rows = [seed[name] for seed in by_name if name in seed]
        if len(rows) == len(seeds):
            floats = {key: [row[key] for row in rows] for key, value in first.items() if isinstance(value, float)}
            out.append({**first, **{key: float(np.mean(values)) for key, values in floats.items()}})
    return out


def tell(name: str, about: Row, seeds: list[list[Row]], buckets: int, shown: bool) -> None:
    """Three tables: methods; int8 rows of full k by the width of sketches; int8 rows of `buckets` by k."""
    rows = averaged(seeds)
    sketches = [row["sketch"] for row in rows if row["sketch"] is not None]
    most = max((k for _, k, _ in sketches), default=0)
    methods, by_width, by_k = [], [], []
    for row in rows:
        width, k, int8 = row["sketch"] or (buckets, most, False)
        told = {key: _shown(key, value) for key, value in row.items() if key != "sketch"}
        if (width, k) == (buckets, most):
            methods.append({key: told[key] for key in PLAIN})
        if int8 and k == most:
            by_width.append(told)
        if int8 and width == buckets:
            by_k.append(told)
    report(f"{name}-width", about, by_width, shown)
    report(f"{name}-k", about, by_k, shown)
    report(name, about, methods, shown)


def _shown(key: str, value: object) -> object:
    if key == "bytes a record":
        return "text" if value is None else value
    if not isinstance(value, float):
        return value
    return "–" if np.isnan(value) else round(value, 6 if "cosine" in key else 3)


def save(name: str, methods: list[Method], truth: Truth) -> None:
    """All that the tables are made of."""
    directory = os.path.join(REPOSITORY, "bench-results")
    os.makedirs(directory, exist_ok=True)
    np.savez_compressed(
        os.path.join(directory, f"{name}.npz"),
        names=np.array([method.name for method in methods]),
        scores=np.stack([method.scores for method in methods]).astype(np.float32),
        half_weights=truth.halves[0],
        half_losses=truth.halves[1],
        coalition_weights=truth.coalitions[0],
        coalition_losses=truth.coalitions[1],
    )
