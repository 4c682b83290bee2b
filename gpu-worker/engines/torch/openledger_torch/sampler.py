"""The next token of each row: the embedded engine's sampler (`sampler.ts`), for all rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EngineFault


def sample(logits: Tensor, temperatures: list[float], top_ps: list[float], uniforms: list[float]) -> list[int | EngineFault]:
    """
    logits [rows, vocabulary]; temperature 0 is greedy, and of equal logits the lowest id wins; uniforms in [0, 1).
    A row whose largest logit is no number gives a fault instead of a token.
    """
    best = logits.argmax(dim=-1)
    top = logits.gather(1, best[:, None]).float()
    finite = torch.isfinite(top[:, 0])
    drawn = [i for i, temperature in enumerate(temperatures) if temperature > 0]
    chosen = best
    if drawn:
        chosen = best.clone()
        index = torch.tensor(drawn, device=logits.device)
        column = lambda values: torch.tensor([values[i] for i in drawn], dtype=torch.float64, device=logits.device)[:, None]  # noqa: E731
        rows = torch.exp((logits[index].double() - top[index].double()) / column(temperatures))
        chosen[index] = _draw(rows, column(top_ps), column(uniforms))
    ids, good = chosen.tolist(), finite.tolist()
    return [
        id if ok else EngineFault("DIVERGED", f"the largest logit is {value}")
        for id, ok, value in zip(ids, good, [None] * len(ids) if all(good) else top[:, 0].tolist())
    ]


def _draw(weights: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """One of each row's entries, by weight: among the fewest heaviest that make `top_p` of the whole, or in order of id."""
    total = weights.sum(dim=1, keepdim=True)
    if bool((top_p >= 1).all()):
        return _pick(weights, uniform * total)
    sorted_weights, order = torch.sort(weights, dim=1, descending=True, stable=True)
    mass = sorted_weights.cumsum(dim=1)
    # Those before which the mass has not reached top_p; the first always.
    kept = (mass - sorted_weights) < top_p * total
    kept[:, 0] = True
    likely = torch.where(kept, sorted_weights, 0.0)
    among = order.gather(1, _pick(likely, uniform * likely.sum(dim=1, keepdim=True))[:, None])[:, 0]
    return torch.where(top_p[:, 0] >= 1, _pick(weights, uniform * total), among)


def _pick(weights: Tensor, point: Tensor) -> Tensor:
    over = weights.cumsum(dim=1) > point
    # Rounding may leave the point behind the whole: then the last entry that has a weight.
    last = weights.shape[1] - 1 - (weights > 0).flip(1).to(torch.int8).argmax(dim=1)
    return torch.where(over.any(dim=1), over.to(torch.int8).argmax(dim=1), last)
