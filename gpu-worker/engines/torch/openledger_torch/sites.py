"""
Where LoRA is put into a base model: each linear layer that may be a target computes its output here. The base stays as
transformers built it, one copy in memory for serving, training and gradients; what a forward pass adds is its *plan*.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Iterator, Protocol, Sequence

import torch
from torch import Tensor, nn

from .linears import Product, joined
from .precision import Precision

#: Targets that read the same input, by the names that transformers gives them everywhere.
SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True)
class Site:
    layer: int
    target: str
    #: PEFT's name of the module.
    path: str
    inputs: int
    outputs: int
    module: nn.Linear

    @property
    def key(self) -> tuple[int, str]:
        return (self.layer, self.target)


class Plan(Protocol):
    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """The layer's output with what the adapters add: x [rows, tokens, in], y [rows, tokens, out]."""


class GroupPlan(Protocol):
    """A plan that adds to layers with the same input at a time."""

    def add_all(self, group: "Group", x: Tensor, ys: Sequence[Tensor]) -> None:
        """Adds to the outputs `ys` of the group's sites in place: for passes that nobody differentiates."""


class WholePlan(Protocol):
    """A plan that computes the outputs of layers with the same input itself; only models without transformers' modules take it."""

    def whole(self, group: "Group", x: Tensor) -> Tensor:
        """x [rows, tokens, in]; all outputs beside each other."""


class Group:
    """Sites with the same input: one product for all of them, when the first is called. The others take what is theirs."""

    def __init__(self, sites: Sequence[Site], product: Product, hooks: "SiteHooks") -> None:
        self.sites = list(sites)
        self.product = product
        self._hooks = hooks
        self._sizes = [site.outputs for site in sites]
        self._x: Tensor | None = None
        self._ys: list[Tensor | None] = []
        for at, site in enumerate(self.sites):
            site.module.forward = partial(self._part, at)  # type: ignore[method-assign]

    def _part(self, at: int, x: Tensor) -> Tensor:
        if self._x is not x or self._ys[at] is None:
            self._x, self._ys = x, list(self._outputs(x))
        y = self._ys[at]
        assert y is not None
        self._ys[at] = None
        if not any(each is not None for each in self._ys):
            self._x = None
        return y

    def _outputs(self, x: Tensor) -> Sequence[Tensor]:
        plan = self._hooks.plan
        y = self.product(x)
        ys = self._split(y)
        if plan is None:
            return ys
        if self._hooks.grouped:
            plan.add_all(self, x, ys)
            return ys
        return [plan.apply(site, x, each) for site, each in zip(self.sites, ys)]

    def whole(self, x: Tensor) -> Tensor:
        """All outputs beside each other, with what the plan adds."""
        plan = self._hooks.plan
        if hasattr(plan, "whole"):
            return plan.whole(self, x)
        y = self.product(x)
        if plan is None:
            return y
        if self._hooks.grouped:
            plan.add_all(self, x, self._split(y))
            return y
        ys = [plan.apply(site, x, each) for site, each in zip(self.sites, self._split(y))]
        return ys[0] if len(ys) == 1 else torch.cat(ys, dim=-1)

    def _split(self, y: Tensor) -> Sequence[Tensor]:
        return (y,) if len(self._sizes) == 1 else y.split(self._sizes, dim=-1)


class SiteHooks:
    def __init__(self, sites: Sequence[Site], precision: Precision, packs: bool) -> None:
        self.all = list(sites)
        self._by_key = {site.key: site for site in sites}
        self.plan: Any = None
        #: Whether it is a `GroupPlan`.
        self.grouped = False
        self.groups = [
            Group(some, Product(precision, *joined([site.module for site in some]), packs), self)
            for some in _with_one_input(sites)
        ]

    def __getitem__(self, key: tuple[int, str]) -> Site:
        return self._by_key[key]

    def of(self, targets: Sequence[str], from_layer: int = 0) -> list[Site]:
        wanted = set(targets)
        return [site for site in self.all if site.layer >= from_layer and site.target in wanted]

    @contextmanager
    def using(self, plan: "Plan | GroupPlan | WholePlan | None") -> Iterator[None]:
        before = self.plan, self.grouped
        self.plan, self.grouped = plan, hasattr(plan, "add_all")
        try:
            yield
        finally:
            self.plan, self.grouped = before


def _with_one_input(sites: Sequence[Site]) -> list[list[Site]]:
    """Neighbours that transformers' attention and feed-forward blocks call with the same tensor."""
    groups: dict[tuple, list[Site]] = {}
    for site in sites:
        name = next((names for names in SHARED_INPUT if site.target in names), (site.target,))
        groups.setdefault((site.layer, name, site.inputs, site.module.bias is None), []).append(site)
    return list(groups.values())


class Head:
    """The model's last linear layer, which a pass may want at some positions only: of hundreds of thousands of columns, it
    is a good part of a small model's arithmetic."""

    def __init__(self, module: nn.Linear, precision: Precision, packs: bool) -> None:
        self._places: Tensor | None = None
        self.product = Product(precision, *joined([module]), packs)
        module.forward = self._forward  # type: ignore[method-assign]

    @contextmanager
    def at(self, places: Tensor) -> Iterator[None]:
        """Within, logits are [1, n, vocabulary]: at `places` [n] of all rows' positions, one row after the other."""
        self._places = places
        try:
            yield
        finally:
            self._places = None

    def _forward(self, x: Tensor) -> Tensor:
        return self.product(x if self._places is None else x.flatten(0, 1).index_select(0, self._places)[None])


class Factors:
    """
    An adapter's matrices as one flat float32 vector in the layout of gradients (`attribution/layout.ts`): ascending by
    PEFT name, `lora_A` [rank, in], `lora_B` turned to [rank, out]. `grouped`: in the order that serving reads them, the
    `lora_A` of sites with the same input one behind the other.
    """

    def __init__(self, sites: Sequence[Site], rank: int, grouped: bool = False) -> None:
        self.rank = rank
        self.sites = list(sites)
        sizes = {f"{s.path}.lora_{side}.weight": (s, side) for s in sites for side in "AB"}
        self.names = sorted(sizes)
        if grouped:
            runs = _with_one_input(self.sites)
            self.names = [f"{s.path}.lora_{side}.weight" for run in runs for side in "AB" for s in run]
        self.places: dict[tuple[int, str, str], tuple[int, int]] = {}
        at = 0
        for name in self.names:
            site, side = sizes[name]
            hidden = site.inputs if side == "A" else site.outputs
            self.places[site.layer, site.target, side] = (at, hidden)
            at += rank * hidden
        self.size = at
        self.of_name = {name: (site.layer, site.target, side) for name, (site, side) in sizes.items()}

    def view(self, flat: Tensor, layer: int, target: str, side: str) -> Tensor:
        at, hidden = self.places[layer, target, side]
        return flat[..., at : at + self.rank * hidden].view(*flat.shape[:-1], self.rank, hidden)

    def lengths(self) -> list[int]:
        """Entries of each matrix, in order."""
        return [self.rank * self.places[self.of_name[name]][1] for name in self.names]

    def stacked(self, flat: Tensor, sites: Sequence[Site]) -> Tensor:
        """The `lora_A` of neighbours with the same input, of a grouped layout: [.., sites · rank, in]."""
        at, hidden = self.places[(*sites[0].key, "A")]
        rows = len(sites) * self.rank
        return flat[..., at : at + rows * hidden].view(*flat.shape[:-1], rows, hidden)

    def views(self, flat: Tensor) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
        return {
            site.key: (self.view(flat, *site.key, "A"), self.view(flat, *site.key, "B")) for site in self.sites
        }


def with_lora(x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    """
    `y + scale (x Aᵀ) B` and `x Aᵀ`, for x [rows, tokens, in], y [rows, tokens, out]. One adapter for all rows: a [rank, in], b [rank,
    out], `scale` a number. Several, each of as many neighbouring rows: a [adapters, rank, in], b alike, `scale` a number or [adapters, 1, 1].
    """
    if a.dim() == 2:
        low = torch.matmul(x, a.mT)
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b, alpha=scale).view_as(y), low
    low = torch.bmm(x.reshape(len(a), -1, x.shape[-1]), a.mT)
    apart = y.reshape(len(a), -1, y.shape[-1])
    out = torch.baddbmm(apart, low * scale, b) if isinstance(scale, Tensor) else torch.baddbmm(apart, low, b, alpha=scale)
    return out.view(y.shape), low.view(*x.shape[:-1], -1)


class SharedPlan:
    """One adapter for all rows, or several, each of as many neighbouring ones."""

    def __init__(self, factors: dict[tuple[int, str], tuple[Tensor, Tensor]], scale: float) -> None:
        self._factors = factors
        self._scale = scale

    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        pair = self._factors.get(site.key)
        if pair is None:
            return y
        a, b = (matrix.to(x.dtype) for matrix in pair)
        return with_lora(x, y, a, b, self._scale)[0]
