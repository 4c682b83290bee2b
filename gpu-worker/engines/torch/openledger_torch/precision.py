"""
Passes in float32 over weights in bf16. Attribution is audited by other engines, with tolerances that bf16 activations do not keep
on small models; the weights are exact in bf16 (that is how they are published), so that only activations and slopes must be
float32. Weights are widened a layer at a time, forward and backward: no second copy of the model comes to be.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Any, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class _WideLinear(torch.autograd.Function):
    """`x Wᵀ + b` with W frozen and widened for the moment; the backward pass keeps the narrow one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(x, weight.float(), None if bias is None else bias.float())

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return slopes[0] @ weight.float(), None, None


class Precision:
    """Of one model. In float32 already, it does nothing."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._wide = False
        self._narrow = False
        if dtype == torch.float32:
            return
        self._narrow = True
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.register_forward_hook(self._widen)
            elif isinstance(module, nn.Linear):
                module.forward = partial(self._of, module)  # type: ignore[method-assign]

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
        if self._wide and self._narrow:
            return _WideLinear.apply(x, weight, bias)
        return functional.linear(x, weight, bias)
