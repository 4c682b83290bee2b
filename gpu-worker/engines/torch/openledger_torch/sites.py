"""
Where LoRA is put into a base model: a forward hook on each linear layer that may be a target. The base stays as
transformers built it, one copy in memory for serving, training and gradients; what a forward pass adds is its *plan*.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, Protocol, Sequence

import torch
from torch import Tensor, nn


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


class SiteHooks:
    def __init__(self, sites: Sequence[Site]) -> None:
        self.all = list(sites)
        self._by_key = {site.key: site for site in sites}
        self._plan: Plan | None = None
        for site in sites:
            site.module.register_forward_hook(self._hook(site))

    def __getitem__(self, key: tuple[int, str]) -> Site:
        return self._by_key[key]

    def of(self, targets: Sequence[str], from_layer: int = 0) -> list[Site]:
        wanted = set(targets)
        return [site for site in self.all if site.layer >= from_layer and site.target in wanted]

    @contextmanager
    def using(self, plan: Plan | None) -> Iterator[None]:
        before = self._plan
        self._plan = plan
        try:
            yield
        finally:
            self._plan = before

    def _hook(self, site: Site):
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            plan = self._plan
            return None if plan is None else plan.apply(site, inputs[0], output)

        return hook


class Head:
    """The model's last linear layer, which a pass may want at some positions only: of hundreds of thousands of columns, it
    is a good part of a small model's arithmetic."""

    def __init__(self, module: nn.Module) -> None:
        self._places: Tensor | None = None
        module.register_forward_pre_hook(self._hook)

    @contextmanager
    def at(self, places: Tensor) -> Iterator[None]:
        """Within, logits are [1, n, vocabulary]: at `places` [n] of all rows' positions, one row after the other."""
        self._places = places
        try:
            yield
        finally:
            self._places = None

    def _hook(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if self._places is None:
            return None
        return (inputs[0].flatten(0, 1).index_select(0, self._places)[None],)


class Factors:
    """
    An adapter's matrices as one flat float32 vector in the layout of gradients (`attribution/layout.ts`): ascending by
    PEFT name, `lora_A` [rank, in], `lora_B` turned to [rank, out].
    """

    def __init__(self, sites: Sequence[Site], rank: int) -> None:
        self.rank = rank
        self.sites = list(sites)
        sizes = {f"{s.path}.lora_{side}.weight": (s, side) for s in sites for side in "AB"}
        self.names = sorted(sizes)
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

    def views(self, flat: Tensor) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
        return {
            site.key: (self.view(flat, *site.key, "A"), self.view(flat, *site.key, "B")) for site in self.sites
        }


class SharedPlan:
    """One adapter for all rows."""

    def __init__(self, factors: dict[tuple[int, str], tuple[Tensor, Tensor]], scale: float) -> None:
        self._factors = factors
        self._scale = scale

    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        pair = self._factors.get(site.key)
        if pair is None:
            return y
        a, b = pair
        low = torch.matmul(x, a.to(x.dtype).t())
        flat = torch.addmm(y.flatten(0, -2), low.flatten(0, -2), b.to(x.dtype), alpha=self._scale)
        return flat.view_as(y)
