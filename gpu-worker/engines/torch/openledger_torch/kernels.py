"""
Gathered low-rank products for decoding on CUDA, in Triton: `y[i] += (x[i] A[slot i]ᵀ) B[slot i]` for one token a row, the
factors read from the slots where they lie. It saves the copy of all rows' factors that gathering makes, which counts for
large adapters; for small ones two batched matrix products are as fast, see `plans.py`.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # The CPU build of torch comes without it.
    triton = None


if triton is not None:

    @triton.jit
    def _shrink(x, pool, slots, low, width, rank, offset, x_row, pool_row, RANK: tl.constexpr, BLOCK: tl.constexpr):
        """low[i, r] = Σ_k x[i, k] A[slot i][r, k]; one program a row."""
        row = tl.program_id(0)
        slot = tl.load(slots + row)
        ranks = tl.arange(0, RANK)
        a = pool + slot * pool_row + offset
        total = tl.zeros((RANK,), dtype=tl.float32)
        for start in range(0, width, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < width
            values = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
            at = a + ranks[:, None] * width + columns[None, :]
            factors = tl.load(at, mask=(ranks[:, None] < rank) & inside[None, :], other=0.0).to(tl.float32)
            total += tl.sum(factors * values[None, :], axis=1)
        tl.store(low + row * RANK + ranks, total)

    @triton.jit
    def _expand(low, pool, slots, y, out, width, rank, offset, y_row, pool_row, RANK: tl.constexpr, BLOCK: tl.constexpr):
        """out[i, c] = y[i, c] + Σ_r low[i, r] B[slot i][r, c]; one program a row and block of columns."""
        row = tl.program_id(0)
        columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = columns < width
        slot = tl.load(slots + row)
        ranks = tl.arange(0, RANK)
        values = tl.load(low + row * RANK + ranks)
        at = pool + slot * pool_row + offset + ranks[:, None] * width + columns[None, :]
        factors = tl.load(at, mask=(ranks[:, None] < rank) & inside[None, :], other=0.0).to(tl.float32)
        before = tl.load(y + row * y_row + columns, mask=inside, other=0.0).to(tl.float32)
        total = before + tl.sum(factors * values[:, None], axis=0)
        tl.store(out + row * width + columns, total.to(out.dtype.element_ty), mask=inside)


class GatherKernel:
    """Made by {@link gather_kernel} only where it runs and gives what plain products give."""

    def add(self, x: Tensor, y: Tensor, pool: Tensor, slots: Tensor, a: int, b: int, rank: int) -> Tensor:
        """x [rows, in], y [rows, out], pool [slots, size]; `a`, `b`: where A [rank, in] and B [rank, out] lie in a slot."""
        rows, width = x.shape
        outputs = y.shape[1]
        padded = triton.next_power_of_2(rank)
        low = torch.empty(rows, padded, device=x.device, dtype=torch.float32)
        out = torch.empty(rows, outputs, device=y.device, dtype=y.dtype)
        x, y = x.contiguous(), y.contiguous()
        _shrink[(rows,)](
            x, pool, slots, low, width, rank, a, x.stride(0), pool.stride(0), RANK=padded, BLOCK=256
        )
        _expand[(rows, triton.cdiv(outputs, 128))](
            low, pool, slots, y, out, outputs, rank, b, y.stride(0), pool.stride(0), RANK=padded, BLOCK=128
        )
        return out


def gather_kernel(device: torch.device) -> GatherKernel | None:
    """None without Triton, on devices that it does not compile for, or where its result is not that of plain products."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if triton is None or (device.type != "cuda" and not interpreted):
        return None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return None
    kernel = GatherKernel()
    try:
        return kernel if self_test(kernel, device) else None
    except Exception:  # A compiler that fails leaves the plain way.
        return None


def self_test(kernel: GatherKernel, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(device)  # noqa: E731
    rank, width, outputs = 5, 300, 200
    pool = draw(4, 7 + rank * width + rank * outputs)
    x, y = draw(3, width), draw(3, outputs)
    slots = torch.tensor([3, 0, 2], device=device)
    a = pool[slots, 7 : 7 + rank * width].view(3, rank, width)
    b = pool[slots, 7 + rank * width :].view(3, rank, outputs)
    plain = torch.baddbmm(y[:, None], torch.bmm(x[:, None], a.transpose(1, 2)), b)[:, 0]
    got = kernel.add(x, y, pool, slots, 7, 7 + rank * width, rank)
    return torch.allclose(got, plain, rtol=1e-3, atol=1e-2)
