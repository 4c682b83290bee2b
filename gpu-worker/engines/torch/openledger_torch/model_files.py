"""The files of a base model's directory, in Hugging Face's layout. Nothing here loads a weight."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from .errors import EngineFault


def read_config(directory: str) -> dict[str, Any]:
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


def weight_files(directory: str) -> list[str]:
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


def sha256_of(paths: list[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
