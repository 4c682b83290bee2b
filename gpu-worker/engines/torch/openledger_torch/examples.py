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

#: Bytes that the logits of one batch may take in float32, with their gradient about twice. Only tokens with loss have any.
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


class Room:
    """What one padded batch may hold: `most` examples, `tokens` with padding, logits of `LOGIT_BYTES`; one example always."""

    def __init__(self, base: BaseModel, tokens: int, most: int, stride: int = 1) -> None:
        self._tokens = tokens
        self._most = most
        self._stride = stride
        self._bearing = LOGIT_BYTES // (4 * base.vocabulary)
        self._count = 0
        self._longest = 0
        self._borne = 0

    def take(self, example: Example) -> bool:
        """Whether there is room for it too; then it has it."""
        longest = max(self._longest, len(example.tokens))
        borne = self._borne + example.bearing(self._stride)
        full = self._count == self._most or longest * (self._count + 1) > self._tokens or borne > self._bearing
        if self._count > 0 and full:
            return False
        self._count, self._longest, self._borne = self._count + 1, longest, borne
        return True


def batches(
    base: BaseModel, examples: Sequence[Example], tokens: int, most: int, stride: int = 1
) -> Iterator[list[Example]]:
    """Neighbours, as many as there is room for."""
    batch: list[Example] = []
    room = Room(base, tokens, most, stride)
    for example in examples:
        if not room.take(example):
            yield batch
            batch, room = [], Room(base, tokens, most, stride)
            room.take(example)
        batch.append(example)
    if batch:
        yield batch


@dataclass(frozen=True)
class Padded:
    #: [rows, tokens]: all but each example's last token, zeros behind. Causal attention never sees what is behind.
    ids: Tensor
    #: [n], ascending in [0, rows · tokens): the positions whose prediction bears the loss. targets [n]: what they predict.
    places: Tensor
    targets: Tensor
    #: Response tokens a row that bear the loss.
    counts: Tensor
    #: [rows, tokens]: whether a position is the example's own.
    own: Tensor


def pad(batch: Sequence[Example], device: torch.device, stride: int = 1) -> Padded:
    width = max(len(example.tokens) for example in batch) - 1
    ids = np.zeros((len(batch), width), dtype=np.int64)
    targets = np.full((len(batch), width), -100, dtype=np.int64)
    own = np.zeros((len(batch), width), dtype=bool)
    for row, example in enumerate(batch):
        count = len(example.tokens) - 1
        ids[row, :count] = example.tokens[:-1]
        targets[row, example.start - 1 : count : stride] = example.tokens[example.start :: stride]
        own[row, :count] = True
    targets = targets.reshape(-1)
    places = np.flatnonzero(targets >= 0)
    counts = np.array([example.bearing(stride) for example in batch], dtype=np.float32)
    move = lambda array: torch.from_numpy(array).to(device)  # noqa: E731
    return Padded(move(ids), move(places), move(targets[places]), move(counts), move(own))


def token_losses(base: BaseModel, ids: Tensor, places: Tensor, targets: Tensor, from_layer: int = 0) -> Tensor:
    """
    [n]: losses at `places` [n] of all positions of ids [rows, tokens], in float32; differentiable from layer `from_layer` on. The
    head sees no token but those with loss.
    """
    if base.lean is not None:
        logits = base.lean.read(ids, places, from_layer)
    else:
        with base.head.at(places):
            logits = base.model(input_ids=ids, use_cache=False).logits[0]
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def response_losses(base: BaseModel, batch: Padded, from_layer: int = 0) -> Tensor:
    """[rows]: the summed loss of each example's response."""
    each = token_losses(base, batch.ids, batch.places, batch.targets, from_layer)
    return each.new_zeros(batch.ids.numel()).index_copy(0, batch.places, each).view(batch.ids.shape).sum(dim=1)
