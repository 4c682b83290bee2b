"""
A pass forward and backward that leaves the gradients of single examples behind, for models without transformers' modules. Layers with
the same input are one step of autograd's graph, which knows what LoRA adds to them: with x [tokens, in], slopes Δ [tokens, out],

    y = x Wᵀ + (x Aᵀ) sB      ∂/∂A = (Δ sBᵀ)ᵀ x      ∂/∂B = s (x Aᵀ)ᵀ Δ      ∂/∂x = Δ W + (Δ sBᵀ) A

(A [rank, in], B [rank, out], s = alpha / rank): a third of the calls that hooks on each layer's own graph take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import torch
from torch import Tensor

from .base import BaseModel
from .sites import Factors, Group


@dataclass(frozen=True)
class _Part:
    """A site of a group: its columns, its matrices ([rank, hidden], or one a row), and where their gradients go [rows, rank, hidden]."""

    columns: slice
    a: Tensor
    b: Tensor
    into: tuple[Tensor, Tensor] | None


class GradientPlan:
    def __init__(self, whole: Factors, flat: Tensor, own: Factors, out: Tensor, from_layer: int) -> None:
        """
        `flat` [whole.size] for all rows or [rows, whole.size], `lora_B` times the scale. Of layers from `from_layer` on gradients
        are written to `out` [rows, own.size]: those of `lora_B` are still to be multiplied by the scale.
        """
        self._whole = whole
        self._flat = flat
        self._own = own
        self._out = out
        self._from = from_layer
        # What makes the first attributed layer part of the graph, although nothing before it is.
        self._anchor = torch.zeros((), device=out.device, requires_grad=True)

    def whole(self, group: Group, x: Tensor) -> Tensor:
        parts = self._parts(group)
        if not parts:
            return group.product(x)
        if parts[0].into is None or not torch.is_grad_enabled():
            return _forward(group, parts, x)[0]
        return _Probed.apply(x, self._anchor, group, parts)

    def _parts(self, group: Group) -> list[_Part]:
        parts = []
        at = 0
        for site in group.sites:
            columns = slice(at, at + site.outputs)
            at += site.outputs
            if (*site.key, "A") not in self._whole.places:
                continue
            a, b = (self._whole.view(self._flat, *site.key, side) for side in "AB")
            wanted = site.layer >= self._from
            into = tuple(self._own.view(self._out, *site.key, side) for side in "AB") if wanted else None
            parts.append(_Part(columns, a, b, into))
        return parts


def _stacked(matrices: Sequence[Tensor]) -> Tensor:
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices), dim=-2)


def _forward(group: Group, parts: Sequence[_Part], x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs; and x Aᵀ of all parts beside each other."""
    y = group.product(x)
    low = torch.matmul(x, _stacked([part.a for part in parts]).mT)
    rank = parts[0].a.shape[-2]
    for at, part in enumerate(parts):
        some = low[..., at * rank : (at + 1) * rank]
        if part.b.dim() == 2 and y.device.type == "cuda":
            y.flatten(0, 1)[:, part.columns].addmm_(some.flatten(0, 1), part.b)
        else:
            # In two steps: outputs lie beside others', where the CPU's and batched products go row by row.
            y[..., part.columns].add_(torch.matmul(some, part.b))
    return y, low


class _Probed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, group: Group, parts: list[_Part]) -> Tensor:
        y, low = _forward(group, parts, x)
        ctx.save_for_backward(x, low)
        ctx.group, ctx.parts = group, parts
        return y

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, low = ctx.saved_tensors
        group, parts = ctx.group, ctx.parts
        dy = slopes[0].contiguous()
        rank = parts[0].a.shape[-2]
        inner = [torch.matmul(dy[..., part.columns], part.b.mT) for part in parts]
        for at, (part, slope) in enumerate(zip(parts, inner)):
            assert part.into is not None
            into_a, into_b = part.into
            torch.bmm(slope.mT, x, out=into_a)
            torch.bmm(low[..., at * rank : (at + 1) * rank].mT, dy[..., part.columns], out=into_b)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        dx = group.product.slope(dy)
        slope = inner[0] if len(inner) == 1 else torch.cat(inner, dim=-1)
        a = _stacked([part.a for part in parts])
        if a.dim() == 2:
            dx.view(-1, dx.shape[-1]).addmm_(slope.flatten(0, 1), a)
        else:
            dx.baddbmm_(slope, a)
        return dx, None, None, None


def multipliers(base: BaseModel, factors: Factors, scale: float | Tensor) -> Tensor:
    """[factors.size]: the scale at entries of `lora_B`, 1 elsewhere."""
    key = (factors.rank, *factors.names)
    side = base.sides.get(key)
    if side is None:
        parts = [torch.full((length,), "lora_B" in name) for name, length in zip(factors.names, factors.lengths())]
        side = base.sides[key] = torch.cat(parts).to(base.device)
        while len(base.sides) > 8:
            del base.sides[next(iter(base.sides))]
    one = torch.ones((), device=base.device)
    return torch.where(side, scale if isinstance(scale, Tensor) else one * scale, one)


def scaled(base: BaseModel, factors: Factors, flats: Sequence[Tensor], scales: Sequence[float | Tensor]) -> Tensor:
    """Flat factors, a row each, with the scale in `lora_B`: [rows, size]."""
    out = flats[0].new_empty(len(flats), factors.size)
    for row, flat, scale in zip(out, flats, scales):
        torch.mul(flat, multipliers(base, factors, scale), out=row)
    return out


def rescale(base: BaseModel, factors: Factors, out: Tensor, scales: Sequence[float | Tensor]) -> None:
    """What {@link GradientPlan} leaves to be done. One scale for all rows, or one for each."""
    for rows, scale in zip(out.split(len(out) // len(scales)), scales):
        rows.mul_(multipliers(base, factors, scale))
