"""
Serving without the modules between: a model of Llama's build (Llama, Mistral, Qwen 2 and 3), in a third of the calls that
transformers' classes make. At small batches these calls are what a step's time goes into, on a GPU even more so. A model is run so
only if it gives what transformers gives for it, which is tried when it is loaded; all others go through transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import attend
from .base import BaseModel
from .cache import RaggedCache
from .sites import Group

FAMILIES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
#: Largest difference to transformers' logits, as a part of the largest of these.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class _Layer:
    before: nn.Module
    behind: nn.Module
    queries: Group
    output: Group
    gates: Group
    down: Group
    #: Norms of the heads of queries and keys, where the family has them.
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    kind: str
    scale: float


def _norm(x: Tensor, module: nn.Module) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


class LeanDecoder:
    def __init__(self, base: BaseModel) -> None:
        model = base.model.model
        self._base = base
        self._embedding = model.embed_tokens.weight
        self._rotary = model.rotary_emb
        self._final = model.norm
        config = base.model.config
        self._heads = config.num_attention_heads
        self._shared = config.num_key_value_heads
        groups = {group.sites[0].key: group for group in base.sites.groups}
        kinds = getattr(config, "layer_types", None)
        self._layers = []
        for at, layer in enumerate(model.layers):
            inner = layer.self_attn
            self._layers.append(
                _Layer(
                    layer.input_layernorm, layer.post_attention_layernorm,
                    groups[at, "q_proj"], groups[at, "o_proj"], groups[at, "gate_proj"], groups[at, "down_proj"],
                    getattr(inner, "q_norm", None), getattr(inner, "k_norm", None),
                    "all" if kinds is None else kinds[at], inner.scaling,
                )
            )
            wanted = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
            last = self._layers[-1]
            found = [tuple(s.target for s in group.sites) for group in (last.queries, last.output, last.gates, last.down)]
            if found != list(wanted) or config.hidden_act != "silu":
                raise ValueError("not of Llama's build")
        self._size = self._layers[0].queries.sites[1].outputs // self._shared
        #: Of rotate_half: the first half of the sines counts negative.
        half = torch.ones(self._size, device=base.device, dtype=base.dtype)
        half[: self._size // 2] = -1
        self._signs = half

    def __call__(
        self, ids: Tensor, cache: RaggedCache, masks: Tensor | dict[str, Tensor], lasts: Tensor | None = None
    ) -> Tensor:
        """
        ids [rows, tokens]; `masks` are the cache's for this step. Gives logits [rows, vocabulary] at position `lasts` [rows]
        of each row (default: the first).
        """
        rows, tokens = ids.shape
        heads, shared, size = self._heads, self._shared, self._size
        x = functional.embedding(ids, self._embedding)
        cos, sin = self._rotary(x, cache.positions.clamp(max=self._base.positions - 1))
        # [rows, tokens, 1, size]: the same for all heads.
        cos, signed = cos[:, :, None], (sin * self._signs)[:, :, None]
        for at, layer in enumerate(self._layers):
            y = layer.queries.whole(_norm(x, layer.before)).view(rows, tokens, heads + 2 * shared, size)
            turned = y[:, :, : heads + shared]
            if layer.q_norm is not None and layer.k_norm is not None:
                q, k = turned.split([heads, shared], dim=2)
                turned = torch.cat([_norm(q, layer.q_norm), _norm(k, layer.k_norm)], dim=2)
            turned = torch.addcmul(turned * cos, turned.roll(size // 2, -1), signed).transpose(1, 2)
            keys, values = cache.update(turned[:, heads:], y[:, :, heads + shared :].transpose(1, 2), at)
            grouped = turned[:, :heads].reshape(rows, shared, heads // shared * tokens, size)
            mask = masks if isinstance(masks, Tensor) else masks[layer.kind]
            out = attend(grouped, keys, values, mask, layer.scale).view(rows, heads, tokens, size)
            x = x + layer.output.whole(out.transpose(1, 2).reshape(rows, tokens, heads * size))
            gate, up = layer.gates.whole(_norm(x, layer.behind)).chunk(2, dim=-1)
            x = x + layer.down.whole(functional.silu(gate) * up)
        x = x[:, :1] if lasts is None else x[torch.arange(rows, device=x.device), lasts][:, None]
        return self._base.head.product(_norm(x, self._final))[:, 0]


def lean_decoder(base: BaseModel) -> LeanDecoder | None:
    """None where the model is of another build, or does not come out as transformers has it."""
    if type(base.model).__name__ not in FAMILIES:
        return None
    try:
        decoder = LeanDecoder(base)
        with torch.inference_mode():
            return decoder if _agrees(base, decoder) else None
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return None


def _agrees(base: BaseModel, decoder: LeanDecoder) -> bool:
    count = min(20, base.positions)
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(base.vocabulary, (2, count), generator=draw).to(base.device)
    want = base.model(input_ids=ids, use_cache=False).logits.float()
    cache = RaggedCache(2, base.windows, base.device, base.dtype if base.additive else None)
    for at in range(count):
        masks = cache.begin([0, 1], [at, at], 1)
        if not _near(decoder(ids[:, at : at + 1], cache, masks), want[:, at], base.dtype):
            return False
    cache = RaggedCache(2, base.windows, base.device, base.dtype if base.additive else None)
    masks = cache.begin([0, 1], [0, 0], count)
    lasts = torch.tensor([count - 1, count // 2], device=base.device)
    return _near(decoder(ids, cache, masks, lasts), want[torch.arange(2, device=base.device), lasts], base.dtype)


def _near(got: Tensor, want: Tensor, dtype: torch.dtype) -> bool:
    return bool((got.float() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max())
