"""
Passes in float32 over weights in bf16. Attribution is audited by other engines, with tolerances that bf16 activations do not keep
on small models; the weights are exact in bf16 (that is how they are published), so that only activations and slopes must be
float32. No second copy of the model comes to be:

- on CUDA a float32 operand is cut into two halves in bf16, x ≈ h + l, and `x W = h W + l W` is one product of matrix units
  with sums in float32 (the splitting of Henry, Tang & Heinecke 2019): 16 bits of x count, and it is 4 times as fast as float32;
- elsewhere weights are widened a layer at a time, forward and backward.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Any, Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

#: `x W`: x [.., in] in float32, W [in, out] narrow.
Multiply = Callable[[Tensor, Tensor], Tensor]
#: Relative error of products of halves that is taken; two halves have some 5e-6.
TOLERANCE = 1e-4


def widened(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.float()


def halved(x: Tensor, weight: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    rows = flat.shape[0]
    halves = flat.new_empty(2 * rows, flat.shape[1], dtype=weight.dtype)
    halves[:rows].copy_(flat)
    torch.sub(flat, halves[:rows], out=halves[rows:])
    both = torch.mm(halves, weight, out_dtype=torch.float32)
    return torch.add(both[:rows], both[rows:]).view(*x.shape[:-1], weight.shape[1])


def multiply_on(device: torch.device, dtype: torch.dtype) -> Multiply:
    """Halves where PyTorch has such products and they are right."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return widened
    draw = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(*shape, generator=draw).to(device) for shape in ((5, 3, 64), (48, 64)))
    weight = weight.to(dtype)
    try:
        for each, matrix in ((x, weight.t()), (x[..., :48], weight)):
            want = each.double() @ matrix.double()
            if (halved(each, matrix) - want).norm() > TOLERANCE * want.norm():
                return widened
    except (RuntimeError, TypeError, NotImplementedError):
        return widened
    return halved


class _WideLinear(torch.autograd.Function):
    """`x Wᵀ + b` with W frozen; the backward pass keeps the narrow one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, multiply: Multiply) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.multiply = multiply
        y = multiply(x, weight.t())
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return ctx.multiply(slopes[0], weight), None, None, None


class Precision:
    """Of one model. In float32 already, it does nothing."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._wide = False
        self._narrow = dtype != torch.float32
        self._multiply = widened
        if not self._narrow:
            return
        self._multiply = multiply_on(device, dtype)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.register_forward_hook(self._widen)
            elif isinstance(module, nn.Linear):
                module.forward = partial(self._of, module)  # type: ignore[method-assign]

    @property
    def widens(self) -> bool:
        """Whether what is computed now is wider than the weights are."""
        return self._wide and self._narrow

    @contextmanager
    def wide(self) -> Iterator[None]:
        """Passes within are in float32."""
        before = self._wide
        self._wide = True
        try:
            yield
        finally:
            self._wide = before

    def _widen(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        return output.float() if self._wide else None

    def _of(self, module: nn.Linear, x: Tensor) -> Tensor:
        return self.linear(x, module.weight, module.bias)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.widens:
            return _WideLinear.apply(x, weight, bias, self._multiply)
        return functional.linear(x, weight, bias)

    def slope(self, dy: Tensor, weight: Tensor) -> Tensor:
        """`dy W`, the slope of `linear`'s input."""
        return self._multiply(dy, weight) if self.widens else dy @ weight
