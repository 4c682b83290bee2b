"""
The base's linear layers. Their weights are frozen, so that they may lie as suits the arithmetic: layers that read the same
input (q, k and v; gate and up) are one product, and on the CPU large products go to oneDNN with weights in its own order, which is
about twice as fast as the BLAS that PyTorch calls.
"""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .precision import Precision

#: Weights in a second and third order take memory: not for models beyond this many bytes.
PACKED_BYTES = 4 << 30
#: Multiplications of a product from which on oneDNN's overhead is made up for.
PACKED_WORK = 1 << 20
#: Rows that weights are ordered for.
_ROWS = 64


class Product:
    """`x Wᵀ + b`: x [rows, tokens, in]; W [out, in] and b stay what they are."""

    def __init__(self, precision: Precision, weight: Tensor, bias: Tensor | None, packs: bool) -> None:
        self._precision = precision
        self._weight = weight
        self._bias = bias
        self._packs = packs
        self._forward: Tensor | None = None
        self._backward: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packs or x.numel() * self._weight.shape[0] < PACKED_WORK:
            return self._precision.linear(x, self._weight, self._bias)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Packed.apply(x, self)
        return self.packed(x)

    def packed(self, x: Tensor) -> Tensor:
        if self._forward is None:
            self._forward = _reordered(self._weight)
        return _product(x, self._forward, self._bias)

    def slope(self, dy: Tensor) -> Tensor:
        """`dy W`"""
        if not self._packs or dy.numel() * self._weight.shape[1] < PACKED_WORK:
            return self._precision.slope(dy, self._weight)
        if self._backward is None:
            self._backward = _reordered(self._weight.t().contiguous())
        return _product(dy, self._backward, None)


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Product) -> Tensor:
        ctx.product = product
        return product.packed(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return ctx.product.slope(slopes[0]), None


def _reordered(weight: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def packs(model: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights may be reordered: by a build of PyTorch whose oneDNN gives what its BLAS gives."""
    if device.type != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    if sum(p.nbytes for p in model.parameters()) > PACKED_BYTES:
        return False
    draw = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((2, 5, 40), (24, 40), (24,)))
    try:
        got = _product(x, _reordered(weight), bias)
        back = _product(got, _reordered(weight.t().contiguous()), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    want = functional.linear(x, weight, bias)
    return torch.allclose(got, want, atol=1e-4) and torch.allclose(back, want @ weight, atol=1e-3)


def joined(modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of layers with the same input, one below the other. The layers' own become views of them."""
    if len(modules) == 1:
        return modules[0].weight.data, None if modules[0].bias is None else modules[0].bias.data
    weight = torch.cat([module.weight.data for module in modules])
    at = 0
    for module in modules:
        module.weight.data = weight[at : at + module.out_features]
        at += module.out_features
    if modules[0].bias is None:
        return weight, None
    return weight, torch.cat([module.bias.data for module in modules])
