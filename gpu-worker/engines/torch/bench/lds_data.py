"""What `test/bench/attribution/export.ts` writes: records, questions and subsets of one seed, as token ids."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
from common import REPOSITORY  # noqa: F401 (puts the package on the path)

from openledger_torch.examples import Example


@dataclass(frozen=True)
class Corpus:
    seed: int
    records: list[Example]
    #: Of each record: what it weighs in training (ν), who contributed it, its domain (−1: noise).
    weights: np.ndarray
    contributor: np.ndarray
    domain: np.ndarray
    #: Held-out questions with their true answers, and without them.
    queries: list[Example]
    asked: list[np.ndarray]
    query_domain: np.ndarray
    eos: frozenset[int]
    #: `halves` of the records, `coalitions` of contributors: [subset, record] of 0 and 1.
    halves: np.ndarray
    coalitions: np.ndarray
    #: Span matches of the true answers: [query, record].
    spans: np.ndarray


def read_corpus(path: str) -> Corpus:
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    records, queries = raw["records"], raw["queries"]

    def examples(of: list[dict]) -> list[Example]:
        return [Example(np.array(each["tokens"], dtype=np.int32), int(each["from"])) for each in of]

    def presence(kind: str) -> np.ndarray:
        chosen = [subset["records"] for subset in raw["subsets"] if subset["kind"] == kind]
        out = np.zeros((len(chosen), len(records)))
        for row, some in zip(out, chosen):
            row[some] = 1
        return out

    def column(of: list[dict], key: str) -> np.ndarray:
        return np.array([each[key] for each in of])

    return Corpus(
        seed=int(raw["seed"]),
        records=examples(records),
        weights=column(records, "weight").astype(np.float64),
        contributor=column(records, "contributor"),
        domain=column(records, "domain"),
        queries=examples(queries),
        asked=[np.array(each["asked"], dtype=np.int32) for each in queries],
        query_domain=column(queries, "domain"),
        eos=frozenset(raw["eos"]),
        halves=presence("half"),
        coalitions=presence("coalition"),
        spans=np.array(raw["spans"], dtype=np.float64),
    )


def read_tokens(directory: str, name: str) -> np.ndarray:
    return np.fromfile(os.path.join(directory, f"{name}.u16"), dtype="<u2")
