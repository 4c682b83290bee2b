"""Batches of different adapters: each row of a forward pass with its own factors (S-LoRA, Sheng et al. 2023; Punica, Chen et
al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from .kernels import GatherKernel
from .sites import Factors, Group
from .tiers import AdapterTiers

#: Of a GPU's memory, what gathered factors of a batch may take; above it the kernel reads the slots where they are.
GATHER_PART = 32


def gather_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory // GATHER_PART if device.type == "cuda" else 256 << 20


@dataclass(frozen=True)
class _GroupFactors:
    """Of the sites of a group that adapters have: their `lora_A` [rows, in, sites · rank], and each one's place and `lora_B`."""

    low: Tensor
    parts: list[tuple[int, int, Tensor]]


class MixedPlan:
    """Row i of the batch has row i of `rows` for factors."""

    def __init__(self, layout: Factors, rows: Tensor) -> None:
        self._layout = layout
        self._rows = rows
        self._factors: dict[Group, _GroupFactors | None] = {}

    def add_all(self, group: Group, x: Tensor, ys: Sequence[Tensor]) -> None:
        if group not in self._factors:
            self._factors[group] = self._of(group)
        factors = self._factors[group]
        if factors is None:
            return
        low = torch.bmm(x, factors.low)
        rank = self._layout.rank
        for place, start, b in factors.parts:
            # In two steps: outputs lie beside those of other layers, where a batched product would go row by row.
            ys[place].add_(torch.bmm(low[..., start : start + rank], b))

    def _of(self, group: Group) -> _GroupFactors | None:
        layout = self._layout
        sites = [site for site in group.sites if (*site.key, "A") in layout.places]
        if not sites:
            return None
        parts = [
            (group.sites.index(site), at * layout.rank, layout.view(self._rows, *site.key, "B"))
            for at, site in enumerate(sites)
        ]
        return _GroupFactors(layout.stacked(self._rows, sites).mT, parts)


class KernelPlan:
    """The same for one token a row, reading the slots in place."""

    def __init__(self, tiers: AdapterTiers, slots: Tensor, kernel: GatherKernel) -> None:
        self._tiers = tiers
        self._slots = slots
        self._kernel = kernel

    def add_all(self, group: Group, x: Tensor, ys: Sequence[Tensor]) -> None:
        layout, pool = self._tiers.layout, self._tiers.pool
        assert layout is not None and pool is not None
        for site, y in zip(group.sites, ys):
            if (*site.key, "A") in layout.places:
                a = layout.places[site.layer, site.target, "A"][0]
                b = layout.places[site.layer, site.target, "B"][0]
                y[:, 0].copy_(self._kernel.add(x[:, 0], y[:, 0], pool, self._slots, a, b, layout.rank))


class MixedPlans:
    """Plans of successive batches; what was gathered is kept while the batch stays the same."""

    def __init__(self, tiers: AdapterTiers, kernel: GatherKernel | None) -> None:
        self._tiers = tiers
        self._kernel = kernel
        self._key: tuple[int, tuple[int, ...]] | None = None
        self._plan: MixedPlan | None = None
        self._held: Tensor | None = None
        #: Which of all allocations kept factors lie in.
        self.held = 0

    def large(self, rows: int) -> bool:
        """Whether so many rows' factors are read where they lie, a token each."""
        layout, pool = self._tiers.layout, self._tiers.pool
        assert pool is not None and layout is not None
        return self._kernel is not None and rows * layout.size * pool.element_size() > gather_bytes(pool.device)

    def within(self, slots: Tensor, tokens: int) -> "MixedPlan | KernelPlan":
        """Of slots on the device."""
        layout, pool = self._tiers.layout, self._tiers.pool
        assert pool is not None and layout is not None
        if self._kernel is not None and tokens == 1 and self.large(slots.shape[0]):
            return KernelPlan(self._tiers, slots, self._kernel)
        return MixedPlan(layout, pool.index_select(0, slots))

    def of(self, slots: list[int], tokens: int, keep: bool):
        """`keep`: the batch is likely to come again (decoding), so that its gathered factors are worth keeping."""
        if not any(slots):
            return None
        tiers = self._tiers
        pool, layout = tiers.pool, tiers.layout
        assert pool is not None and layout is not None
        if tokens == 1 and self.large(len(slots)):
            return self.within(torch.tensor(slots, device=pool.device), tokens)
        if not keep:
            one = len(slots) == 1
            rows = pool[slots[0]][None] if one else pool.index_select(0, torch.tensor(slots, device=pool.device))
            return MixedPlan(layout, rows)
        stamps = tuple(tiers.stamps[slot] for slot in slots)
        key = (tiers.version, stamps)
        if key == self._key:
            return self._plan
        if self._held is None or self._held.shape[1] != layout.size or self._held.shape[0] < len(slots):
            self._held = torch.empty(len(slots), layout.size, device=pool.device, dtype=pool.dtype)
            self._key = None
            self.held += 1
        rows = self._held[: len(slots)]
        # Rows whose adapter is another than before: one leaves or joins a step, not all.
        before = self._key[1] if self._key is not None and self._key[0] == tiers.version else ()
        for i, stamp in enumerate(stamps):
            if i >= len(before) or before[i] != stamp:
                rows[i].copy_(pool[slots[i]])
        if self._plan is None or self._key is None or self._key[0] != tiers.version or len(before) != len(stamps):
            self._plan = MixedPlan(layout, rows)
        self._key = key
        return self._plan
