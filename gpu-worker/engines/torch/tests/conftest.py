"""Models of several families with random weights, small enough for any machine; nothing is downloaded."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from openledger_torch.adapters import Lora, factors_of, write_config, write_weights
from openledger_torch.base import BaseModel
from openledger_torch.examples import Example
from openledger_torch.loading import load_base
from openledger_torch.serving import Limits, Sequence, Server, read_request
from openledger_torch.tiers import AdapterTiers, now_ms

torch.set_num_threads(1)
#: `OPENLEDGER_TEST_DEVICE=cuda` runs on a GPU what the tests do with models.
DEVICE = torch.device(os.environ.get("OPENLEDGER_TEST_DEVICE", "cpu"))
VOCABULARY = 97
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, dict(tie_word_embeddings=True)),
    "mistral": (MistralForCausalLM, MistralConfig, dict(sliding_window=12)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, dict()),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, dict(layer_types=SLIDING, sliding_window=10, use_sliding_window=True)),
    "gemma": (GemmaForCausalLM, GemmaConfig, dict()),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, dict(layer_types=SLIDING, sliding_window=10)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, dict(layer_types=SLIDING, sliding_window=10)),
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """`directory("llama")`, `directory("llama in bf16")`: a model of the family in Hugging Face layout."""
    made: dict[str, str] = {}

    def make(name: str) -> str:
        family, _, half = name.partition(" in ")
        if name not in made:
            path = str(tmp_path_factory.mktemp(name.replace(" ", "-")))
            model_class, config_class, changes = FAMILIES[family]
            torch.manual_seed(7)
            model = model_class(config_class(**{**COMMON, **changes}))
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(torch.randn_like(p) * (0.1 if "norm" in name else 0.8 if "embed" in name else 0.2))
                    if "norm" in name and "gemma" not in family:
                        p.add_(1)
            if half:
                model.to(torch.bfloat16)
            model.save_pretrained(path)
            tokenizer = Tokenizer(models.BPE({chr(33 + i): i for i in range(VOCABULARY)}, []))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.save(os.path.join(path, "tokenizer.json"))
            made[name] = path
        return made[name]

    return make


@pytest.fixture(scope="session")
def base(directory):
    loaded: dict[tuple[str, torch.dtype], BaseModel] = {}

    def load(family: str, dtype: torch.dtype = torch.float32) -> BaseModel:
        if (family, dtype) not in loaded:
            loaded[family, dtype] = load_base(directory(family), DEVICE, dtype)
        return loaded[family, dtype]

    return load


def some_adapter(base: BaseModel, lora: Lora, seed: int, size: float = 0.2) -> tuple[bytes, bytes, torch.Tensor]:
    """Both files, and the flat factors on the device."""
    factors = factors_of(base, lora)
    flat = torch.randn(factors.size, generator=torch.Generator().manual_seed(seed)) * size
    return write_config(lora, "x"), write_weights(factors, flat), flat.to(base.device)


def some_examples(count: int, seed: int = 3) -> list[Example]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(4, 40, count)
    return [
        Example(draw.integers(2, VOCABULARY, length).astype(np.int32), int(draw.integers(1, length - 1)))
        for length in lengths
    ]


@dataclass
class Outcome:
    tokens: list[int]
    how: object = None


class Serving:
    """A server, driven by hand."""

    def __init__(self, base: BaseModel, directory: str, slots: int = 8, host_bytes: int = 1 << 30, rehearse: bool = False,
                 slot_bytes: int | None = None, **limits: int):
        self.base = base
        self.tiers = AdapterTiers(base, directory, slots, host_bytes, slot_bytes)
        options = {**dict(batch=4, queue=64, prompt_tokens=24, cache_bytes=1 << 30), **limits}
        self.server = Server(base, self.tiers, Limits(**options), rehearse)

    def add(self, entry=None, eos=frozenset(), **request) -> tuple[Outcome, Sequence]:
        value = {**dict(prompt=[5, 6, 7], maxTokens=8, temperature=0, topP=1, seed="0"), **request}
        checked, limit = read_request(self.base, value, eos)
        outcome = Outcome(list(checked.given))
        held = None if entry is None else self.tiers.hold(entry.id)

        def done(how) -> None:
            outcome.how = how
            if held is not None:
                self.tiers.release(held)

        sequence = Sequence(checked, held, outcome.tokens.append, done, limit, now_ms(), list(checked.given))
        self.server.add(sequence)
        return outcome, sequence

    def run(self, steps: int = 10_000) -> None:
        idle = 0
        for _ in range(steps):
            if self.server.active == 0 and self.server.waiting == 0:
                return
            if not self.server.step():
                # The disk is being read.
                import time

                time.sleep(0.002)
                idle += 1
                assert idle < 2_000


@pytest.fixture
def serving(base, tmp_path):
    made: list[Serving] = []

    def make(family: str = "llama", **options) -> Serving:
        made.append(Serving(base(family), str(tmp_path / f"adapters{len(made)}"), **options))
        return made[-1]

    yield make
    for each in made:
        each.server.close()
        each.tiers.shut()


def config_of(path: str) -> dict:
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
        return json.load(file)
