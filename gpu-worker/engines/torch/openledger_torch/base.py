"""A base model that stands ready, whatever loaded it, and the choice of its device and number format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .cache import RaggedCache
from .errors import EngineFault
from .model_files import read_config
from .precision import Precision
from .sites import Head, SiteHooks

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LeanPasses(Protocol):
    """The passes of a model that is run without transformers' modules (see `lean.py`, which says what they take and give)."""

    def decode(
        self, ids: Tensor, cache: RaggedCache, masks: Tensor | dict[str, Tensor], lasts: Tensor | None = None
    ) -> Tensor: ...

    def read(self, ids: Tensor, places: Tensor, from_layer: int = 0) -> Tensor: ...


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
    lean: LeanPasses | None = None
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
        config = read_config(directory)
        stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        good = device.type == "cuda" and torch.cuda.is_bf16_supported() and stored != "float32"
        return torch.bfloat16 if good else torch.float32
    if wanted not in DTYPES:
        raise EngineFault("BAD_SETTINGS", f"dtype {wanted}")
    return DTYPES[wanted]


def soft_capped(config: Any) -> bool:
    """Gemma 2 bounds its attention scores, which fused attention does not know of."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
