"""
Gradients of single examples with respect to an adapter's matrices, and K-FAC's sums (Martens & Grosse 2015), a batch at a
time. Of a linear layer's output only the slope δ is needed: for an example with inputs X [tokens, in] and slopes Δ
[tokens, out], with s = alpha / rank,

    ∂/∂A = s (Δ B)ᵀ X          ∂/∂Bᵀ = s (A Xᵀ) Δ

Padding behind an example has no slope, since causal attention keeps it from the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .adapters import Lora, factors_of
from .base import BaseModel
from .errors import EngineFault
from .examples import Example, Padded, batches, check_example, pad, response_losses
from .passes import GradientPlan, rescale, scaled
from .sites import Factors, Site, with_lora

#: Called with a site, its inputs x [rows, tokens, in], A x [rows, tokens, rank], δ B [rows, tokens, rank], δ [rows, tokens, out].
Visit = Callable[[Site, Tensor, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Scope:
    """What a gradient is of: its matrices' first layer, and that one in `stride` response tokens bears the loss."""

    from_layer: int = 0
    stride: int = 1


class ProbePlan:
    """
    Adapters, and a hook on the slope of each output from layer `from_layer` on. One for all rows: `views` [rank, hidden],
    `scale` a number. One a row: `views` [rows, rank, hidden], `scale` [rows, 1, 1].
    """

    def __init__(self, views: dict, scale: float | Tensor, from_layer: int, visit: Visit) -> None:
        self._views = views
        self._scale = scale
        self._from = from_layer
        self._visit = visit

    def apply(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        pair = self._views.get(site.key)
        if pair is None:
            return y
        a, b = (matrix.to(x.dtype) for matrix in pair)
        out, low = with_lora(x, y, a, b, self._scale)
        if site.layer < self._from:
            return out
        if not out.requires_grad:
            # The graph begins here: nothing before this layer is differentiated.
            out.requires_grad_(True)
        x, low = x.detach(), low.detach()

        def slope(dy: Tensor) -> None:
            dy = dy.detach()
            self._visit(site, x, low, torch.matmul(dy, b.mT), dy)

        out.register_hook(slope)
        return out


def _differentiate(
    base: BaseModel, batch: Padded, plan: ProbePlan | GradientPlan, mean: bool, from_layer: int = 0
) -> Tensor:
    with torch.enable_grad(), base.precision.wide(), base.sites.using(plan):
        sums = response_losses(base, batch, from_layer)
        (sums / batch.counts if mean else sums).sum().backward()
    return sums.detach()


def _checked(base: BaseModel, examples: Sequence[Example], lora: Lora, from_layer: int) -> Factors:
    if type(from_layer) is not int or not 0 <= from_layer < base.layers:
        raise EngineFault("BAD_REQUEST", f"layer {from_layer} of {base.layers}")
    for example in examples:
        check_example(base, example)
    return factors_of(base, lora, from_layer=from_layer)


def losses(base: BaseModel, examples: Sequence[Example], plan, micro_tokens: int) -> Iterator[Tensor]:
    """Mean losses of each batch's examples, in order."""
    for example in examples:
        check_example(base, example)
    for batch in batches(base, examples, micro_tokens, 64):
        padded = pad(batch, base.device)
        with torch.no_grad(), base.precision.wide(), base.sites.using(plan):
            yield response_losses(base, padded) / padded.counts


def check_scope(base: BaseModel, examples: Sequence[Example], lora: Lora, scope: Scope) -> None:
    """Faults: BAD_REQUEST, BAD_EXAMPLE."""
    if type(scope.stride) is not int or scope.stride < 1:
        raise EngineFault("BAD_REQUEST", f"a stride of {scope.stride}")
    _checked(base, examples, lora, scope.from_layer)


def gradient_rows(
    base: BaseModel, batch: Sequence[Example], adapters: Sequence[tuple[Lora, Tensor]], scope: Scope
) -> tuple[Tensor, Tensor]:
    """
    One pass over `batch`, example i with the factors of `adapters[i]` (of one rank, on the same targets): gradients of the
    examples' mean losses [rows, size] and these losses [rows], on the device.
    """
    lora, flat = adapters[0]
    whole, factors = factors_of(base, lora), factors_of(base, lora, from_layer=scope.from_layer)
    alone = all(other is flat for _, other in adapters)
    padded = pad(batch, base.device, scope.stride)
    out = torch.zeros(len(batch), factors.size, device=base.device)
    scales = [each.scale for each, _ in (adapters[:1] if alone else adapters)]
    if base.lean is not None:
        flats = scaled(base, whole, [flat] if alone else [other for _, other in adapters], scales)
        pass_plan = GradientPlan(whole, flats[0] if alone else flats, factors, out, scope.from_layer)
        sums = _differentiate(base, padded, pass_plan, True, scope.from_layer)
        rescale(base, factors, out, scales)
        return out, sums / padded.counts
    scale: float | Tensor = lora.scale
    if not alone:
        flat = torch.stack([other for _, other in adapters])
        scale = torch.tensor(scales, device=base.device)[:, None, None]

    def visit(site: Site, x: Tensor, low: Tensor, slope: Tensor, dy: Tensor) -> None:
        a = torch.bmm(slope.transpose(1, 2), x)
        b = torch.bmm(low.transpose(1, 2), dy)
        torch.mul(a, scale, out=factors.view(out, *site.key, "A"))
        torch.mul(b, scale, out=factors.view(out, *site.key, "B"))

    plan = ProbePlan(whole.views(flat), scale, scope.from_layer, visit)
    sums = _differentiate(base, padded, plan, True)
    return out, sums / padded.counts


def gradients(
    base: BaseModel,
    examples: Sequence[Example],
    lora: Lora,
    flat: Tensor,
    scope: Scope,
    micro_tokens: int,
    most: int = 64,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each batch, in order, what {@link gradient_rows} gives."""
    check_scope(base, examples, lora, scope)
    for batch in batches(base, examples, micro_tokens, most, scope.stride):
        yield gradient_rows(base, batch, [(lora, flat)] * len(batch), scope)


class Covariances:
    """Sums over tokens that are read, of the summed loss; float64 between batches."""

    def __init__(self, base: BaseModel, lora: Lora, flat: Tensor, from_layer: int, block: int) -> None:
        if type(block) is not int or block < 1:
            raise EngineFault("BAD_REQUEST", f"blocks of {block}")
        self._base = base
        self._lora = lora
        self._from = from_layer
        self._block = block
        self._factors = _checked(base, [], lora, from_layer)
        self._views = factors_of(base, lora).views(flat)
        self._sums: dict[tuple[int, str, str, str], Tensor] = {}

    def add(self, batch: Sequence[Example]) -> None:
        padded = pad(batch, self._base.device)
        own = padded.own
        square = self._lora.scale**2

        def visit(site: Site, x: Tensor, low: Tensor, slope: Tensor, dy: Tensor) -> None:
            x, low, slope, dy = (each[own].float() for each in (x, low, slope, dy))
            self._sum(site, "A", "hidden", self._blocks(x))
            self._sum(site, "A", "rank", slope.t() @ slope * square)
            self._sum(site, "B", "rank", low.t() @ low)
            self._sum(site, "B", "hidden", self._blocks(dy) * square)

        plan = ProbePlan(self._views, self._lora.scale, self._from, visit)
        _differentiate(self._base, padded, plan, False)

    def finish(self) -> list[tuple[Tensor, Tensor]]:
        """Rank and hidden sides (float64, flat, on the CPU), in the order of the layout."""
        out = []
        for name in self._factors.names:
            key = self._factors.of_name[name]
            hidden = self._factors.places[key][1]
            blank = torch.zeros(self._blocks(torch.zeros(1, hidden)).numel(), dtype=torch.float64)
            rank = self._sums.get((*key, "rank"), torch.zeros(self._factors.rank**2, dtype=torch.float64))
            out.append((rank.flatten().cpu(), self._sums.get((*key, "hidden"), blank).flatten().cpu()))
        return out

    def _sum(self, site: Site, side: str, what: str, value: Tensor) -> None:
        key = (site.layer, site.target, side, what)
        value = value.double()
        self._sums[key] = value if key not in self._sums else self._sums[key] + value

    def _blocks(self, y: Tensor) -> Tensor:
        """`Σ y yᵀ` over the rows, diagonal blocks one after the other, row-major; the last may be narrower."""
        hidden, block = y.shape[1], self._block
        whole = hidden // block
        parts = []
        if whole > 0:
            cut = y[:, : whole * block].reshape(-1, whole, block).transpose(0, 1)
            parts.append(torch.bmm(cut.transpose(1, 2), cut).flatten())
        if hidden % block != 0:
            rest = y[:, whole * block :]
            parts.append((rest.t() @ rest).flatten())
        return torch.cat(parts)
