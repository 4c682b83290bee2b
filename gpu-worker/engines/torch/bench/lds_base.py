"""
A base model of a size, made from nothing in the seconds there are: a Llama on the token files that `export.ts` writes, AdamW over
float32 weights with matmuls in bf16 on a GPU, warm-up and cosine over the time. Written in Hugging Face layout in bf16.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from lds_data import read_tokens
from torch import Tensor, nn
from torch.nn import functional

POSITIONS = 512


@dataclass(frozen=True)
class Shape:
    width: int = 1024
    depth: int = 10
    heads: int = 16
    shared_heads: int = 4
    inner: int = 2560


@dataclass(frozen=True)
class Pretraining:
    shape: Shape
    seconds: float
    rate: float = 1e-3
    #: Windows a step, and tokens a window.
    batch: int = 64
    window: int = 256
    warmup: int = 100
    compile: bool = False
    seed: int = 2026


@dataclass(frozen=True)
class Pretrained:
    parameters: int
    tokens: int
    steps: int
    #: Mean loss a token of the held-out questions, nats.
    held_out: float


def pretrain(
    data: str, out: str, settings: Pretraining, device: torch.device, say: Callable[[str], None]
) -> Pretrained:
    """`data`: the folder of the export; `out` gets the model. The seconds are those of the steps alone."""
    torch.manual_seed(settings.seed)
    train = torch.from_numpy(read_tokens(data, "train").astype(np.int32)).to(device)
    model = _model(os.path.join(data, "tokenizer.json"), settings.shape, device)
    parameters = sum(p.numel() for p in model.parameters())
    say(f"a base of {parameters / 1e6:.1f} M parameters, {len(train) / 1e6:.2f} M tokens to read")
    forward = _compiled(model, train, settings, say) if settings.compile else model
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    draw = np.random.default_rng(settings.seed)
    starts, at, step, said, kept = _order(draw, len(train), settings.window, device), 0, 0, time.monotonic(), None
    waits: list[torch.cuda.Event] = []
    began = time.monotonic()
    while True:
        gone = (time.monotonic() - began) / settings.seconds
        if gone >= 1:
            break
        if at + settings.batch > len(starts):
            starts, at = _order(draw, len(train), settings.window, device), 0
        rate = settings.rate * min(1.0, (step + 1) / settings.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * gone)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _loss(forward, train, starts[at : at + settings.batch], settings.window)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        at += settings.batch
        step += 1
        kept = loss.detach()
        _keep_pace(waits, device)
        if time.monotonic() - said > 10:
            said = time.monotonic()
            speed = step * settings.batch * settings.window / (said - began)
            say(f"step {step}, loss {kept.item():.3f}, {speed:.0f} tokens/s")
    if kept is None or not math.isfinite(kept.item()):
        raise RuntimeError(f"pre-training diverged: loss {kept}")
    _save(model, data, out)
    held = held_out(model, torch.from_numpy(read_tokens(data, "test").astype(np.int32)).to(device), settings.window)
    del model, forward, optimiser, decayed, plain, train, loss, kept
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Pretrained(parameters, step * settings.batch * settings.window, step, held)


def held_out(model: nn.Module, tokens: Tensor, window: int) -> float:
    """Mean loss a token over whole windows."""
    model.eval()
    starts = torch.arange(0, len(tokens) - window - 1, window, device=tokens.device)
    with torch.no_grad():
        parts = [_loss(model, tokens, some, window).item() * len(some) for some in starts.split(32)]
    return sum(parts) / len(starts)


def _model(tokenizer: str, shape: Shape, device: torch.device) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    with open(tokenizer, encoding="utf-8") as file:
        vocabulary = len(json.load(file)["model"]["vocab"])
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.shared_heads,
        head_dim=shape.width // shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config).to(device)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            # One kernel where transformers has seven.
            module.forward = _norm(module)  # type: ignore[method-assign]
    model.train()
    return model


def _norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    weight, epsilon = module.weight, module.variance_epsilon
    return lambda x: functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _autocast(device: torch.device):
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _loss(model: Callable, tokens: Tensor, starts: Tensor, window: int) -> Tensor:
    rows = tokens[starts[:, None] + torch.arange(window + 1, device=tokens.device)].long()
    with _autocast(tokens.device):
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def _order(draw: np.random.Generator, length: int, window: int, device: torch.device) -> Tensor:
    """Where windows begin, shuffled; they are cut at other places in every round."""
    shift = int(draw.integers(0, window))
    return torch.from_numpy(draw.permutation(np.arange(shift, length - window - 1, window))).to(device)


def _keep_pace(waits: list[torch.cuda.Event], device: torch.device) -> None:
    """At most two steps ahead of the GPU, so that the clock tells its time."""
    if device.type != "cuda":
        return
    event = torch.cuda.Event()
    event.record()
    waits.append(event)
    if len(waits) > 2:
        waits.pop(0).synchronize()


def _compiled(model: nn.Module, tokens: Tensor, settings: Pretraining, say: Callable[[str], None]) -> Callable:
    """The model as it is, where it cannot be compiled."""
    began = time.monotonic()
    try:
        compiled = torch.compile(model)
        starts = torch.arange(settings.batch, device=tokens.device)
        _loss(compiled, tokens, starts, settings.window).backward()
        model.zero_grad(set_to_none=True)
    except Exception as error:
        say(f"not compiled: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return model
    say(f"compiled in {time.monotonic() - began:.1f} s")
    return compiled


def _save(model: nn.Module, data: str, out: str) -> None:
    from safetensors.torch import save_file

    os.makedirs(out, exist_ok=True)
    # The head is the embedding.
    state = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(state, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    config.pop("torch_dtype", None)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1, default=str)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(data, name), os.path.join(out, name))
