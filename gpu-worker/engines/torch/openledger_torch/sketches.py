"""
Sketches of preconditioned gradients and their reduction to k entries (`attribution/sketch.ts`, `attribution/projection.ts`): SJLT
with one entry a column (Dasgupta, Kumar & Sarlós 2010), then the top right singular vectors of the training rows' sketches.
"""

from __future__ import annotations

from typing import Generator, Iterator

import torch
from torch import Tensor

from .eigenbases import batches_of, drained, expect, full_float32, symmetric_eigen
from .errors import EngineFault

#: Bytes of what lies between a gradient and its sketch, at a time: within a CPU's cache.
WORKING_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
#: Places that are drawn at a time.
MIXED = {"cpu": 1 << 18, "cuda": 1 << 24}
#: Bytes of sketches in float64 at a time, where directions are made of them.
GRAM_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
#: Squares of singular values below this part of the largest are rounding, not data.
RANK_TOLERANCE = 1e-10

_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """As int64 has it, whose products and sums wrap around like those of u64."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shifted(z: Tensor, by: int) -> Tensor:
    """u64's shift to the right: int64's would fill up with the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def split_mix64(seed: int, start: int, count: int, device: torch.device) -> Tensor:
    """Outputs `start` … of SplitMix64 from `seed` on (Steele, Lea & Flood 2014), as int64 with u64's bits."""
    z = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device)
    z = z * _signed(_GAMMA) + _signed(seed)
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def check_width(width: int) -> None:
    if type(width) is not int or width < 1 or width > 1 << 30 or width & (width - 1):
        raise EngineFault("BAD_REQUEST", f"a sketch of {width}, which is no power of two")


class Sketch:
    """
    `sketch(a)` of rows a = turned gradient · divisors. Entry j goes to bucket `h(j) mod width` with the sign of h(j)'s top bit.

    Each bucket's entries are gathered and summed up in ascending order, from a table of [deepest bucket, width] places: the
    same bits at every call and on every device of a kind, where adding into buckets leaves their order to the threads of a GPU
    and is one entry at a time on a CPU. The table is an eighth larger than the gradient where there are hundreds of entries a bucket.
    """

    def __init__(self, seed: int, width: int, divisors: Tensor) -> None:
        """`divisors` [size], on the device. `width`: a power of two up to 2^30. Faults: BAD_REQUEST."""
        check_width(width)
        size, device = divisors.numel(), divisors.device
        if not 0 < size < 1 << 31:
            raise EngineFault("BAD_REQUEST", f"{size} entries to sketch")
        self.width = width
        self.size = size
        bucket = torch.empty(size, dtype=torch.int32, device=device)
        signed = divisors.to(torch.float32, copy=True)
        step = MIXED[device.type]
        for start in range(0, size, step):
            h = split_mix64(seed, start, min(step, size - start), device)
            bucket[start : start + h.numel()] = (h & (width - 1)).int()
            signed[start : start + h.numel()] *= 1 - 2 * _shifted(h, 63).float()
        order = torch.sort(bucket, stable=True).indices
        counts = torch.bincount(bucket, minlength=width)
        self._depth = int(counts.max())
        starts = counts.cumsum(0) - counts
        found = bucket[order].long()
        rank = torch.arange(size, device=device) - starts[found]
        slot = rank * width + found
        # Places that no entry has read the first one, times zero.
        self._places = torch.zeros(self._depth * width, dtype=torch.int32, device=device)
        self._places[slot] = order.int()
        self._factors = torch.zeros(self._depth * width, device=device)
        self._factors[slot] = signed[order]

    @property
    def nbytes(self) -> int:
        return self._places.nbytes + self._factors.nbytes

    def __call__(self, turned: Tensor) -> Tensor:
        """[n, size] to [n, width]."""
        if turned.dim() != 2 or turned.shape[1] != self.size:
            raise EngineFault("BAD_REQUEST", f"rows of {list(turned.shape)} where {self.size} entries belong")
        out = []
        for rows in batches_of(turned, self._places.numel() * 4, WORKING_BYTES[turned.device.type]):
            gathered = rows.index_select(1, self._places).mul_(self._factors)
            out.append(gathered.view(rows.shape[0], self._depth, self.width).sum(dim=1))
        return torch.cat(out)


def principal_directions(sketches: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """
    The top k right singular vectors of the rows [n, width], each scaled to unit norm first (zero rows stay zero): [k, width]
    in float32, orthonormal rows, zero rows from the data's rank on; and the part of the energy along each [k], descending.
    From the eigen-decomposition of the Gram matrix in float64. Of a vector's weights in the rows, that of largest size is positive.
    """
    return drained(direction_steps(sketches, k))


def direction_steps(sketches: Tensor, k: int) -> Generator[None, None, tuple[Tensor, Tensor]]:
    """`principal_directions` in slices: its work grows with the square of the rows, and others want the device as well."""
    if type(k) is not int or k < 1:
        raise EngineFault("BAD_REQUEST", f"k = {k}")
    n, width = sketches.shape
    expect(sketches, n * width, "sketches")
    vectors = torch.zeros(k, width, device=sketches.device)
    energy = torch.zeros(k, device=sketches.device)
    if n == 0:
        return vectors, energy
    norms = sketches.double().norm(dim=1)
    scales = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))

    step = max(1, GRAM_BYTES[sketches.device.type] // (8 * n))

    def columns() -> Iterator[Tensor]:
        """Of all rows, in float64, some columns at a time."""
        for start in range(0, width, step):
            yield sketches[:, start : start + step].to(torch.float64, copy=True).mul_(scales[:, None])

    gram = torch.zeros(n, n, dtype=torch.float64, device=sketches.device)
    for some in columns():
        gram.addmm_(some, some.T)
        yield
    values, weights = symmetric_eigen(gram)
    values, weights = values.flip(0), weights.flip(0)
    count = min(k, int((values > RANK_TOLERANCE * values[0].clamp(min=0)).sum()))
    if count == 0:
        return vectors, energy
    energy[:count] = (values[:count] / values.clamp(min=0).sum()).float()
    yield
    # Rounding in the Gram matrix takes from their right angles: Gram–Schmidt by Cholesky's triangle.
    weights = weights[:count] * values[:count, None].rsqrt()
    overlaps = torch.zeros(count, count, dtype=torch.float64, device=sketches.device)
    for some in columns():
        basis = weights @ some
        overlaps.addmm_(basis, basis.T)
        yield
    weights = torch.linalg.solve_triangular(torch.linalg.cholesky(overlaps), weights, upper=False)
    for i, some in enumerate(columns()):
        vectors[:count, i * step : (i + 1) * step] = weights @ some
        yield
    return vectors, energy


def project(sketches: Tensor, vectors: Tensor) -> Tensor:
    """`V_kᵀ s` of each row: [n, width] and [k, width] to [n, k], in float32."""
    with full_float32():
        return sketches.float() @ vectors.T
