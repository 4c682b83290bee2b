"""Models and adapters that are not right are refused by name."""

import json
import os
import shutil

import pytest
import torch
from conftest import some_adapter

from openledger_torch.adapters import Lora, read_adapter
from openledger_torch.loading import load_base
from openledger_torch.errors import EngineFault


def code(body):
    with pytest.raises(EngineFault) as fault:
        body()
    return fault.value.code


def test_models(directory, tmp_path):
    cpu = torch.device("cpu")
    copies = iter(range(100))

    def broken(change):
        path = str(tmp_path / f"copy{next(copies)}")
        shutil.copytree(directory("llama"), path)
        change(path)
        return code(lambda: load_base(path, cpu, torch.float32))

    def config(**changes):
        def change(path):
            name = os.path.join(path, "config.json")
            with open(name, encoding="utf-8") as file:
                value = json.load(file)
            with open(name, "w", encoding="utf-8") as file:
                json.dump({**value, **changes}, file)

        return change

    def write(name, data):
        def change(path):
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)

        return change

    assert code(lambda: load_base(str(tmp_path / "none"), cpu, torch.float32)) == "MODEL_NOT_FOUND"
    assert broken(lambda path: os.unlink(os.path.join(path, "tokenizer.json"))) == "MODEL_NOT_FOUND"
    assert broken(lambda path: os.unlink(os.path.join(path, "model.safetensors"))) == "MODEL_NOT_FOUND"
    assert broken(write("config.json", b"{")) == "BAD_CONFIG"
    assert broken(config(model_type="nonsense", architectures=["Nonsense"])) == "UNSUPPORTED_MODEL"
    assert broken(config(quantization_config=dict(quant_method="x"))) == "UNSUPPORTED_MODEL"
    assert broken(config(num_hidden_layers=5)) == "BAD_TENSORS", "layers that are not in the file"
    assert broken(config(num_hidden_layers=2)) == "BAD_TENSORS", "layers that are only in the file"
    assert broken(config(intermediate_size=64)) == "BAD_TENSORS"
    assert broken(write("model.safetensors", b"\xff" * 64)) == "BAD_TENSORS"
    assert broken(write("model.safetensors.index.json", b'{"weight_map":{"a":"../b"}}')) == "BAD_TENSORS"


def test_no_code_of_a_model_runs(directory, tmp_path):
    path = str(tmp_path / "evil")
    shutil.copytree(directory("llama"), path)
    mark = tmp_path / "ran"
    with open(os.path.join(path, "evil.py"), "w", encoding="utf-8") as file:
        file.write(f"open({str(mark)!r}, 'w')\nclass C: pass\n")
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
        value = json.load(file)
    value.update(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"})
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as file:
        json.dump(value, file)
    assert code(lambda: load_base(path, torch.device("cpu"), torch.float32)) == "UNSUPPORTED_MODEL"
    assert not mark.exists()


def test_adapters(base):
    own = base("llama")
    config, weights, _ = some_adapter(own, Lora(4, 8.0, ("q_proj", "v_proj")), 1)
    settings = json.loads(config)

    def opened(new_weights=weights, **changes):
        return code(lambda: read_adapter(own, json.dumps({**settings, **changes}).encode(), new_weights))

    assert code(lambda: read_adapter(own, b"[", weights)) == "BAD_ADAPTER"
    assert opened(weights[:100]) == "BAD_ADAPTER"
    assert opened(r=5) == "BAD_ADAPTER"
    assert opened(r=0) == "BAD_ADAPTER"
    assert opened(target_modules=["q_proj"]) == "BAD_ADAPTER"
    assert opened(target_modules="all-linear") == "UNSUPPORTED_ADAPTER"
    assert opened(use_dora=True) == "UNSUPPORTED_ADAPTER"
    assert opened(peft_type="IA3") == "UNSUPPORTED_ADAPTER"
    assert opened(rank_pattern=dict(q_proj=2)) == "UNSUPPORTED_ADAPTER"
    assert opened(bias="all") == "UNSUPPORTED_ADAPTER"
    infinite = some_adapter(own, Lora(4, 8.0, ("q_proj", "v_proj")), 1, size=float("inf"))
    assert code(lambda: read_adapter(own, config, infinite[1])) == "BAD_ADAPTER"
