"""A base model from its directory: transformers' modules with places for LoRA, and the lean build beside them where there is one."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import nn

from . import attention
from .base import TARGETS, BaseModel, soft_capped
from .errors import EngineFault, is_memory
from .lean import lean_model
from .linears import packs
from .model_files import read_config, sha256_of, weight_files
from .precision import Precision
from .sites import Head, Site, SiteHooks

_SITE = re.compile(r"(?:^|\.)layers\.(\d+)\.(self_attn|mlp)\.(%s)$" % "|".join(TARGETS))


def load_base(directory: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Faults: MODEL_NOT_FOUND, BAD_CONFIG, UNSUPPORTED_MODEL, BAD_TENSORS. No code of the directory is run, no pickle read,
    nothing downloaded."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    raw = read_config(directory)
    weights = weight_files(directory)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        code = "UNSUPPORTED_MODEL" if isinstance(error, (KeyError, ValueError)) else "BAD_CONFIG"
        raise EngineFault(code, f"config.json: {_first_line(error)}") from error
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager" if soft_capped(config) else "sdpa",
            output_loading_info=True,
        )
    except Exception as error:
        if is_memory(error):
            raise
        unknown = isinstance(error, ValueError) and "Unrecognized configuration class" in str(error)
        code = "UNSUPPORTED_MODEL" if unknown else "BAD_TENSORS"
        raise EngineFault(code, _first_line(error)) from error
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        found = sorted(str(key) for key in report.get(kind) or [])
        if found:
            raise EngineFault("BAD_TENSORS", f"{kind.replace('_', ' ')}: {', '.join(found[:3])}")
    model.requires_grad_(False)
    model.eval()
    model.to(device)
    sites = _sites(model)
    if not sites:
        raise EngineFault("UNSUPPORTED_MODEL", f"{type(model).__name__} has no linear layer of the usual names")
    text = model.config.get_text_config()
    info = {
        "architecture": type(model).__name__,
        "name": os.path.basename(os.path.normpath(directory)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": int(text.vocab_size),
        "width": int(text.hidden_size),
        "layers": int(text.num_hidden_layers),
        "maxPositions": int(getattr(text, "max_position_embeddings", 2048)),
        "bos": _ids(raw.get("bos_token_id"))[:1],
        "eos": _ids(raw.get("eos_token_id")),
        "files": {
            "config": sha256_of([os.path.join(directory, "config.json")]),
            "weights": sha256_of(weights),
            "tokenizer": sha256_of([os.path.join(directory, "tokenizer.json")]),
        },
        "sites": [[s.layer, s.target, s.inputs, s.outputs] for s in sites],
    }
    attention.use(model)
    precision = Precision(model, device, dtype)
    reordered = packs(model, device, dtype)
    hooks, head = SiteHooks(sites, precision, reordered), Head(model.get_output_embeddings(), precision, reordered)
    # On the CPU a mask that is added saves turning it into one in every layer.
    additive = soft_capped(config) or device.type == "cpu"
    base = BaseModel(model, info, device, dtype, hooks, head, _windows(text), additive, precision)
    base.lean = lean_model(base)
    return base


def _sites(model: nn.Module) -> list[Site]:
    found: dict[tuple[int, str], Site] = {}
    for name, module in model.named_modules():
        match = _SITE.search(name)
        if match is None or not isinstance(module, nn.Linear):
            continue
        layer, block, target = int(match[1]), match[2], match[3]
        path = f"base_model.model.model.layers.{layer}.{block}.{target}"
        found[layer, target] = Site(layer, target, path, module.in_features, module.out_features, module)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], TARGETS.index(key[1])))]


def _windows(config: Any) -> dict[str, int | None]:
    """What each kind of layer looks back at. One entry: all layers are of that kind."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds <= {"full_attention", "sliding_attention"} and kinds:
        return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
    if kinds:
        raise EngineFault("UNSUPPORTED_MODEL", f"layers of kind {', '.join(sorted(kinds))}")
    return {"all": window}


def _ids(value: Any) -> list[int]:
    return [] if value is None else [int(id) for id in (value if isinstance(value, list) else [value])]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n") or [type(error).__name__])[0][:300]
