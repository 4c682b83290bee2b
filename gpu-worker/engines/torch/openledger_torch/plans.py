"""Batches of different adapters: each row of a forward pass with its own factors (S-LoRA, Sheng et al. 2023; Punica, Chen et
al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import GatherKernel
from .sites import Site
from .tiers import AdapterTiers

#: Gathered factors of a batch may take this much memory; above it the kernel reads the slots where they are.
GATHER_BYTES = 256 << 20


class MixedPlan:
    """Row i of the batch has the adapter of slot `slots[i]`."""

    def __init__(self, factors: dict[tuple[int, str], tuple[Tensor, Tensor]], targets: frozenset[str]) -> None:
        self._factors = factors
        self._targets = targets

    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        if site.target not in self._targets:
            return y
        a, b = self._factors[site.key]
        return torch.baddbmm(y, torch.bmm(x, a.transpose(1, 2)), b)


class KernelPlan:
    """The same for one token a row, reading the slots in place."""

    def __init__(self, tiers: AdapterTiers, slots: Tensor, targets: frozenset[str], kernel: GatherKernel) -> None:
        self._tiers = tiers
        self._slots = slots
        self._targets = targets
        self._kernel = kernel

    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        if site.target not in self._targets:
            return y
        layout, pool = self._tiers.layout, self._tiers.pool
        assert layout is not None and pool is not None
        a = layout.places[site.layer, site.target, "A"][0]
        b = layout.places[site.layer, site.target, "B"][0]
        return self._kernel.add(x[:, 0], y[:, 0], pool, self._slots, a, b, layout.rank)[:, None]


class MixedPlans:
    """Plans of successive batches; what was gathered is kept while the batch stays the same."""

    def __init__(self, tiers: AdapterTiers, kernel: GatherKernel | None) -> None:
        self._tiers = tiers
        self._kernel = kernel
        self._key: tuple[int, tuple[int, ...]] | None = None
        self._gathered: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        self._held: Tensor | None = None

    def of(self, slots: list[int], targets: frozenset[str], tokens: int, keep: bool):
        """`keep`: the batch is likely to come again (decoding), so that its gathered factors are worth keeping."""
        if not any(slots):
            return None
        tiers = self._tiers
        pool, layout = tiers.pool, tiers.layout
        assert pool is not None and layout is not None
        index = torch.tensor(slots, device=pool.device)
        if self._kernel is not None and tokens == 1 and len(slots) * layout.size * pool.element_size() > GATHER_BYTES:
            return KernelPlan(tiers, index, targets, self._kernel)
        stamps = tuple(tiers.stamps[slot] for slot in slots)
        key = (tiers.version, stamps)
        if key == self._key:
            return MixedPlan(self._gathered, targets)
        if not keep:
            return MixedPlan(layout.views(pool.index_select(0, index)), targets)
        if self._held is None or self._held.shape[1] != layout.size or self._held.shape[0] < len(slots):
            self._held = torch.empty(len(slots), layout.size, device=pool.device, dtype=pool.dtype)
            self._key = None
        rows = self._held[: len(slots)]
        # Rows whose adapter is another than before: one leaves or joins a step, not all.
        before = self._key[1] if self._key is not None and self._key[0] == tiers.version else ()
        changed = [i for i, stamp in enumerate(stamps) if i >= len(before) or before[i] != stamp]
        if len(changed) == len(slots):
            torch.index_select(pool, 0, index, out=rows)
        else:
            for i in changed:
                rows[i].copy_(pool[slots[i]])
        self._key = key
        self._gathered = layout.views(rows)
        return MixedPlan(self._gathered, targets)
