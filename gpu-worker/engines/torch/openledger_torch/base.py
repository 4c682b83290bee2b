"""A base model in Hugging Face layout, loaded by transformers; and where LoRA can be put into it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import attention
from .errors import EngineFault, is_memory
from .lean import LeanModel, lean_model
from .linears import packs
from .precision import Precision
from .sites import Head, Site, SiteHooks

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SITE = re.compile(r"(?:^|\.)layers\.(\d+)\.(self_attn|mlp)\.(%s)$" % "|".join(TARGETS))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class BaseModel:
    model: nn.Module
    info: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    sites: SiteHooks
    head: Head
    #: Tokens that a layer looks back at, itself included; None: all.
    windows: dict[str, int | None]
    #: Attention wants masks that are added (0 or the least number) instead of true and false.
    additive: bool
    precision: Precision
    #: The model without transformers' modules, where it is of a build that has one.
    lean: LeanModel | None = None
    #: Of layouts of adapters' matrices, which entries are of `lora_B`: see `passes.py`.
    sides: dict[tuple, Tensor] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        return self.info["vocabulary"]

    @property
    def positions(self) -> int:
        return self.info["maxPositions"]

    @property
    def layers(self) -> int:
        return self.info["layers"]


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is a usable one, else the CPU."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise EngineFault("BAD_SETTINGS", "device cuda, but torch sees none")
    try:
        return torch.device(wanted)
    except RuntimeError as error:
        raise EngineFault("BAD_SETTINGS", f"device {wanted}") from error


def choose_dtype(wanted: str, device: torch.device, directory: str) -> torch.dtype:
    """
    `auto` is bf16 where the GPU computes in it, else fp32. Weights that are published in float32 stay so: rounded, they would
    be another base model, whose gradients are not those that audits expect.
    """
    if wanted == "auto":
        config = _config(directory)
        stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        good = device.type == "cuda" and torch.cuda.is_bf16_supported() and stored != "float32"
        return torch.bfloat16 if good else torch.float32
    if wanted not in DTYPES:
        raise EngineFault("BAD_SETTINGS", f"dtype {wanted}")
    return DTYPES[wanted]


def load_base(directory: str, device: torch.device, dtype: torch.dtype) -> BaseModel:
    """Faults: MODEL_NOT_FOUND, BAD_CONFIG, UNSUPPORTED_MODEL, BAD_TENSORS. No code of the directory is run, no pickle read,
    nothing downloaded."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    raw = _config(directory)
    weights = _weight_files(directory)
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
            "config": _sha256([os.path.join(directory, "config.json")]),
            "weights": _sha256(weights),
            "tokenizer": _sha256([os.path.join(directory, "tokenizer.json")]),
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


def soft_capped(config: Any) -> bool:
    """Gemma 2 bounds its attention scores, which fused attention does not know of."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def _config(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as error:
        raise EngineFault("MODEL_NOT_FOUND", f"no config.json in {directory}") from error
    except ValueError as error:
        raise EngineFault("BAD_CONFIG", "config.json is not JSON") from error
    if not isinstance(config, dict):
        raise EngineFault("BAD_CONFIG", "config.json is not an object")
    if config.get("quantization_config") is not None:
        # A quantised base gives other gradients than the published one: audits would fail.
        raise EngineFault("UNSUPPORTED_MODEL", "quantised weights")
    return config


def _weight_files(directory: str) -> list[str]:
    """`model.safetensors`, or the shards that the index names (ascending)."""
    index = os.path.join(directory, "model.safetensors.index.json")
    names = ["model.safetensors"]
    if os.path.exists(index):
        try:
            with open(index, encoding="utf-8") as file:
                names = sorted(set(json.load(file)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineFault("BAD_TENSORS", "model.safetensors.index.json: weight_map") from error
        if not names or any(not isinstance(name, str) or os.path.basename(name) != name for name in names):
            raise EngineFault("BAD_TENSORS", "model.safetensors.index.json: weight_map")
    paths = [os.path.join(directory, name) for name in [*names, "tokenizer.json"]]
    for path in paths:
        if not os.path.exists(path):
            raise EngineFault("MODEL_NOT_FOUND", f"no {os.path.basename(path)} in {directory}")
    return paths[:-1]


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


def _sha256(paths: list[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n") or [type(error).__name__])[0][:300]
