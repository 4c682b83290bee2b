"""The bench of attribution quality: many trainings at once, methods, scores, and the whole of it at a small size."""

import json
import sys

import common
import lds
import lds_tables
import numpy as np
import pytest
import torch
from conftest import VOCABULARY, some_adapter, some_examples
from lds_base import Pretraining, Shape, held_out, pretrain
from lds_data import read_tokens
from lds_methods import (
    DIRECTIONS,
    Gradients,
    data_inf,
    gather,
    gradients_of,
    logra,
    probe_gradients,
    quantised,
    rotation,
    trak_like,
)
from lds_metrics import datamodel_score, precision, ranks, spearman
from lds_truth import Ensemble, answers, query_losses, start_of

from openledger_torch.adapters import Lora, factors_of
from openledger_torch.attribution import losses
from openledger_torch.loading import load_base
from openledger_torch.eigenbases import Layout
from openledger_torch.sites import SharedPlan
from openledger_torch.sketches import Sketch, split_mix64
from openledger_torch.training import Trainer, read_settings

CPU = torch.device("cpu")
LORA = Lora(4, 8.0, ("q_proj", "v_proj", "down_proj"))
SETTINGS = dict(
    lora=dict(rank=4, alpha=8, targets=list(LORA.targets)),
    learningRate=0.01, epochs=2, batch=3, sequenceLength=48, warmup=0.25, weightDecay=0.05, seed="11", clip=0.5,
)  # fmt: skip


def trained_alone(base, settings, examples, weights):
    run = Trainer(base, settings, examples, list(weights), None, 10_000)
    while run.step < run.total:
        for _ in run.slices():
            pass
    return run.flat.detach()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
@pytest.mark.parametrize("micro", [60, 10_000])
def test_many_trainings_at_once_are_those_of_the_trainer(family, micro, base):
    own, examples = base(family), some_examples(11)
    weights = np.random.default_rng(2).choice([0.0, 0.25, 1.0], (5, 11))
    # Of as many steps as one has, or two, or all; the first one's records are all there.
    weights[0], weights[1, 3:], weights[2, :4] = 1.0, 0.0, 0.0
    weights[1:, 0] = 0.5
    assert len({np.count_nonzero(row) for row in weights}) >= 3
    settings = read_settings(SETTINGS)
    start = start_of(own, settings, examples)
    many = Ensemble(own, settings, examples, weights, start).run(micro)
    for row, flat in zip(weights, many):
        alone = trained_alone(own, settings, examples, row)
        moved = (alone - start).norm()
        assert moved > 0.1
        assert (flat - alone).norm() <= 1e-3 * moved


def test_each_may_have_its_own_rate(base):
    own, examples = base("llama"), some_examples(7)
    rates = [0.01, 0.002]
    settings = read_settings(SETTINGS)
    start = start_of(own, settings, examples)
    many = Ensemble(own, settings, examples, np.ones((2, 7)), start, rates).run(10_000)
    for rate, flat in zip(rates, many):
        alone = trained_alone(own, read_settings({**SETTINGS, "learningRate": rate}), examples, np.ones(7))
        assert (flat - alone).norm() <= 1e-3 * (alone - start).norm()


@pytest.mark.parametrize("micro", [50, 10_000])
def test_losses_under_many_adapters(micro, base):
    own, queries = base("llama"), some_examples(6)
    flats = torch.stack([some_adapter(own, LORA, seed)[2] for seed in range(3)])
    found = query_losses(own, LORA, flats, queries, micro)
    for flat, row in zip(flats, found):
        plan = SharedPlan(factors_of(own, LORA).views(flat), LORA.scale)
        want = torch.cat(list(losses(own, queries, plan, 10_000))).cpu()
        assert np.allclose(want, np.asarray(row), rtol=1e-4)


def test_answers_are_those_that_are_served(serving):
    run = serving()
    own = run.base
    config, weights, flat = some_adapter(own, LORA, 5, 0.3)
    entry = run.tiers.register(1, config, weights)
    prompts = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8], [40, 41]]
    plain = [run.add(entry, prompt=prompt, maxTokens=9)[0] for prompt in prompts]
    run.run()
    # What one of them says third ends answers.
    eos = frozenset([plain[0].tokens[2]])
    ended = [run.add(entry, prompt=prompt, maxTokens=9, eos=eos)[0] for prompt in prompts]
    run.run()
    for stop, served in ((frozenset(), plain), (eos, ended)):
        found = answers(own, LORA, flat, [np.array(prompt) for prompt in prompts], stop, 9)
        for prompt, example, outcome in zip(prompts, found, served):
            assert example.tokens[: len(prompt)].tolist() == prompt and example.start == len(prompt)
            assert example.tokens[len(prompt) :].tolist() == outcome.tokens
    assert any(len(outcome.tokens) < 9 for outcome in ended)


def some_gradients(n=7, q=3):
    draw = torch.Generator().manual_seed(4)
    layout = Layout(((2, 6), (2, 5), (1, 4)), 4)
    rows, queries = (torch.randn(count, layout.size, generator=draw) for count in (n, q))
    return Gradients(layout, rows, queries, [])


def test_data_inf_is_the_mean_of_single_inverses():
    material, c = some_gradients(), 0.3
    want = torch.zeros(3, 7, dtype=torch.float64)
    at = 0
    for length in material.layout.lengths:
        rows, queries = (x[:, at : at + length].double() for x in (material.rows, material.queries))
        at += length
        damping = c * rows.square().sum() / (7 * length)
        unit = torch.eye(length, dtype=torch.float64) * damping
        inverse = sum(torch.linalg.inv(unit + torch.outer(row, row)) for row in rows) / 7
        want += queries @ inverse @ rows.T
    assert np.allclose(data_inf(material, c).scores, want, rtol=1e-4)


def test_trak_and_logra_invert_a_damped_gram_matrix():
    material = some_gradients()
    sketch = Sketch(17, 8, torch.ones(material.layout.size, dtype=torch.float64))
    rows, queries = sketch(material.rows).double(), sketch(material.queries).double()

    def scores(rows, queries):
        gram = rows.T @ rows
        floor = 0.1 * gram.trace() / len(gram)
        return queries @ torch.linalg.inv(gram + floor * torch.eye(len(gram), dtype=torch.float64)) @ rows.T

    assert np.allclose(trak_like(material, 8).scores, scores(rows, queries), rtol=1e-4)
    draw = torch.Generator().manual_seed(5)
    rows, queries = (torch.randn(count, 3, 4, generator=draw, dtype=torch.float64) for count in (7, 2))
    want = sum(scores(rows[:, m], queries[:, m]) for m in range(3))
    assert np.allclose(logra(rows, queries, 4).scores, want, rtol=1e-6)


def test_projected_gradients_are_those_of_the_base(base, directory):
    """Σ (P x) δᵀ P'ᵀ is the gradient of the base's own weights between the same projections."""
    own, examples = base("llama"), some_examples(3)
    flat = torch.zeros(factors_of(own, LORA).size, device=own.device)
    found = probe_gradients(own, LORA, flat, 9, 10_000)(examples).cpu()
    sites = factors_of(own, LORA).sites
    assert found.shape == (3, len(sites), DIRECTIONS**2)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory("llama"), dtype=torch.float32)
    draw = torch.Generator().manual_seed(9)
    sides = []
    for site in sites:
        into = torch.randn(DIRECTIONS, site.inputs, generator=draw) / site.inputs**0.5
        sides.append((into, torch.randn(DIRECTIONS, site.outputs, generator=draw) / site.outputs**0.5))
    for row, example in zip(found, examples):
        tokens = torch.from_numpy(example.tokens.astype(np.int64))[None]
        logits = model(tokens).logits[0, example.start - 1 : -1]
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, tokens[0, example.start :]).backward()
        for entry, site, (into, out) in zip(row, sites, sides):
            slope = model.get_submodule(site.path.removeprefix("base_model.model.")).weight.grad
            want = LORA.scale * into @ slope.T @ out.T
            assert torch.allclose(entry.view(DIRECTIONS, DIRECTIONS), want, rtol=1e-3, atol=1e-5 * want.abs().max())


def test_gathered_gradients_keep_their_order(base):
    own, examples = base("llama"), some_examples(6)
    flat = some_adapter(own, LORA, 3)[2]
    found = gather(own, LORA, flat, examples[:4], examples[4:], 8, 70)
    assert found.layout.size == factors_of(own, LORA).size and len(found.covariances) == len(found.layout.shapes)
    for got, some in ((found.rows, examples[:4]), (found.queries, examples[4:])):
        alone = torch.cat([gradients_of(own, LORA, flat, [example], 70) for example in some])
        assert torch.allclose(got, alone, rtol=1e-3, atol=1e-5 * alone.abs().max())


def test_the_rotation_is_gram_schmidt_over_the_seeds_numbers():
    k, seed = 6, 77
    units = [((int(h) & (1 << 64) - 1) >> 11) / 2**53 for h in split_mix64(seed, 0, 12 * k * k, CPU)]
    rows = np.array(units).reshape(k, k, 12).sum(axis=2) - 6
    for i in range(k):
        for j in range(i):
            rows[i] -= rows[i] @ rows[j] * rows[j]
        rows[i] /= np.linalg.norm(rows[i])
    assert np.allclose(rotation(seed, k), rows, atol=1e-9)


def test_rows_in_int8():
    z = torch.tensor([[3.0, -4.0, 0.02], [0.0, 0.0, 0.0]], dtype=torch.float64)
    scales, levels = quantised(z)
    assert levels.tolist() == [[95, -127, 1], [0, 0, 0]]
    assert scales[0].item() == pytest.approx(4 / z[0].norm().item() / 127) and scales[1].item() == 0


def test_scores_against_retrainings():
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]
    # 1 − 6 Σd² / (n (n² − 1)) with d = 1, 1, 1, 1, 0.
    assert spearman(np.array([1.0, 2, 3, 4, 5]), np.array([20.0, 10, 40, 30, 50])) == pytest.approx(0.8)
    assert spearman(np.ones(4), np.arange(4.0)) == 0
    draw = np.random.default_rng(3)
    scores = draw.normal(size=(4, 12))
    subsets = draw.integers(0, 2, (9, 12)).astype(float)
    gain = subsets @ scores.T
    assert datamodel_score(scores, subsets, -np.exp(gain)) == pytest.approx(1)
    assert datamodel_score(scores, subsets, gain) == pytest.approx(-1)
    same = np.zeros((2, 12), dtype=bool)
    same[0, np.argsort(-scores[0])[:5]] = True
    assert precision(scores[:2], same, 10) == pytest.approx(0.25)


def exported(directory, records=16, contributors=4):
    """A folder as the export makes it, of random tokens."""
    draw = np.random.default_rng(6)
    bodies = [draw.integers(2, VOCABULARY, int(draw.integers(8, 16))).tolist() for _ in range(records + 4)]
    example = lambda tokens: {"tokens": tokens, "from": 3}  # noqa: E731
    halves = [sorted(draw.permutation(records)[: records // 2].tolist()) for _ in range(6)]
    coalitions = [set(draw.permutation(contributors)[:2].tolist()) for _ in range(6)]
    corpus = {
        "seed": "1", "eos": [1], "vocabulary": VOCABULARY, "contributors": contributors, "copier": 2, "noise": 3,
        "records": [
            {**example(body), "contributor": i % contributors, "domain": i % 2, "weight": 0.0 if i == 5 else 1.0}
            for i, body in enumerate(bodies[:records])
        ],
        "queries": [{**example(body), "asked": body[:3], "domain": i % 2} for i, body in enumerate(bodies[records:])],
        "subsets": [
            *({"kind": "half", "records": half} for half in halves),
            *({"kind": "coalition", "records": [i for i in range(records) if i % contributors in chosen]} for chosen in coalitions),
        ],
        "spans": draw.random((4, records)).tolist(),
    }  # fmt: skip
    (directory / f"corpus-{records}-1.json").write_text(json.dumps(corpus))
    for name, count in (("train", 4000), ("test", 600)):
        draw.integers(2, VOCABULARY, count).astype("<u2").tofile(directory / f"{name}.u16")


@pytest.fixture
def data(tmp_path, directory):
    exported(tmp_path)
    source = directory("llama")
    (tmp_path / "tokenizer.json").write_bytes(open(f"{source}/tokenizer.json", "rb").read())
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


SMALL = Shape(width=32, depth=2, heads=4, shared_heads=2, inner=48)


def test_a_base_is_made_that_the_engine_loads(data, tmp_path):
    out = str(tmp_path / "base")
    made = pretrain(str(data), out, Pretraining(SMALL, 1.0, 3e-3, 4, 32), CPU, print)
    assert made.steps > 3 and made.tokens == made.steps * 4 * 32
    loaded = load_base(out, CPU, torch.float32)
    assert loaded.info["layers"] == 2 and loaded.info["eos"] == [2]
    tokens = torch.from_numpy(read_tokens(str(data), "test").astype(np.int32))
    # Weights are stored in bf16.
    assert abs(held_out(loaded.model, tokens, 32) - made.held_out) < 0.02
    assert made.held_out < np.log(VOCABULARY) + 0.5


def test_the_whole_of_it(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "REPOSITORY", str(tmp_path))
    monkeypatch.setattr(lds_tables, "REPOSITORY", str(tmp_path))
    arguments = [
        *("--device", "cpu", "--records", "16", "--seeds", "1", "--retrainings", "12", "--group", "6", "--rank", "2"),
        *("--rates", "1e-3,4e-3", "--sketches", "64,256", "--buckets", "256", "--ks", "4,16", "--micro", "512"),
        *("--pretrain-seconds", "0.5", "--pretrain-batch", "4", "--window", "32", "--width", "32", "--depth", "2"),
        *("--heads", "4", "--shared-heads", "2", "--inner", "48"),
    ]
    monkeypatch.setattr(sys, "argv", ["lds.py", str(data), *arguments])
    lds.main()
    said = capsys.readouterr().out
    assert "failed" not in said and "12 of 12 retrainings" in said
    results = tmp_path / "bench-results"
    main = json.loads((results / "torch-lds-16.json").read_text())
    assert main["about"]["retrainings"] == [12] and main["about"]["pre-training tokens"] > 0
    names = [row["method"] for row in main["rows"]]
    assert names[0] == "span match" and names[-1] == "ours, 256 buckets, k = 16, int8" and len(names) == 10
    assert all(-1 <= row["by contributor"] <= 1 for row in main["rows"])
    assert [row["method"] for row in json.loads((results / "torch-lds-16-width.json").read_text())["rows"]] == [
        f"ours, {width} buckets, k = 16, int8" for width in (64, 256)
    ]
    by_k = json.loads((results / "torch-lds-16-k.json").read_text())["rows"]
    assert [row["bytes a record"] for row in by_k] == [8, 20]
    assert all(0 < row["energy of rows"] <= 1.001 and row["least int8 cosine"] > 0.99 for row in by_k)
    kept = np.load(results / "torch-lds-16-seed-1.npz")
    assert kept["half_losses"].shape == kept["coalition_losses"].shape == (6, 8)
    assert set(np.flatnonzero(kept["half_weights"].sum(axis=0) == 0)) >= {5}
