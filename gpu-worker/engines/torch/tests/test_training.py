"""Training against torch's own AdamW under peft, checkpoints, and what is refused."""

import json

import numpy as np
import pytest
import torch
from conftest import FAMILIES, some_examples
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from openledger_torch.adapters import read_adapter
from openledger_torch.errors import EngineFault
from openledger_torch.random import Random, shuffled
from openledger_torch.training import ORDER_STREAM, Trainer, rate_at, read_settings

SETTINGS = dict(
    lora=dict(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"]),
    learningRate=0.01, epochs=2, batch=3, sequenceLength=32, warmup=0.25, weightDecay=0.05, seed="11", clip=0.5,
)


def trainer(base, examples, resume=None, weights=None, micro=10_000, **changes):
    return Trainer(base, read_settings({**SETTINGS, **changes}), examples, weights, resume, micro)


def finish(run, states=None):
    losses = []
    while run.step < run.total:
        for result in run.slices():
            pass
        losses.append(result.loss)
        if states is not None:
            states.append(run.checkpoint())
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_pefts_with_adamw(family, base, directory):
    own = base(family)
    examples = some_examples(8)
    weights = [1.0, 0.5, 0.25, 1.0, 0.0, 1.0, 0.75, 1.0]
    run = trainer(own, examples, weights=weights)
    config, start, _ = run.files("x")
    first = read_adapter(own, config, start)[1]
    losses = finish(run)

    model = AutoModelForCausalLM.from_pretrained(directory(family), dtype=torch.float32, attn_implementation="eager")
    lora = SETTINGS["lora"]
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=lora["targets"], task_type="CAUSAL_LM", lora_dropout=0)
    )
    model.eval()
    named = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    factors = run.factors
    assert set(named) == set(factors.names)
    with torch.no_grad():
        for name, p in named.items():
            layer, target, side = factors.of_name[name]
            view = factors.view(first, layer, target, side)
            p.copy_(view if side == "A" else view.t())
    kept = [(e, w) for e, w in zip(examples, weights) if w > 0]
    optimiser = torch.optim.AdamW(named.values(), lr=1, betas=(0.9, 0.999), weight_decay=0.05)
    per_epoch = -(-len(kept) // 3)
    for step in range(run.total):
        order = shuffled(len(kept), Random(11, ORDER_STREAM + step // per_epoch))
        chosen = order[(step % per_epoch) * 3 :][:3]
        total, counted, objective = 0.0, 0, 0.0
        for at in chosen:
            example, weight = kept[at]
            tokens = torch.from_numpy(example.tokens[:32].astype(np.int64))[None]
            logits = model(tokens).logits[0, example.start - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, tokens[0, example.start :], reduction="sum")
            objective = objective + weight * loss / (tokens.shape[1] - example.start) / len(chosen)
            total, counted = total + loss.item(), counted + tokens.shape[1] - example.start
        optimiser.zero_grad()
        objective.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 0.5)
        optimiser.param_groups[0]["lr"] = rate_at(read_settings(SETTINGS), step, run.total)
        optimiser.step()
        assert abs(losses[step] - total / counted) < 1e-4 * losses[step]
    for name, p in named.items():
        layer, target, side = factors.of_name[name]
        mine = factors.view(run.flat.detach().cpu(), layer, target, side)
        want = p.detach() if side == "A" else p.detach().t()
        assert (mine - want).norm() <= 1e-3 * want.norm(), name


def test_it_goes_on_from_any_checkpoint_to_the_same_bits(base):
    own, examples = base("llama"), some_examples(8)
    states: list[bytes] = []
    run = trainer(own, examples)
    finish(run, states)
    files = run.files("x")
    assert files[1] != files[2], "mid-run is not the end"
    for at in (0, 2, 4, len(states) - 1):
        again = trainer(own, examples, resume=states[at])
        finish(again)
        assert again.files("x") == files
        assert again.loss() == run.loss() and again.tokens == run.tokens


def test_micro_batches_change_nothing_but_rounding(base):
    own, examples = base("llama"), some_examples(8)
    whole, cut = trainer(own, examples, batch=8), trainer(own, examples, batch=8, micro=40)
    a, b = finish(whole), finish(cut)
    assert np.allclose(a, b, rtol=1e-5)
    assert (whole.flat - cut.flat).norm() <= 1e-3 * whole.flat.norm()


def test_bf16_base_trains(base):
    losses = finish(trainer(base("llama", torch.bfloat16), some_examples(8), epochs=12, learningRate=0.03))
    assert sum(losses[-3:]) < sum(losses[:3]) - 0.5


def test_what_is_not_right_is_refused(base):
    own, examples = base("llama"), some_examples(6)

    def code(body):
        with pytest.raises(EngineFault) as fault:
            body()
        return fault.value.code

    states: list[bytes] = []
    finish(trainer(own, examples), states)
    assert code(lambda: trainer(own, examples[1:], resume=states[0])) == "BAD_CHECKPOINT"
    assert code(lambda: trainer(own, examples, resume=states[0], learningRate=0.02)) == "BAD_CHECKPOINT"
    assert code(lambda: trainer(own, examples, resume=states[0][:-9])) == "BAD_CHECKPOINT"
    assert code(lambda: trainer(own, examples, resume=b"x")) == "BAD_CHECKPOINT"
    assert code(lambda: finish(trainer(own, examples, learningRate=1e30, clip=0))) == "DIVERGED"
    for change in (dict(batch=0), dict(warmup=2), dict(learningRate=None), dict(seed="x"), dict(epochs=0),
                   dict(betas=[0.9, 1]), dict(lora=dict(rank=0, alpha=1, targets=["q_proj"])),
                   dict(lora=dict(rank=1, alpha=1, targets=["c_attn"]))):
        assert code(lambda: trainer(own, examples, **change)) == "BAD_SETTINGS", change
    assert code(lambda: trainer(own, [])) == "BAD_EXAMPLE"
    assert code(lambda: trainer(own, examples, weights=[1.0])) == "BAD_SETTINGS"
    config = json.loads(trainer(own, examples).files("my base")[0])
    assert config["base_model_name_or_path"] == "my base" and config["peft_type"] == "LORA"
