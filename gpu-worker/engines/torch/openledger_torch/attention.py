"""
Attention of one new token a row, which is what decoding is made of: heads that share keys and values are rows of one product, so
that these are read where they lie. transformers' own way copies them once a head (grouped-query attention: Ainslie et al. 2023)
whenever there is a mask, and ragged batches always have one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "openledger"


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [rows, heads, tokens, size], key and value [rows, shared heads, seen, size]; gives [rows, tokens, heads, size]."""
    rows, heads, tokens, size = query.shape
    if tokens > 1 or attention_mask is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    shared = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    out = attend(query.reshape(rows, shared, heads // shared, size), key, value, attention_mask, scale)
    return out.reshape(rows, 1, heads, value.shape[-1]), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """
    query [rows, shared heads, heads of each · tokens, size], mask [rows, 1, tokens, seen]; gives the query's shape. Of each
    shared head come all tokens of its first head, then of the second.
    """
    repeats = query.shape[2] // mask.shape[2]
    if mask.shape[2] > 1 and repeats > 1:
        mask = mask.repeat(1, 1, repeats, 1)
    if query.device.type == "cpu" and mask.dtype != torch.bool:
        return _products(query, key, value, mask, scale)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The CPU's fused kernel clears buffers for 32 queries at every call."""
    rows, shared, heads, _ = query.shape
    added = mask.expand(-1, shared, -1, -1).reshape(rows * shared, mask.shape[2], -1)
    scores = torch.baddbmm(added, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale)
    weights = torch.softmax(scores, dim=-1)
    return torch.bmm(weights, value.flatten(0, 1)).view(rows, shared, heads, -1)


def use(model: nn.Module) -> None:
    """Where the model would have taken PyTorch's fused attention; others keep theirs."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        if config._attn_implementation == "sdpa":
            config._attn_implementation = NAME
