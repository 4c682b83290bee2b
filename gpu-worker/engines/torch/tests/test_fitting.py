"""Bases of an adapter's records, made on the device: against the same steps by hand; files, memory, and what a killed process leaves."""

import json
import os
import struct
import time

import numpy as np
import pytest
import torch
from conftest import some_adapter, some_examples

from openledger_torch import attribution, feature_bases, fitting, probes
from openledger_torch.adapters import Lora, factors_of
from openledger_torch.attribution import Covariances, Scope
from openledger_torch.eigenbases import Turn, eigenbases_of
from openledger_torch.errors import EngineFault
from openledger_torch.feature_bases import FeatureBases
from openledger_torch.features import Eigenbases, Features
from openledger_torch.fitting import Fit, FitSettings
from openledger_torch.probes import Probes
from openledger_torch.sketches import principal_directions

CPU = torch.device("cpu")
LORA = Lora(3, 6.0, ("q_proj", "v_proj", "down_proj"))
SETTINGS = dict(k=5, sketch_width=256, sketch_seed=2**63 + 5, damping=0.01, block=5, from_layer=1, sample=range(12))


def the_fit(base, examples, file=None, flat=None, **changes) -> Fit:
    flat = some_adapter(base, LORA, seed=2)[2] if flat is None else flat
    return Fit(base, examples, LORA, flat, FitSettings(**{**SETTINGS, **changes}), 120, file)


def fitted(*given, **named):
    fit = the_fit(*given, **named)
    told = list(fit.run())
    return fit.result, told


def on_the_cpu(result):
    bases, *others = result
    sides = ([each.cpu() for each in side] for side in (bases.rank, bases.hidden))
    return Eigenbases(bases.layout, *sides, bases.moments.cpu(), bases.damping), *(each.cpu() for each in others)


def by_hand(base, examples, sample):
    """All gradients in memory, one call of each step."""
    flat = some_adapter(base, LORA, seed=2)[2]
    rows = torch.cat([some for some, _ in attribution.gradients(base, examples, LORA, flat, Scope(1), 120)]).cpu()
    sums = Covariances(base, LORA, flat, 1, 5)
    sums.add(examples)
    layout = the_fit(base, examples).layout
    rank, hidden = eigenbases_of(layout, sums.finish())
    moments = Turn(layout, rank, hidden, CPU)(rows).double().square().mean(0).float()
    bases = Eigenbases(layout, rank, hidden, moments, 0.01)
    sketches = Features(bases, SETTINGS["sketch_seed"], 256, None, CPU).sketched(rows)
    vectors, energy = principal_directions(sketches[list(sample)], 5)
    return bases, vectors, energy, sketches


def cosines(a, b):
    a, b = a.double(), b.double()
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def check_result(result, base, examples, sample):
    bases, vectors, energy, reduced = on_the_cpu(result)
    own, own_vectors, own_energy, sketches = by_hand(base, examples, sample)
    assert torch.allclose(bases.moments.double().sum(), own.moments.double().sum(), rtol=1e-4)
    assert torch.allclose(energy, own_energy, rtol=1e-3, atol=1e-6)
    # Scores do not depend on signs, nor on which basis of a space of equal values was found.
    scores, wanted = reduced[:, :5] @ reduced[:, :5].T, (sketches @ own_vectors.T) @ (sketches @ own_vectors.T).T
    assert bool((cosines(scores, wanted) > 1 - 1e-4).all())
    assert torch.allclose(reduced[:, 5], sketches.square().sum(1), rtol=1e-3)
    assert vectors.shape == own_vectors.shape


@pytest.mark.parametrize("sample", [range(12), (0, 3, 4, 7, 8, 9, 11)])
@pytest.mark.parametrize("kept", [0, 30_000, 1 << 30])
def test_a_fit_is_the_same_steps_with_less_memory(base, monkeypatch, sample, kept):
    monkeypatch.setitem(fitting.KEPT_BYTES, "cpu", kept)
    own, examples = base("llama"), some_examples(12)
    result, told = fitted(own, examples, sample=sample)
    check_result(result, own, examples, sample)
    assert [name for i, (name, _) in enumerate(told) if i == 0 or told[i - 1][0] != name] == ["gradients", "bases", "features"]
    for (name, done), (other, more) in zip(told, told[1:]):
        assert name != other or 0 <= done <= more <= 1


def test_gradients_that_do_not_fit_into_memory_are_made_one_by_one(base, monkeypatch):
    own, examples = base("llama"), some_examples(12)

    def scarce(base, batch, adapters, scope):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attribution.gradient_rows(base, batch, adapters, scope)

    monkeypatch.setattr(fitting, "gradient_rows", scarce)
    check_result(fitted(own, examples)[0], own, examples, range(12))


def test_what_a_killed_process_reached_is_gone_on_from(base, monkeypatch, tmp_path):
    own, examples = base("llama"), some_examples(12)
    monkeypatch.setattr(fitting, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "KEEP_TIMES", 0)
    monkeypatch.setitem(fitting.KEPT_BYTES, "cpu", 0)
    sample = (0, 3, 4, 7, 8, 9, 11)
    whole, told = fitted(own, examples, sample=sample)
    passes = []
    real = attribution.gradient_rows
    monkeypatch.setattr(fitting, "gradient_rows", lambda *given: passes.append(1) or real(*given))
    for end in range(1, len(told)):
        file = str(tmp_path / f"fit-{end}.pt")
        fit = the_fit(own, examples, file, sample=sample)
        steps = fit.run()
        before = [next(steps) for _ in range(end)]
        steps.close()
        assert before == told[:end] and os.path.exists(file)
        passes.clear()
        rest = the_fit(own, examples, file, sample=sample)
        after = list(rest.run())
        assert after[-1] == told[-1]
        if before[-1][0] == "features":
            assert len(passes) < len(told) - end + 2, "nothing is made again that was done"
        for a, b in zip(rest.result[1:], whole[1:]):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        rest.forget()
        assert not os.path.exists(file)


def test_a_full_disk_is_no_reason_to_give_up(base, monkeypatch, tmp_path):
    own, examples = base("llama"), some_examples(12)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fitting, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "KEEP_TIMES", 0)
    monkeypatch.setattr(fitting.torch, "save", full)
    fit = the_fit(own, examples, str(tmp_path / "fit-1.pt"))
    list(fit.run())
    check_result(fit.result, own, examples, range(12))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(sample=()), "sample"),
        (dict(sample=(1, 0)), "sample"),
        (dict(sample=(0, 12)), "sample"),
        (dict(sketch_width=100), "power of two"),
        (dict(damping=0.0), "damping"),
        (dict(damping=float("nan")), "damping"),
        (dict(block=0), "blocks"),
        (dict(from_layer=9), "layer"),
    ],
)
def test_settings_that_make_no_sense(base, change, words):
    with pytest.raises(EngineFault, match=words) as caught:
        the_fit(base("llama"), some_examples(12), **change)
    assert caught.value.code == "BAD_REQUEST"
    with pytest.raises(EngineFault, match="no examples"):
        the_fit(base("llama"), [])


# ---- files ---------------------------------------------------------------------------------------------------------


def tensor_file(metadata, tensors) -> bytes:
    """As `attribution/basis-files.ts` writes it."""
    header, data = {"__metadata__": metadata}, b""
    for name, (shape, values) in tensors.items():
        raw = np.asarray(values, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def files_of(base, result) -> tuple[bytes, bytes]:
    bases, vectors, energy, _ = on_the_cpu(result)
    names = factors_of(base, LORA, from_layer=1).names
    tensors = {}
    for m, moments in enumerate(bases.moments.split(bases.layout.lengths)):
        rank, hidden = bases.layout.shapes[m]
        tensors[f"rank.{names[m]}"] = ((rank, rank), bases.rank[m])
        tensors[f"hidden.{names[m]}"] = (bases.hidden[m].shape, bases.hidden[m])
        tensors[f"lambda.{names[m]}"] = ((rank, hidden), moments)
    eigenbases = tensor_file({"format": "openledger-eigenbases/1", "block": "5", "damping": "0.01"}, tensors)
    projection = {"energy": (energy.shape, energy), "vectors": (vectors.shape, vectors)}
    return eigenbases, tensor_file({"format": "openledger-projection/1"}, projection)


def taken(bases, entry, factors=None):
    until = time.monotonic() + 30
    while (features := bases.take(entry, factors)) is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    return features


def test_features_of_several_adapters_in_one_pass_each_in_its_own_bases(base, tmp_path):
    own, examples = base("llama"), some_examples(12)
    result, _ = fitted(own, examples)
    others, _ = fitted(own, examples[:6], sample=range(6), sketch_seed=9, flat=some_adapter(own, LORA, seed=3)[2])
    opened = FeatureBases(own.device, str(tmp_path), 1 << 30)
    entries = [
        opened.register(1, SETTINGS["sketch_seed"], *files_of(own, result)),
        opened.register(2, 9, *files_of(own, others)),
    ]
    factors = factors_of(own, LORA, from_layer=1)
    features = [taken(opened, entry, factors) for entry in entries]
    flats = [some_adapter(own, LORA, seed=seed)[2] for seed in (2, 3)]
    all_probes = Probes(own, 10_000)
    first = all_probes.add(examples[:6], LORA, flats[0], Scope(1), features[0])
    second = all_probes.add(examples[:6], LORA, flats[1], Scope(1), features[1])
    plain = all_probes.add(examples[:2], LORA, flats[0], Scope(1))
    all_probes.step(first)
    assert all_probes.passes == 1 and first.done and second.done and plain.done
    assert torch.cat(plain.results).shape == (2, factors.size)
    for probe, reduced in ((first, result[3].cpu()), (second, others[3].cpu())):
        got = torch.cat(probe.results)
        assert got.shape == (6, 6)
        assert bool((cosines(got[:, :5], reduced[:6, :5]) > 1 - 1e-5).all())
        assert torch.allclose(got[:, 5], reduced[:6, 5], rtol=1e-3)
    opened.shut()


def test_bases_go_from_the_device_to_the_disk_and_back(base, tmp_path):
    own, examples = base("llama"), some_examples(12)
    files = files_of(own, fitted(own, examples)[0])
    # Room for one.
    opened = FeatureBases(CPU, str(tmp_path), 1)
    rows = torch.randn(2, factors_of(own, LORA, from_layer=1).size, generator=torch.Generator().manual_seed(1))
    entries = [opened.register(id, id, *files) for id in (1, 2, 3)]
    made = [taken(opened, entry).reduced(rows) for entry in entries]
    assert not torch.equal(made[0], made[1]), "the seed of the sketch counts"
    for entry, before in zip(entries, made):
        assert torch.equal(taken(opened, entry).reduced(rows), before)
    held = opened.hold(2)
    opened.close(2)
    opened.close(2)
    with pytest.raises(EngineFault, match="closed"):
        opened.hold(2)
    assert torch.equal(taken(opened, held).reduced(rows), made[1]), "whoever holds them has them still"
    opened.release(held)
    assert sorted(os.listdir(tmp_path)) == sorted(f"{id}.{kind}" for id in (1, 3) for kind in ("json", "eigenbases", "projection"))
    # Another process.
    again = FeatureBases(CPU, str(tmp_path), 1 << 30)
    again.recover(1)
    again.recover(3)
    assert torch.equal(taken(again, again.hold(3)).reduced(rows), made[2])
    with pytest.raises(EngineFault, match="not on disk"):
        again.recover(2)
    with pytest.raises(EngineFault, match="open already"):
        again.register(1, 1, *files)
    for each in (opened, again):
        each.shut()


def test_memory_that_runs_out_for_bases_takes_it_from_others(base, tmp_path, monkeypatch):
    own, examples = base("llama"), some_examples(12)
    files = files_of(own, fitted(own, examples)[0])
    opened = FeatureBases(CPU, str(tmp_path), 1 << 30)
    first = opened.register(1, 1, *files)
    real, refused = feature_bases.Features, []

    def scarce(*given):
        if opened._ready:
            refused.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given)

    monkeypatch.setattr(feature_bases, "Features", scarce)
    taken(opened, first)
    assert taken(opened, opened.register(2, 2, *files)).k == 5
    assert refused == [1] and taken(opened, first).k == 5
    monkeypatch.setattr(feature_bases, "Features", lambda *given: scarce(*given) if opened._ready else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        taken(opened, opened.register(3, 3, *files))
    opened.close(1)
    # What a process was told to close that died of it.
    other = FeatureBases(CPU, str(tmp_path), 1 << 30)
    other.close(2)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("2.")]
    for each in (opened, other):
        each.shut()


def test_files_that_are_no_bases_or_those_of_others(base, tmp_path):
    own, examples = base("llama"), some_examples(12)
    eigenbases, projection = files_of(own, fitted(own, examples)[0])
    opened = FeatureBases(CPU, str(tmp_path), 1 << 30)
    broken = {
        "cut off": (eigenbases[:-4], projection),
        "nothing": (b"", projection),
        "one for the other": (projection, eigenbases),
        "damping": (eigenbases.replace(b'"0.01"', b'"-0.1"'), projection),
        "block": (eigenbases.replace(b'"block": "5"', b'"block": "4"'), projection),
        "not a number": (eigenbases[:-4] + struct.pack("<f", float("nan")), projection),
        "negative": (eigenbases[:-4] + struct.pack("<f", -1.0), projection),
        "infinite": (eigenbases, projection[:-4] + struct.pack("<f", float("inf"))),
        "no matrices": (tensor_file({"format": "openledger-eigenbases/1", "block": "5", "damping": "1"}, {}), projection),
    }
    for id, (why, files) in enumerate(broken.items(), 1):
        with pytest.raises(EngineFault) as caught:
            taken(opened, opened.register(id, 1, *files))
        assert caught.value.code == "BAD_REQUEST", why
        opened.close(id)
    entry = opened.register(99, 1, eigenbases, projection)
    for lora, layer in ((LORA, 0), (Lora(4, 6.0, LORA.targets), 1), (Lora(3, 6.0, ("q_proj",)), 1)):
        with pytest.raises(EngineFault, match="other matrices"):
            taken(opened, entry, factors_of(own, lora, from_layer=layer))
    assert taken(opened, entry, factors_of(own, LORA, from_layer=1)).k == 5
    opened.shut()
    assert probes.rows_a_pass(own, LORA, Scope()) == probes.MOST
