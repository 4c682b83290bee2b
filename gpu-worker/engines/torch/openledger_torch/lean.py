"""
A model of Llama's build (Llama, Mistral, Qwen 2 and 3) without the modules between, in a third of the calls that transformers'
classes make: calls are what small batches' time goes into, on a GPU even more so. A model is run so only if it gives what
transformers gives for it, which is tried when it is loaded; all others go through transformers.
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


class LeanModel:
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
        half = torch.ones(self._size, device=base.device)
        half[: self._size // 2] = -1
        self._signs = {torch.float32: half, base.dtype: half.to(base.dtype)}
        norms = [self._final, *(n for each in self._layers for n in (each.before, each.behind, each.q_norm, each.k_norm) if n)]
        self._weights = {(norm, dtype): norm.weight.to(dtype) for norm in norms for dtype in self._signs}

    def decode(
        self, ids: Tensor, cache: RaggedCache, masks: Tensor | dict[str, Tensor], lasts: Tensor | None = None
    ) -> Tensor:
        """
        ids [rows, tokens]; `masks` are the cache's for this step. Gives logits [rows, vocabulary] at position `lasts` [rows]
        of each row (default: the first).
        """
        rows, tokens = ids.shape
        heads, shared, size = self._heads, self._shared, self._size
        x = functional.embedding(ids, self._embedding)
        turn = self._turn(x, cache.positions)
        for at, layer in enumerate(self._layers):
            turned, values = self._queries(layer, layer.queries.whole(self._norm(x, layer.before)), turn)
            keys, values = cache.update(turned[:, heads:], values, at)
            grouped = turned[:, :heads].reshape(rows, shared, heads // shared * tokens, size)
            mask = masks if isinstance(masks, Tensor) else masks[layer.kind]
            # Fused kernels give any order of axes: [rows, shared heads, heads of each, tokens, size].
            out = attend(grouped, keys, values, mask, layer.scale).unflatten(2, (-1, tokens))
            x = x + layer.output.whole(out.permute(0, 3, 1, 2, 4).reshape(rows, tokens, heads * size))
            gate, up = layer.gates.whole(self._norm(x, layer.behind)).chunk(2, dim=-1)
            x = x + layer.down.whole(functional.silu(gate) * up)
        x = x[:, :1] if lasts is None else x[torch.arange(rows, device=x.device), lasts][:, None]
        return self._base.head.product(self._norm(x, self._final))[:, 0]

    def read(self, ids: Tensor, places: Tensor, from_layer: int = 0) -> Tensor:
        """
        Whole examples, ids [rows, tokens]; gives logits [n, vocabulary] at `places` [n] of all rows' positions, one row after the
        other. Differentiable from layer `from_layer` on, in float32 where {@link Precision.wide} is.
        """
        rows, tokens = ids.shape
        x = functional.embedding(ids, self._embedding)
        if self._base.precision.widens:
            x = x.float()
        turn = self._turn(x, torch.arange(tokens, device=x.device)[None])
        masks = {kind: self._window(kind, tokens) for kind in self._base.windows}
        wanted = torch.is_grad_enabled()
        for at, layer in enumerate(self._layers):
            with torch.set_grad_enabled(wanted and at >= from_layer):
                turned, values = self._queries(layer, layer.queries.whole(self._norm(x, layer.before)), turn)
                queries, keys = turned.split([self._heads, self._shared], dim=1)
                out = _causal(queries, keys, values, masks[layer.kind], layer.scale)
                x = x + layer.output.whole(out.transpose(1, 2).reshape(rows, tokens, -1))
                gate, up = layer.gates.whole(self._norm(x, layer.behind)).chunk(2, dim=-1)
                x = x + layer.down.whole(functional.silu(gate) * up)
        return self._base.head.product(self._norm(x.flatten(0, 1).index_select(0, places), self._final))

    def _norm(self, x: Tensor, module: nn.Module) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self._weights[module, x.dtype], module.variance_epsilon)

    def _turn(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines [rows, tokens, 1, size]: the same for all heads."""
        cos, sin = self._rotary(x, positions.clamp(max=self._base.positions - 1))
        return cos[:, :, None], (sin * self._signs[x.dtype])[:, :, None]

    def _queries(self, layer: _Layer, y: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Queries and keys with their positions [rows, heads + shared heads, tokens, size], values [rows, shared heads, tokens, size]."""
        heads, shared, size = self._heads, self._shared, self._size
        turned, values = y.view(*y.shape[:2], heads + 2 * shared, size).split([heads + shared, shared], dim=2)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = turned.split([heads, shared], dim=2)
            turned = torch.cat([self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)], dim=2)
        cos, signed = turn
        turned = torch.addcmul(turned * cos, turned.roll(size // 2, -1), signed)
        return turned.transpose(1, 2), values.transpose(1, 2)

    def _window(self, kind: str, tokens: int) -> Tensor | None:
        """[tokens, tokens]: where a query may look, if that is not at all before it."""
        window = self._base.windows[kind]
        if window is None or window >= tokens:
            return None
        at = torch.arange(tokens, device=self._base.device)
        back = at[:, None] - at
        return (back >= 0) & (back < window)


def _causal(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """query [rows, heads, tokens, size], key and value with fewer heads; `mask` None: all that is before."""
    repeats = query.shape[1] // key.shape[1]
    if query.device.type == "cuda" and query.dtype == torch.float32 and repeats > 1:
        # No fused kernel shares heads in float32.
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
        repeats = 1
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=repeats > 1
    )


def lean_model(base: BaseModel) -> LeanModel | None:
    """None where the model is of another build, or does not come out as transformers has it."""
    if type(base.model).__name__ not in FAMILIES:
        return None
    try:
        lean = LeanModel(base)
        with torch.inference_mode():
            return lean if _agrees(base, lean) else None
    except (AttributeError, KeyError, ValueError, RuntimeError):
        return None


def _agrees(base: BaseModel, lean: LeanModel) -> bool:
    count = min(20, base.positions)
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(base.vocabulary, (2, count), generator=draw).to(base.device)
    want = base.model(input_ids=ids, use_cache=False).logits.float()
    cache = RaggedCache(2, base.windows, base.device, base.dtype if base.additive else None)
    for at in range(count):
        masks = cache.begin([0, 1], [at, at], 1)
        if not _near(lean.decode(ids[:, at : at + 1], cache, masks), want[:, at], base.dtype):
            return False
    cache = RaggedCache(2, base.windows, base.device, base.dtype if base.additive else None)
    masks = cache.begin([0, 1], [0, 0], count)
    lasts = torch.tensor([count - 1, count // 2], device=base.device)
    prompts = lean.decode(ids, cache, masks, lasts)
    if not _near(prompts, want[torch.arange(2, device=base.device), lasts], base.dtype):
        return False
    places = torch.arange(2 * count, device=base.device)
    return _near(lean.read(ids, places), want.flatten(0, 1), base.dtype)


def _near(got: Tensor, want: Tensor, dtype: torch.dtype) -> bool:
    return bool((got.float() - want).abs().max() <= TOLERANCE[dtype] * want.abs().max())
