"""
From gradients to features on the device: turned into the eigenbases, divided, sketched, projected (docs/method.md, steps 2 to 4; the
seeded rotation and int8 are the worker's). `attribution/extractor.ts` is the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from .eigenbases import Layout, Turn, batches_of, divisors, expect
from .errors import EngineFault
from .sketches import Sketch, project

#: Bytes of gradients that are turned at a time, which takes four times as many: within a CPU's cache.
TURNED_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


@dataclass(frozen=True)
class Eigenbases:
    """Of each of the layout's matrices both bases, flat, and Λ [size]; float32 on any device, as published."""

    layout: Layout
    rank: Sequence[Tensor]
    hidden: Sequence[Tensor]
    moments: Tensor
    #: Part of each matrix's mean of Λ.
    damping: float


class Features:
    """Opened bases: what is needed to make features of gradients in them."""

    def __init__(
        self, bases: Eigenbases, sketch_seed: int, width: int, vectors: Tensor | None, device: torch.device
    ) -> None:
        """`vectors` [k, width]: V_k; None where it is only just to be made. Faults: BAD_REQUEST."""
        if vectors is not None:
            if vectors.dim() != 2 or vectors.shape[1] != width:
                raise EngineFault("BAD_REQUEST", f"a projection of {list(vectors.shape)} for sketches of {width}")
            expect(vectors, vectors.numel(), "projection")
        self.layout = bases.layout
        self.width = width
        self._turn = Turn(bases.layout, bases.rank, bases.hidden, device)
        self._sketch = Sketch(sketch_seed, width, divisors(bases.layout, bases.moments.to(device), bases.damping))
        self._vectors = None if vectors is None else vectors.to(device, torch.float32)

    @property
    def k(self) -> int:
        return 0 if self._vectors is None else self._vectors.shape[0]

    @property
    def nbytes(self) -> int:
        """On the device."""
        return self._turn.nbytes + self._sketch.nbytes + (0 if self._vectors is None else self._vectors.nbytes)

    def sketched(self, rows: Tensor) -> Tensor:
        """`sketch(a)` of gradients [n, size], a = preconditioned: [n, width] in float32."""
        some = batches_of(rows, 4 * self.layout.size, TURNED_BYTES[rows.device.type])
        return torch.cat([self._sketch(self._turn(each)) for each in some])

    def reduced(self, rows: Tensor) -> Tensor:
        """Of gradients [n, size] what `along` makes of their sketches: [n, k + 1]."""
        assert self._vectors is not None, "no projection yet"
        return along(self.sketched(rows), self._vectors)


def along(sketches: Tensor, vectors: Tensor) -> Tensor:
    """Coordinates along V_k [k, width] and, behind them, the squared norms of the sketches [n, width]: [n, k + 1], float32."""
    return torch.cat([project(sketches, vectors), sketches.square().sum(dim=1, keepdim=True)], dim=1)
