"""Every family: serving, losses and gradients against transformers and peft themselves."""

import os

import numpy as np
import pytest
import torch
from conftest import FAMILIES, some_adapter, some_examples
from peft import PeftModel
from transformers import AutoModelForCausalLM

from openledger_torch import attribution, linears
from openledger_torch.adapters import Lora, factors_of, read_adapter
from openledger_torch.base import TARGETS
from openledger_torch.errors import EngineFault
from openledger_torch.examples import Example
from openledger_torch.lean import lean_model
from openledger_torch.sites import SharedPlan

LORAS = [Lora(4, 8.0, TARGETS), Lora(3, 5.0, ("q_proj", "v_proj"))]


def peft_model(directory: str, path, files):
    os.makedirs(path, exist_ok=True)
    for name, data in zip(("adapter_config.json", "adapter_model.safetensors"), files):
        with open(os.path.join(path, name), "wb") as file:
            file.write(data)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(model, str(path)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_pefts(family, base, directory, tmp_path):
    own = base(family)
    examples = some_examples(7)
    for at, lora in enumerate(LORAS):
        config, weights, flat = some_adapter(own, lora, seed=at)
        assert torch.equal(read_adapter(own, config, weights)[1], flat.cpu())
        factors = factors_of(own, lora)
        theirs = peft_model(directory(family), tmp_path / str(at), (config, weights))
        named = {n.replace(".default", ""): p for n, p in theirs.named_parameters() if "lora_" in n}
        assert set(named) == set(factors.names), "adapters have PEFT's names"
        for p in named.values():
            p.requires_grad_(True)
        plan = SharedPlan(factors.views(flat), lora.scale)
        losses = torch.cat(list(attribution.losses(own, examples, plan, 100)))
        both = list(attribution.gradients(own, examples, lora, flat, attribution.Scope(), 100))
        gradients = torch.cat([rows for rows, _ in both]).cpu()
        assert len(both) > 1, "several batches, in order"
        for row, example in enumerate(examples):
            theirs.zero_grad()
            tokens = torch.from_numpy(example.tokens.astype(np.int64))[None]
            logits = theirs(tokens).logits[0, example.start - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, example.start :])
            loss.backward()
            assert abs(loss.item() - losses[row].item()) < 1e-5 * max(1, loss.item())
            for name in factors.names:
                layer, target, side = factors.of_name[name]
                mine = factors.view(gradients[row], layer, target, side)
                want = named[name].grad if side == "A" else named[name].grad.t()
                assert (mine - want).norm() <= 1e-4 * want.norm() + 1e-9, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_gives_what_generate_gives(family, serving, directory, tmp_path):
    run = serving(family, batch=3, prompt_tokens=9)
    assert (run.base.lean is not None) == (not family.startswith("gemma")), "with or without transformers' modules"
    entries, models = [], []
    for at, lora in enumerate(LORAS):
        config, weights, _ = some_adapter(run.base, lora, seed=at, size=0.1)
        entries.append(run.tiers.register(at + 1, config, weights))
        models.append(peft_model(directory(family), tmp_path / str(at), (config, weights)))
    plain = AutoModelForCausalLM.from_pretrained(directory(family), dtype=torch.float32, attn_implementation="eager")
    draw = np.random.default_rng(5)
    prompts = [draw.integers(2, 97, length).tolist() for length in (3, 17, 1, 8, 30, 5, 12)]
    added = []
    for at, prompt in enumerate(prompts):
        which = at % 3
        entry = None if which == 2 else entries[which]
        outcome, _ = run.add(entry, prompt=prompt, maxTokens=14 + at)
        added.append((outcome, plain if entry is None else models[which], prompt, 14 + at))
    run.run()
    for outcome, model, prompt, count in added:
        ids = torch.tensor([prompt])
        want = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert outcome.how == "length"
        assert outcome.tokens == want


def test_a_model_that_comes_out_wrong_without_its_modules_is_left_to_transformers(base, monkeypatch):
    own = base("llama")
    assert lean_model(own) is not None
    # As if a later version of the family had another constant somewhere.
    norm = own.model.model.layers[1].input_layernorm
    monkeypatch.setattr(norm, "forward", lambda x: 1.01 * type(norm).forward(norm, x))
    assert lean_model(own) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_products_on_onednn_are_plain_ones(family, base, monkeypatch):
    """What the tests' models are too small to reach by themselves."""
    own = base(family)
    lora = LORAS[0]
    _, _, flat = some_adapter(own, lora, seed=2)
    rows = lambda: torch.cat(  # noqa: E731
        [r for r, _ in attribution.gradients(own, some_examples(5), lora, flat, attribution.Scope(), 10_000)]
    )
    monkeypatch.setattr(linears, "PACKED_WORK", 1 << 60)
    plain = rows()
    monkeypatch.setattr(linears, "PACKED_WORK", 0)
    assert (rows() - plain).norm() <= 1e-5 * plain.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_layer_on(family, base):
    own = base(family)
    lora = LORAS[0]
    _, _, flat = some_adapter(own, lora, seed=1)
    examples = some_examples(3)
    whole, late = factors_of(own, lora), factors_of(own, lora, from_layer=2)
    (all_rows, _), = attribution.gradients(own, examples, lora, flat, attribution.Scope(), 10_000)
    (some_rows, _), = attribution.gradients(own, examples, lora, flat, attribution.Scope(from_layer=2), 10_000)
    assert some_rows.shape[1] == late.size < whole.size
    for name in late.names:
        place = late.of_name[name]
        assert torch.equal(whole.view(all_rows, *place), late.view(some_rows, *place))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_in_three(family, base):
    """The mean of the gradients of single tokens' losses, at 0, 3, 6 … of the response."""
    own = base(family)
    lora = LORAS[1]
    _, _, flat = some_adapter(own, lora, seed=3)
    examples = some_examples(4)

    def rows(of, stride):
        scope = attribution.Scope(stride=stride)
        return torch.cat([r for r, _ in attribution.gradients(own, of, lora, flat, scope, 10_000)])

    for example, row in zip(examples, rows(examples, 3)):
        ends = range(example.start, len(example.tokens), 3)
        want = rows([Example(example.tokens[: end + 1], end) for end in ends], 1).mean(dim=0)
        assert (row - want).norm() <= 1e-4 * want.norm()
    with pytest.raises(EngineFault):
        rows(examples, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_over_bf16_weights_are_those_in_fp32(family, base):
    """What audits between engines of both precisions rest on: `test/bench/torch-audit.ts` for distributions."""
    exact, half = base(f"{family} in bf16"), base(f"{family} in bf16", torch.bfloat16)
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    lora = LORAS[0]
    _, _, flat = some_adapter(exact, lora, seed=1, size=0.1)
    examples = some_examples(12)
    rows = [torch.cat([r for r, _ in attribution.gradients(b, examples, lora, flat, attribution.Scope(), 10_000)]) for b in (exact, half)]
    assert rows[1].dtype == torch.float32
    # Gemma multiplies its embeddings by a constant that it rounds to the type of the weights.
    limit = 1e-2 if family.startswith("gemma") else 1e-4
    assert ((rows[0] - rows[1]).norm(dim=1) <= limit * rows[0].norm(dim=1)).all()
    losses = [torch.cat(list(attribution.losses(b, examples, None, 10_000))) for b in (exact, half)]
    assert torch.allclose(*losses, rtol=limit)
