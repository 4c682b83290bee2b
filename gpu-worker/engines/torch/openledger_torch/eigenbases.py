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
from typing import Iterator, Sequence

import torch
from torch import Tensor

from .errors import EngineFault

#: Bytes of matrices that one call of an eigen-decomposition gets.
EIGEN_BYTES = 256 << 20


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

    def rank_entries(self, matrix: int) -> int:
        return self.shapes[matrix][0] ** 2

    def hidden_entries(self, matrix: int) -> int:
        """Entries of all diagonal blocks of a matrix's hidden side, one behind the other; the last may be narrower."""
        whole, rest = divmod(self.shapes[matrix][1], self.block)
        return whole * self.block**2 + rest**2


def eigenbases_of(layout: Layout, covariances: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """
    Of each matrix the eigenvectors of its two sides, as rows, in ascending order of their values: rank side [rank²] and hidden
    side [`hidden_entries`], float32, flat, on the device of `covariances` (rank side and hidden side of each matrix, flat;
    lower triangles are read). Of each vector the entry of largest size is positive. Faults: BAD_REQUEST.
    """
    if len(covariances) != len(layout.shapes):
        raise EngineFault("BAD_REQUEST", f"{len(covariances)} covariances, {len(layout.shapes)} matrices")
    rank: list[Tensor] = [torch.empty(0)] * len(covariances)
    hidden: list[Tensor] = list(rank)
    block = layout.block
    for at, (one, other) in enumerate(covariances):
        expect(one, layout.rank_entries(at), f"rank side {at}")
        expect(other, layout.hidden_entries(at), f"hidden side {at}")
    for group in layout.groups:
        whole, rest = divmod(group.hidden, block)
        ranks = _eigenvectors(torch.stack([covariances[m][0] for m in group.members]), group.rank)
        hiddens = torch.stack([covariances[m][1] for m in group.members])
        cut = whole * block * block
        sides = [_eigenvectors(hiddens[:, :cut], block), _eigenvectors(hiddens[:, cut:], rest)]
        for i, m in enumerate(group.members):
            rank[m] = ranks[i]
            hidden[m] = torch.cat([side[i] for side in sides])
    return rank, hidden


def _eigenvectors(flat: Tensor, width: int) -> Tensor:
    """Of all [width, width] that `flat` [m, ..] consists of; float32, in the same form."""
    if flat.numel() == 0:
        return flat.float()
    matrices = flat.double().reshape(-1, width, width)
    step = max(1, EIGEN_BYTES // (8 * width * width))
    return torch.cat([symmetric_eigen(some)[1].float() for some in matrices.split(step)]).view(flat.shape)


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
    if not bool(torch.isfinite(values).all()):
        raise EngineFault("BAD_REQUEST", f"{name}: entries that are not finite")


class Turn:
    """The turn into the eigenbases, without division: `Q_Sᵀ G Q_A` of every matrix."""

    def __init__(self, layout: Layout, rank: Sequence[Tensor], hidden: Sequence[Tensor], device: torch.device) -> None:
        """`rank`, `hidden`: as `eigenbases_of` gives them. Faults: BAD_REQUEST."""
        self.layout = layout
        if len(rank) != len(layout.shapes) or len(hidden) != len(layout.shapes):
            raise EngineFault("BAD_REQUEST", f"bases of {len(rank)} matrices for {len(layout.shapes)}")
        for at in range(len(layout.shapes)):
            expect(rank[at], layout.rank_entries(at), f"rank basis {at}")
            expect(hidden[at], layout.hidden_entries(at), f"hidden basis {at}")
        self._bases = [self._of(group, rank, hidden, device) for group in layout.groups]
        # Where each of the layout's matrices is among those of all groups.
        order = [m for group in layout.groups for m in group.members]
        self._places = sorted(range(len(order)), key=order.__getitem__)

    def _of(self, group: Group, rank: Sequence[Tensor], hidden: Sequence[Tensor], device: torch.device):
        block = self.layout.block
        whole, rest = divmod(group.hidden, block)
        cut = whole * block * block
        sides = torch.stack([hidden[m].to(device, torch.float32) for m in group.members])
        return (
            torch.stack([rank[m].to(device, torch.float32) for m in group.members]).view(-1, group.rank, group.rank),
            sides[:, :cut].reshape(len(group.members) * whole, block, block),
            sides[:, cut:].reshape(len(group.members), rest, rest),
        )

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for bases in self._bases for each in bases)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, size] to [n, size]."""
        n = rows.shape[0]
        if rows.dim() != 2 or rows.shape[1] != self.layout.size:
            raise EngineFault("BAD_REQUEST", f"rows of {list(rows.shape)} where {self.layout.size} entries belong")
        pieces = rows.split(self.layout.lengths, dim=1)
        out: list[Tensor] = []
        with full_float32():
            for group, bases in zip(self.layout.groups, self._bases):
                stacked = torch.stack([pieces[m].view(n, group.rank, group.hidden) for m in group.members])
                out += self._turned(group, bases, stacked).reshape(len(group.members), n, group.rank * group.hidden).unbind()
        return torch.cat([out[place] for place in self._places], dim=1)

    def _turned(self, group: Group, bases: tuple[Tensor, Tensor, Tensor], stacked: Tensor) -> Tensor:
        """[m, n, rank, hidden] to the same."""
        ranks, wholes, rests = bases
        m, n, r, h = stacked.shape
        block = self.layout.block
        whole, rest = divmod(h, block)
        half = torch.bmm(ranks, stacked.transpose(1, 2).reshape(m, r, n * h)).view(m, r * n, h)
        parts = []
        if whole > 0:
            cut = half[:, :, : whole * block].reshape(m, r * n, whole, block).transpose(1, 2)
            turned = torch.bmm(cut.reshape(m * whole, r * n, block), wholes.mT)
            parts.append(turned.view(m, whole, r * n, block).transpose(1, 2).reshape(m, r * n, whole * block))
        if rest > 0:
            parts.append(torch.bmm(half[:, :, whole * block :], rests.mT))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return joined.view(m, r, n, h).transpose(1, 2)


def divisors(layout: Layout, moments: Tensor, damping: float) -> Tensor:
    """
    `1 / √(Λ + damping·mean(Λ))` of each entry, the mean taken over its matrix; zeros for a matrix without slopes. `moments`
    [size]: Λ, the mean square of the turned gradients. float64, on its device. Faults: BAD_REQUEST.
    """
    expect(moments, layout.size, "Λ")
    if not damping > 0:
        raise EngineFault("BAD_REQUEST", f"damping {damping}")
    if bool((moments < 0).any()):
        raise EngineFault("BAD_REQUEST", "negative entries in Λ")
    wide = moments.double()
    lengths = torch.tensor(layout.lengths, device=wide.device)
    means = torch.stack([piece.mean() for piece in wide.split(layout.lengths)])
    floors = torch.repeat_interleave(means * damping, lengths, output_size=layout.size)
    return torch.where(floors > 0, (wide + floors).rsqrt(), torch.zeros_like(wide))


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
