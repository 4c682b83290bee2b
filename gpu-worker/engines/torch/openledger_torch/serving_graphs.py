"""A server's forward passes as CUDA graphs: steps of decoding, and prompts of few tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import BaseModel
from .cache import RaggedCache
from .graphs import MOST_TOKENS, TOKENS, Graphs, rounded
from .plans import MixedPlans
from .tiers import AdapterTiers

#: Sequences: what is in between is padded.
ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
#: Positions that are looked back at are rounded up to this.
SEEN = 128
#: Graphs that are kept.
MOST = 128


class ServingGraphs:
    """Forward passes of a server's batches."""

    def __init__(
        self, base: BaseModel, tiers: AdapterTiers, cache: RaggedCache, plans: MixedPlans, batch: int, rehearse: bool = False
    ) -> None:
        """`cache` has a row more than `batch`: for the padding of prompts. `rehearse`: bodies are run, not recorded."""
        self._base = base
        self._tiers = tiers
        self._cache = cache
        self._plans = plans
        self._batch = batch
        self._graphs = Graphs(base.device, MOST, rehearse)
        self._version: tuple | None = None

    def forward(self, ids: list[list[int]], rows: list[int], starts: list[int], slots: list[int], lasts: list[int]) -> Tensor | None:
        """
        Logits [n, vocabulary] of the tokens at `lasts`; None where there is no graph for it. One token each of rows 0 … n − 1
        is a step of decoding.
        """
        count, tokens = len(rows), len(ids[0])
        step = tokens == 1 and rows == list(range(count))
        padded = rounded(count, ROWS) if count <= self._batch else None
        width = 1 if step else rounded(tokens, TOKENS)
        if not self._graphs.on or padded is None or width is None or padded * width > MOST_TOKENS:
            return None
        padded = min(padded, self._batch)
        seen = -(-(max(starts) + width) // SEEN) * SEEN
        cache = self._cache
        if not step and max(starts) + width > cache.capacity:
            return None
        cache.reserve(max(starts) + width)
        seen = min(seen, cache.capacity)
        adapters = any(slots)
        spare = padded - count
        all_slots = slots + [0] * spare
        # What recorded graphs read must still be where it was.
        version = (cache.version, self._tiers.version)
        if version != self._version:
            self._graphs.clear()
            self._version = version
        gathered = step and adapters and not self._plans.large(padded)
        plan = self._plans.of(all_slots, 1, True) if gathered else None
        key = (step, padded, width, seen, adapters, self._plans.held if gathered else 0)
        idle = list(range(count, padded)) if step else [self._batch] * spare
        flat = [
            *(id for row in ids for id in row + [0] * (width - tokens)), *[0] * (spare * width),
            *rows, *idle, *starts, *[0] * spare, *lasts, *[0] * spare, *all_slots,
        ]
        device = self._base.device
        size = padded * width

        def make() -> Tensor:
            return torch.zeros(size + 4 * padded, dtype=torch.int64, device=device)

        def write(inputs: Tensor) -> None:
            inputs.copy_(torch.tensor(flat))

        def body(inputs: Tensor) -> Tensor:
            read, index, first, last, which = inputs.split([size, padded, padded, padded, padded])
            masks = cache.place(None if step else index, first, width, seen)
            used = plan if gathered or not adapters else self._plans.within(which, width)
            with self._base.sites.using(used):
                return self._base.lean.decode(read.view(padded, width), cache, masks, None if step else last)

        return self._graphs.run(key, write, make, body)[:count]

    def clear(self) -> None:
        self._graphs.clear()
