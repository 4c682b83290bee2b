"""
EK-FAC in LoRA space on the device (George et al. 2018; Grosse et al. 2023): eigenbases of each matrix's covariances, gradients
turned into them, and what they are divided by there. `attribution/precondition.ts` is the reference. Matrices of one shape go
through one product: an adapter of a large model has hundreds of them, and launching a kernel for each takes longer than it works.

Rows are gradients in the layout of `attribution/layout.ts`: float32 [n, size], all matrices one behind the other as
[rank, hidden]. What crosses to other engines is float32; decompositions and means are made in float64.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Generator, Iterator, Sequence, TypeVar

import torch
from torch import Tensor

from .errors import EngineFault

#: Bytes of matrices that are decomposed at a time.
EIGEN_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}


@dataclass(frozen=True)
class Group:
    """Matrices of one shape: which of the layout's they are."""

    rank: int
    hidden: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Shapes [rank, hidden] of an adapter's matrices, one behind the other in a row; width of the hidden side's blocks."""

    shapes: tuple[tuple[int, int], ...]
    block: int

    def __post_init__(self) -> None:
        if type(self.block) is not int or self.block < 1:
            raise EngineFault("BAD_REQUEST", f"blocks of {self.block}")

    @cached_property
    def size(self) -> int:
        return sum(self.lengths)

    @cached_property
    def lengths(self) -> list[int]:
        """Entries of each matrix."""
        return [rank * hidden for rank, hidden in self.shapes]

    @cached_property
    def groups(self) -> list[Group]:
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for at, shape in enumerate(self.shapes):
            found[shape].append(at)
        return [Group(*shape, tuple(members)) for shape, members in found.items()]

    @cached_property
    def period(self) -> int:
        """Matrices after which the shapes begin again: those of one layer, where all are alike."""
        count = len(self.shapes)
        fits = (p for p in range(1, count) if count % p == 0 and self.shapes[p:] == self.shapes[: count - p])
        return next(fits, count)

    def rank_entries(self, matrix: int) -> int:
        return self.shapes[matrix][0] ** 2

    def hidden_entries(self, matrix: int) -> int:
        """Entries of all diagonal blocks of a matrix's hidden side, one behind the other; the last may be narrower."""
        whole, rest = divmod(self.shapes[matrix][1], self.block)
        return whole * self.block**2 + rest**2


#: Of all matrices the rank sides and the hidden sides, flat.
Sides = tuple[list[Tensor], list[Tensor]]


def eigenbases_of(layout: Layout, covariances: Sequence[tuple[Tensor, Tensor]]) -> Sides:
    """
    Of each matrix the eigenvectors of its two sides, as rows, in ascending order of their values: rank side [rank²] and hidden
    side [`hidden_entries`], float32, flat, on the device of `covariances` (rank side and hidden side of each matrix, flat;
    lower triangles are read). Of each vector the entry of largest size is positive. Faults: BAD_REQUEST.
    """
    return drained(eigenbasis_steps(layout, covariances))


def eigenbasis_steps(
    layout: Layout, covariances: Sequence[tuple[Tensor, Tensor]]
) -> Generator[None, None, Sides]:
    """`eigenbases_of` in slices: a large model has some eighty thousand blocks."""
    if len(covariances) != len(layout.shapes):
        raise EngineFault("BAD_REQUEST", f"{len(covariances)} covariances, {len(layout.shapes)} matrices")
    rank: list[Tensor] = [torch.empty(0)] * len(covariances)
    hidden: list[Tensor] = list(rank)
    for at, (one, other) in enumerate(covariances):
        expect(one, layout.rank_entries(at), f"rank side {at}")
        expect(other, layout.hidden_entries(at), f"hidden side {at}")
    block = layout.block
    for group in layout.groups:
        whole, rest = divmod(group.hidden, block)
        cut = whole * block * block
        ranks = yield from _eigenvectors(torch.stack([covariances[m][0] for m in group.members]), group.rank)
        hiddens = torch.stack([covariances[m][1] for m in group.members])
        wholes = yield from _eigenvectors(hiddens[:, :cut], block)
        rests = yield from _eigenvectors(hiddens[:, cut:], rest)
        for i, m in enumerate(group.members):
            rank[m] = ranks[i]
            hidden[m] = torch.cat([wholes[i], rests[i]])
    return rank, hidden


def _eigenvectors(flat: Tensor, width: int) -> Generator[None, None, Tensor]:
    """Of all [width, width] that `flat` [m, ..] consists of; float32, in the same form."""
    out = torch.empty(flat.shape, device=flat.device)
    if flat.numel() == 0:
        return out
    step = max(1, EIGEN_BYTES[flat.device.type] // (8 * width * width))
    matrices = flat.reshape(-1, width, width)
    for some, to in zip(matrices.split(step), out.view(-1, width, width).split(step)):
        to.copy_(symmetric_eigen(some.double())[1])
        yield
    return out


T = TypeVar("T")


def drained(steps: Generator[None, None, T]) -> T:
    """What slices come to, all at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def symmetric_eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Values [.., n], ascending, and unit vectors as rows [.., n, n] of float64 matrices, whose lower triangles are read."""
    # Squares of very small entries would vanish.
    scale = matrices.tril().abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    values, vectors = torch.linalg.eigh(matrices / scale)
    vectors = vectors.mT
    largest = vectors.gather(-1, vectors.abs().argmax(dim=-1, keepdim=True))
    return values * scale[..., 0], torch.where(largest < 0, -vectors, vectors).contiguous()


def expect(values: Tensor, length: int, name: str) -> None:
    if values.numel() != length:
        raise EngineFault("BAD_REQUEST", f"{name}: {values.numel()} entries where {length} belong")
    # The least and the largest are NaN where any is.
    if length > 0 and not bool(torch.isfinite(torch.stack(values.aminmax())).all()):
        raise EngineFault("BAD_REQUEST", f"{name}: entries that are not finite")


class Turn:
    """
    The turn into the eigenbases, without division: `Q_Sᵀ G Q_A` of every matrix. Layers that are alike are taken apart by one view of
    a row, since hundreds of views would take longer to make than the products.
    """

    def __init__(self, layout: Layout, rank: Sequence[Tensor], hidden: Sequence[Tensor], device: torch.device) -> None:
        """`rank`, `hidden`: as `eigenbases_of` gives them. Faults: BAD_REQUEST."""
        self.layout = layout
        count = len(layout.shapes)
        if len(rank) != count or len(hidden) != count:
            raise EngineFault("BAD_REQUEST", f"bases of {len(rank)} matrices for {count}")
        for at in range(count):
            expect(rank[at], layout.rank_entries(at), f"rank basis {at}")
            expect(hidden[at], layout.hidden_entries(at), f"hidden basis {at}")
        self._period = layout.period
        self._groups = Layout(layout.shapes[: self._period], layout.block).groups
        self._bases = [self._of(group, rank, hidden, device) for group in self._groups]
        # Where each of a period's matrices is among those of all groups.
        order = [m for group in self._groups for m in group.members]
        self._places = sorted(range(len(order)), key=order.__getitem__)

    def _of(self, group: Group, rank: Sequence[Tensor], hidden: Sequence[Tensor], device: torch.device):
        block = self.layout.block
        whole, rest = divmod(group.hidden, block)
        cut = whole * block * block
        # Of each matrix of a period those of all periods.
        members = [at for m in group.members for at in range(m, len(self.layout.shapes), self._period)]
        sides = torch.stack([hidden[m].to(device, torch.float32) for m in members])
        return (
            torch.stack([rank[m].to(device, torch.float32) for m in members]).view(-1, group.rank, group.rank),
            sides[:, :cut].reshape(len(members) * whole, block, block),
            sides[:, cut:].reshape(len(members), rest, rest),
        )

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for bases in self._bases for each in bases)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, size] to [n, size]."""
        n = rows.shape[0]
        if rows.dim() != 2 or rows.shape[1] != self.layout.size:
            raise EngineFault("BAD_REQUEST", f"rows of {list(rows.shape)} where {self.layout.size} entries belong")
        layers = len(self.layout.shapes) // self._period
        pieces = rows.reshape(n, layers, self.layout.size // layers).split(self.layout.lengths[: self._period], dim=2)
        out: list[Tensor] = []
        with full_float32():
            for group, bases in zip(self._groups, self._bases):
                m, r, h = len(group.members), group.rank, group.hidden
                stacked = torch.stack([pieces[at] for at in group.members]).view(m, n, layers, r, h)
                turned = self._turned(bases, stacked.permute(0, 2, 3, 1, 4).reshape(m * layers, r, n, h))
                out += turned.view(m, layers, r, n, h).permute(0, 3, 1, 2, 4).reshape(m, n, layers, r * h).unbind()
        return torch.cat([out[place] for place in self._places], dim=2).view(n, self.layout.size)

    def _turned(self, bases: tuple[Tensor, Tensor, Tensor], gradients: Tensor) -> Tensor:
        """[m, rank, n, hidden] to the same."""
        ranks, wholes, rests = bases
        m, r, n, h = gradients.shape
        block = self.layout.block
        whole, rest = divmod(h, block)
        half = torch.bmm(ranks, gradients.reshape(m, r, n * h)).view(m, r * n, h)
        parts = []
        if whole > 0:
            cut = half[:, :, : whole * block].reshape(m, r * n, whole, block).transpose(1, 2)
            turned = torch.bmm(cut.reshape(m * whole, r * n, block), wholes.mT)
            parts.append(turned.view(m, whole, r * n, block).transpose(1, 2).reshape(m, r * n, whole * block))
        if rest > 0:
            parts.append(torch.bmm(half[:, :, whole * block :], rests.mT))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).view(m, r, n, h)


def divisors(layout: Layout, moments: Tensor, damping: float) -> Tensor:
    """
    `1 / √(Λ + damping·mean(Λ))` of each entry, the mean taken over its matrix; zeros for a matrix without slopes. `moments`
    [size]: Λ, the mean square of the turned gradients. float64, on its device. Faults: BAD_REQUEST.
    """
    expect(moments, layout.size, "Λ")
    if not damping > 0:
        raise EngineFault("BAD_REQUEST", f"damping {damping}")
    if bool(moments.min() < 0):
        raise EngineFault("BAD_REQUEST", "negative entries in Λ")
    out = torch.empty(layout.size, dtype=torch.float64, device=moments.device)
    for each, some in zip(moments.split(layout.lengths), out.split(layout.lengths)):
        wide = each.double()
        floor = damping * wide.mean()
        some.copy_(torch.where(floor > 0, wide.add_(floor).rsqrt_(), 0.0))
    return out


class full_float32:  # noqa: N801 - a context, like torch's own
    """Products within are not rounded to TF32 first, whatever the process has chosen for others."""

    def __enter__(self) -> None:
        self._before = torch.get_float32_matmul_precision()
        if self._before != "highest":
            torch.set_float32_matmul_precision("highest")

    def __exit__(self, *_: object) -> None:
        if self._before != "highest":
            torch.set_float32_matmul_precision(self._before)


def batches_of(rows: Tensor, bytes_a_row: int, most_bytes: int) -> Iterator[Tensor]:
    """`rows`, as many at a time as take `most_bytes`; one at least."""
    yield from rows.split(max(1, most_bytes // max(1, bytes_a_row)))
