"""A LoRA adapter's two files in PEFT's format: checked, read, written as the embedded engine does it (`adapter.ts`)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .base import TARGETS, BaseModel
from .errors import EngineFault
from .sites import Factors


@dataclass(frozen=True)
class Lora:
    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def check_lora(value: dict[str, Any], code: str) -> Lora:
    rank, alpha, targets = value.get("rank"), value.get("alpha"), value.get("targets")
    if type(rank) is not int or not 1 <= rank <= 1024:
        raise EngineFault(code, f"rank {rank}")
    if type(alpha) not in (int, float) or not (math.isfinite(alpha) and alpha > 0):
        raise EngineFault(code, f"alpha {alpha}")
    if not isinstance(targets, list) or not targets:
        raise EngineFault(code, "no target modules")
    for target in targets:
        if target not in TARGETS:
            raise EngineFault(code, f"target module {target}")
    if len(set(targets)) != len(targets):
        raise EngineFault(code, "target modules twice")
    return Lora(rank, alpha, tuple(targets))


def factors_of(base: BaseModel, lora: Lora, code: str = "BAD_SETTINGS", from_layer: int = 0) -> Factors:
    """The layout of an adapter's matrices; the fault is of `code` when the model lacks a target."""
    sites = base.sites.of(lora.targets, from_layer)
    missing = set(lora.targets) - {site.target for site in base.sites.all}
    if missing:
        raise EngineFault(code, f"{base.info['architecture']} has no {', '.join(sorted(missing))}")
    return Factors(sites, lora.rank)


_FALSE = ("use_rslora", "use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias")
_EMPTY_OBJECT = ("modules_to_save", "layers_to_transform", "layer_replication", "rank_pattern", "alpha_pattern")
_EMPTY_LIST = ("exclude_modules", "target_parameters", "trainable_token_indices", "alora_invocation_tokens")


def parse_config(data: bytes) -> Lora:
    """What changes the computation and isn't plain LoRA is refused by name."""
    try:
        config = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise EngineFault("BAD_ADAPTER", "adapter_config.json is not JSON") from error
    if not isinstance(config, dict):
        raise EngineFault("BAD_ADAPTER", "adapter_config.json is not an object")
    if config.get("peft_type") != "LORA":
        raise EngineFault("UNSUPPORTED_ADAPTER", f"a PEFT {config.get('peft_type')}")

    def neutral(key: str, value: Any) -> bool:
        if key in _FALSE:
            return value is False
        if key in _EMPTY_OBJECT:
            return isinstance(value, (dict, list)) and len(value) == 0
        return isinstance(value, list) and len(value) == 0

    for key in (*_FALSE, *_EMPTY_OBJECT, *_EMPTY_LIST):
        value = config.get(key)
        if value is not None and not neutral(key, value):
            raise EngineFault("UNSUPPORTED_ADAPTER", f"{key}: {json.dumps(value)}")
    if config.get("bias", "none") not in (None, "none"):
        raise EngineFault("UNSUPPORTED_ADAPTER", f"bias: {json.dumps(config['bias'])}")
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        raise EngineFault("UNSUPPORTED_ADAPTER", "target_modules is not a list of names")
    return check_lora({"rank": config.get("r"), "alpha": config.get("lora_alpha"), "targets": targets}, "BAD_ADAPTER")


def read_adapter(base: BaseModel, config: bytes, weights: bytes) -> tuple[Lora, Tensor]:
    """Settings and the flat float32 factors on the CPU."""
    lora = parse_config(config)
    factors = factors_of(base, lora, "BAD_ADAPTER")
    try:
        tensors = safetensors.torch.load(bytes(weights))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise EngineFault("BAD_ADAPTER", f"safetensors: {error}") from error
    flat = torch.empty(factors.size)
    for name in factors.names:
        tensor = tensors.pop(name, None)
        if tensor is None:
            raise EngineFault("BAD_ADAPTER", f"no tensor {name}")
        layer, target, side = factors.of_name[name]
        place = factors.view(flat, layer, target, side)
        turned = tensor if side == "A" else tensor.t() if tensor.dim() == 2 else tensor
        if tensor.dim() != 2 or turned.shape != place.shape:
            wanted = list(place.shape) if side == "A" else list(place.shape)[::-1]
            raise EngineFault("BAD_ADAPTER", f"{name} is {list(tensor.shape)}, not {wanted}")
        place.copy_(turned)
    if tensors:
        raise EngineFault("BAD_ADAPTER", f"tensor {next(iter(tensors))} has no place in this base model")
    if not bool(torch.isfinite(flat).all()):
        raise EngineFault("BAD_ADAPTER", "entries that are not finite")
    return lora, flat


def write_config(lora: Lora, base_name: str) -> bytes:
    config = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted(lora.targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def write_weights(factors: Factors, flat: Tensor) -> bytes:
    tensors = {}
    for name in factors.names:
        layer, target, side = factors.of_name[name]
        matrix = factors.view(flat, layer, target, side)
        tensors[name] = (matrix if side == "A" else matrix.t()).contiguous()
    return safetensors.torch.save(tensors, metadata={"format": "pt"})
