"""
Attribution methods side by side, on the device: each gives a score of every training record for every query. What ours is made of
is the engine's own (`features.py`); the others are those of `test/bench/attribution/methods.ts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openledger_torch.adapters import Lora, factors_of
from openledger_torch.attribution import Covariances, Scope, gradients
from openledger_torch.base import BaseModel
from openledger_torch.eigenbases import Layout, Turn, divisors, eigenbases_of, symmetric_eigen
from openledger_torch.examples import Example, batches
from openledger_torch.sketches import Sketch, principal_directions, project, split_mix64

#: LoGra's side of what is kept of a linear map.
DIRECTIONS = 8


@dataclass(frozen=True)
class Method:
    name: str
    #: Bytes kept a record; None: its text.
    bytes: int | None
    #: [query, record]
    scores: np.ndarray
    #: Of ours: the sketch's width, k, whether in int8.
    sketch: tuple[int, int, bool] | None = None
    #: What else there is to say: part of the energy kept, cosine kept by int8.
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gradients:
    """At one adapter: of records [n, size] and of queries [q, size] on the device, and K-FAC's sums."""

    layout: Layout
    rows: Tensor
    queries: Tensor
    covariances: list[tuple[Tensor, Tensor]]


def gradients_of(base: BaseModel, lora: Lora, flat: Tensor, examples: Sequence[Example], micro_tokens: int) -> Tensor:
    found = gradients(base, examples, lora, flat, Scope(), micro_tokens)
    return torch.cat([rows for rows, _ in found])


def gather(
    base: BaseModel,
    lora: Lora,
    flat: Tensor,
    records: Sequence[Example],
    queries: Sequence[Example],
    block: int,
    micro_tokens: int,
) -> Gradients:
    factors = factors_of(base, lora)
    layout = Layout(tuple((lora.rank, factors.places[factors.of_name[name]][1]) for name in factors.names), block)
    sums = Covariances(base, lora, flat, 0, block)
    for batch in batches(base, records, micro_tokens, 64):
        sums.add(batch)
    return Gradients(
        layout,
        gradients_of(base, lora, flat, records, micro_tokens),
        gradients_of(base, lora, flat, queries, micro_tokens),
        [(rank.to(base.device), hidden.to(base.device)) for rank, hidden in sums.finish()],
    )


def dots(queries: Tensor, rows: Tensor) -> np.ndarray:
    return (queries @ rows.T).double().cpu().numpy()


def unit(rows: Tensor) -> Tensor:
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, rows / norms, torch.zeros_like(rows))


# ---- what ours is compared with ------------------------------------------------------------------------------------


def gradient_dot(material: Gradients) -> Method:
    return Method("gradient dot product", 4 * material.layout.size, dots(material.queries, material.rows))


def data_inf(material: Gradients, c: float = 0.1) -> Method:
    """DataInf (Kwon et al. 2024, eq. 5), a matrix at a time, λ = c · mean square gradient."""
    lengths = material.layout.lengths
    total = torch.zeros(len(material.queries), len(material.rows), dtype=torch.float64, device=material.rows.device)
    for rows, queries in zip(material.rows.split(lengths, dim=1), material.queries.split(lengths, dim=1)):
        n, size = rows.shape
        along, gram = (queries @ rows.T).double(), (rows @ rows.T).double()
        squares = gram.diagonal()
        damping = float(c * squares.sum() / (n * size)) or 1e-30
        # Σᵣ (q − ⟨r, q⟩ r / (λ + ‖r‖²)) · row / (n λ), without a vector of the matrix's size.
        total += (n * along - (along / (damping + squares)) @ gram) / (n * damping)
    return Method(f"DataInf (c = {c})", 4 * material.layout.size, total.cpu().numpy())


def trak_like(material: Gradients, k: int, seed: int = 17) -> Method:
    """TRAK (Park et al. 2023), one model: project the raw gradients, then precondition with the projected Gram matrix."""
    sketch = Sketch(seed, k, torch.ones(material.layout.size, device=material.rows.device, dtype=torch.float64))
    rows, queries = sketch(material.rows).double(), sketch(material.queries).double()
    inverse = _damped_inverse((rows.T @ rows)[None])[0]
    return Method(f"TRAK-like, k = {k}", 4 * k, dots(queries @ inverse, rows))


def logra(rows: Tensor, queries: Tensor, size: int) -> Method:
    """LoGra (Choe et al. 2024): `rows` [n, maps, part] of {@link probe_gradients}, preconditioned a map."""
    rows, queries = rows.double(), queries.double()
    inverse = _damped_inverse(torch.einsum("nmi,nmj->mij", rows, rows))
    turned = torch.einsum("qmi,mij->qmj", queries, inverse)
    side = math.isqrt(size)
    return Method(f"LoGra {side} × {side}", 4 * rows[0].numel(), dots(turned.flatten(1), rows.flatten(1)))


def _damped_inverse(grams: Tensor) -> Tensor:
    """Of each of [m, n, n], with a tenth of its mean eigenvalue for damping."""
    values, vectors = symmetric_eigen(grams)
    floors = (0.1 * values.clamp(min=0).mean(dim=-1, keepdim=True)).clamp(min=1e-30)
    return vectors.mT @ (vectors / (values.clamp(min=0) + floors)[..., None])


def probe_gradients(
    base: BaseModel, lora: Lora, flat: Tensor, seed: int, micro_tokens: int
) -> Callable[[Sequence[Example]], Tensor]:
    """
    LoGra's projected gradients [n, maps, DIRECTIONS²]: those of a second LoRA beside the trained one, whose A is random and
    whose B is zero, so that outputs stay what they are; the output side is projected to as many entries.
    """
    wide = Lora(lora.rank + DIRECTIONS, lora.alpha * (lora.rank + DIRECTIONS) / lora.rank, lora.targets)
    narrow, factors = factors_of(base, lora), factors_of(base, wide)
    draw = torch.Generator().manual_seed(seed)
    widened = torch.zeros(factors.size, device=base.device)
    outputs: list[tuple[tuple[int, str], Tensor]] = []
    for site in factors.sites:
        for side, hidden in (("A", site.inputs), ("B", site.outputs)):
            view = factors.view(widened, *site.key, side)
            view[: lora.rank] = narrow.view(flat, *site.key, side)
            if side == "A":
                view[lora.rank :] = (torch.randn(DIRECTIONS, hidden, generator=draw) / math.sqrt(hidden)).to(base.device)
        projection = torch.randn(DIRECTIONS, site.outputs, generator=draw) / math.sqrt(site.outputs)
        outputs.append((site.key, projection.to(base.device)))

    def of(examples: Sequence[Example]) -> Tensor:
        parts = []
        for rows, _ in gradients(base, examples, wide, widened, Scope(), micro_tokens, 16):
            maps = [factors.view(rows, *key, "B")[:, lora.rank :] @ turn.T for key, turn in outputs]
            parts.append(torch.stack([each.flatten(1) for each in maps], dim=1))
        return torch.cat(parts)

    return of


# ---- ours ----------------------------------------------------------------------------------------------------------


class Preconditioned:
    """EK-FAC with nothing left out, and what is kept of it."""

    def __init__(self, material: Gradients, damping: float = 0.01) -> None:
        self.layout = material.layout
        rank, hidden = eigenbases_of(material.layout, material.covariances)
        turn = Turn(material.layout, rank, hidden, material.rows.device)
        self._rows, self._queries = turn(material.rows), turn(material.queries)
        moments = self._rows.double().square().mean(dim=0).float()
        self._divisors = divisors(material.layout, moments, damping)

    def uncompressed(self, name: str, normalised: bool = True) -> Method:
        factors = self._divisors.float()
        rows = self._rows * factors
        return Method(name, 4 * self.layout.size, dots(self._queries * factors, unit(rows) if normalised else rows))

    def compressed(self, seed: int, width: int, ks: Sequence[int]) -> Iterator[Method]:
        """For one sketch, a float and an int8 method each k. Seeds as the bench of the embedded engine draws them."""
        sketch = Sketch(seed * 7 + 1, width, self._divisors)
        rows, queries = sketch(self._rows), sketch(self._queries)
        vectors, energy = principal_directions(rows, max(ks))
        along, asked = project(rows, vectors).double(), project(queries, vectors).double()
        norms = queries.double().square().sum(dim=1).clamp(min=1e-300)
        for k in ks:
            turn = rotation(seed * 7 + 2, k).to(rows.device)
            z, u = unit(along[:, :k] @ turn), asked[:, :k] @ turn
            scales, levels = quantised(z)
            _, wanted = quantised(u)
            more = {
                "energy of rows": float(energy[:k].sum()),
                "energy of queries": float((asked[:, :k].square().sum(dim=1) / norms).mean()),
                "least int8 cosine": float(functional.cosine_similarity(z, levels, dim=1).min()),
            }
            name = f"ours, {width:,} buckets, k = {k}"
            yield Method(f"{name}, float", 4 * k, dots(u, z), (width, k, False), more)
            yield Method(f"{name}, int8", k + 4, dots(wanted, levels * scales), (width, k, True), more)


def quantised(z: Tensor) -> tuple[Tensor, Tensor]:
    """Scales [n, 1] of rows scaled to unit norm and their int8 values [n, k], in float64 (`attribution/quantise.ts`)."""
    largest = z.abs().amax(dim=1, keepdim=True)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    levels = z.sign() * torch.floor(z.abs() * 127 / safe + 0.5)
    norms = z.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, largest / norms / 127, torch.zeros_like(norms)), levels


def rotation(seed: int, k: int) -> Tensor:
    """A random orthogonal matrix, rows as `seededRotation` (`attribution/seeded.ts`) has them; float64 on the CPU."""
    whole = split_mix64(seed, 0, 12 * k * k, torch.device("cpu"))
    units = ((whole >> 11) & ((1 << 53) - 1)).double() / 2**53
    rows = units.view(k, k, 12).sum(dim=2) - 6
    # Gram–Schmidt of the rows: QR of their transpose, of which R's diagonal counts positive.
    q, r = torch.linalg.qr(rows.T)
    return (q * r.diagonal().sign()).T.contiguous()
