"""Examples as they come over the wire, checked, cut into padded batches; and their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .base import BaseModel
from .errors import EngineFault

#: Bytes that the logits of one batch may take in float32, with their gradient about twice.
LOGIT_BYTES = 512 << 20


@dataclass(frozen=True)
class Example:
    tokens: np.ndarray
    #: First response token (≥ 1).
    start: int

    @property
    def responses(self) -> int:
        return len(self.tokens) - self.start

    def bearing(self, stride: int) -> int:
        """Response tokens that bear the loss: those at 0, `stride`, 2 `stride` …"""
        return -(-self.responses // stride)


def read_examples(part: bytes | memoryview) -> list[Example]:
    """int32: of each example its start, its number of tokens, its tokens."""
    if len(part) % 4 != 0:
        raise EngineFault("BAD_EXAMPLE", "examples that are no int32")
    numbers = np.frombuffer(part, dtype="<i4")
    out: list[Example] = []
    at = 0
    while at < len(numbers):
        if at + 2 > len(numbers) or numbers[at + 1] < 0 or at + 2 + int(numbers[at + 1]) > len(numbers):
            raise EngineFault("BAD_EXAMPLE", "examples that end early")
        length = int(numbers[at + 1])
        out.append(Example(numbers[at + 2 : at + 2 + length], int(numbers[at])))
        at += 2 + length
    return out


def check_example(base: BaseModel, example: Example) -> None:
    count = len(example.tokens)
    if example.start < 1:
        raise EngineFault("BAD_EXAMPLE", f"the response begins at token {example.start}")
    if example.start >= count:
        raise EngineFault("BAD_EXAMPLE", f"no response token: {count} tokens, from {example.start}")
    if count - 1 > base.positions:
        raise EngineFault("BAD_EXAMPLE", f"{count} tokens for a model of {base.positions} positions")
    bad = (example.tokens < 0) | (example.tokens >= base.vocabulary)
    if bad.any():
        raise EngineFault("BAD_EXAMPLE", f"token {example.tokens[bad][0]}")


def batches(base: BaseModel, examples: Sequence[Example], tokens: int, most: int) -> Iterator[list[Example]]:
    """Neighbours, as many as make no more than `tokens` (padding included) and no larger logits than `LOGIT_BYTES`."""
    batch: list[Example] = []
    longest = 0
    budget = min(tokens, LOGIT_BYTES // (4 * base.vocabulary))
    for example in examples:
        longer = max(longest, len(example.tokens))
        if batch and (len(batch) == most or longer * (len(batch) + 1) > budget):
            yield batch
            batch, longer = [], len(example.tokens)
        batch.append(example)
        longest = longer
    if batch:
        yield batch


@dataclass(frozen=True)
class Padded:
    #: [rows, tokens]: all but each example's last token, zeros behind. Causal attention never sees what is behind.
    ids: Tensor
    #: [rows, kept]: the response token that each of the last `kept` positions predicts, −100 where none bears the loss.
    targets: Tensor
    kept: int
    #: Response tokens a row that bear the loss.
    counts: Tensor
    #: [rows, tokens]: whether a position is the example's own.
    own: Tensor


def pad(batch: Sequence[Example], device: torch.device, stride: int = 1) -> Padded:
    width = max(len(example.tokens) for example in batch) - 1
    first = min(example.start for example in batch) - 1
    ids = np.zeros((len(batch), width), dtype=np.int64)
    targets = np.full((len(batch), width), -100, dtype=np.int64)
    own = np.zeros((len(batch), width), dtype=bool)
    for row, example in enumerate(batch):
        count = len(example.tokens) - 1
        ids[row, :count] = example.tokens[:-1]
        targets[row, example.start - 1 : count : stride] = example.tokens[example.start :: stride]
        own[row, :count] = True
    counts = np.array([example.bearing(stride) for example in batch], dtype=np.float32)
    move = lambda array: torch.from_numpy(array).to(device)  # noqa: E731
    return Padded(move(ids), move(targets[:, first:].copy()), width - first, move(counts), move(own))


def response_losses(base: BaseModel, batch: Padded) -> Tensor:
    """[rows]: the summed loss of each example's response, in float32."""
    logits = base.model(input_ids=batch.ids, use_cache=False, logits_to_keep=batch.kept).logits
    each = functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="none"
    )
    return each.view_as(batch.targets).sum(dim=1)
