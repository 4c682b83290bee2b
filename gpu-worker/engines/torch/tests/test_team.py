"""Training in two processes that add up by accelerate (gloo): the same training as one process does, whatever befalls one."""

import os

import numpy as np
import psutil
import pytest
from conftest import some_examples

from openledger_torch.adapters import read_adapter
from openledger_torch.crew import crew_training
from openledger_torch.errors import EngineFault
from openledger_torch.training import Checkpoint, Finished, StepResult, trainer_of

SETTINGS = dict(
    lora=dict(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"]),
    learningRate=0.01, epochs=3, batch=4, sequenceLength=32, warmup=0.25, weightDecay=0.05, seed="11", clip=0.5,
    checkpointEvery=2,
)


def parts_of(examples, weights=None, resume=b""):
    numbers = [n for e in examples for n in (e.start, len(e.tokens), *e.tokens.tolist())]
    return (
        np.array(numbers, dtype="<i4").tobytes(),
        b"" if weights is None else np.array(weights, dtype="<f8").tobytes(),
        resume,
    )


def heard(training, amid=lambda told: None):
    """Steps, checkpoints, the end."""
    steps, states, end = [], {}, None
    for told in training:
        if isinstance(told, StepResult):
            steps.append(told)
        elif isinstance(told, Checkpoint):
            states[told.step] = told.state
        elif isinstance(told, Finished):
            end = told
        amid(told)
    return steps, states, end


def members() -> list[psutil.Process]:
    """The team's processes, the first member first."""
    return sorted(
        (each for each in psutil.Process().children() if "openledger_torch.member" in each.cmdline()),
        key=lambda each: each.pid,
    )


def test_two_train_what_one_trains(base, directory, tmp_path):
    own, path = base("llama"), directory("llama")
    examples = some_examples(11)
    weights = [1.0, 0.5, 0.25, 1.0, 0.0, 1.0, 0.75, 1.0, 1.0, 0.1, 1.0]
    parts = parts_of(examples, weights)
    # Whole examples one at a time: what two processes do side by side, one does in a row.
    alone_steps, _, alone = heard(trainer_of(own, SETTINGS, parts, 1).run("x"))

    def crew(parts, amid=lambda told: None, micro=1):
        return heard(crew_training(own, path, 2, str(tmp_path), SETTINGS, parts, micro, "x"), amid)

    steps, states, end = crew(parts)
    assert [s.step for s in steps] == [s.step for s in alone_steps]
    assert [s.tokens for s in steps] == [s.tokens for s in alone_steps]
    assert np.allclose([s.loss for s in steps], [s.loss for s in alone_steps], rtol=1e-5)
    assert end.steps == alone.steps and end.tokens == alone.tokens and abs(end.loss - alone.loss) < 1e-5
    assert end.files[0] == alone.files[0]
    for mine, want in zip(end.files[1:], alone.files[1:]):
        a, b = (read_adapter(own, end.files[0], each)[1] for each in (mine, want))
        assert (a - b).norm() <= 1e-3 * b.norm()
    assert end.files[1] != end.files[2], "mid-run is not the end"

    # From a checkpoint that the first half left, to the same bits.
    _, _, resumed = crew(parts_of(examples, weights, states[4]))
    assert resumed.files == end.files and resumed.loss == end.loss

    # One of them is killed amid the training: the team goes back to its last checkpoint, and no step is told twice.
    killed = []

    def kill(told):
        if isinstance(told, StepResult) and told.step == 5 and not killed:
            killed.append(members()[1])
            killed[0].kill()

    again, _, survived = crew(parts, kill)
    assert killed and [s.step for s in again] == [s.step for s in steps]
    assert survived.files == end.files
    assert members() == [], "nobody is left"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(("meeting", "tail"))]


def test_what_a_team_is_told_is_wrong(base, directory, tmp_path):
    own, path = base("llama"), directory("llama")

    def code(settings, parts):
        with pytest.raises(EngineFault) as fault:
            heard(crew_training(own, path, 2, str(tmp_path), settings, parts, 100, "x"))
        return fault.value.code

    good = parts_of(some_examples(4))
    assert code({**SETTINGS, "batch": 0}, good) == "BAD_SETTINGS"
    assert code(SETTINGS, (*good[:2], b"x")) == "BAD_CHECKPOINT"
    assert members() == []
