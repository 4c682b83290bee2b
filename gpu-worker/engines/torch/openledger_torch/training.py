"""
LoRA training as the embedded engine does it (`trainer.ts`): AdamW with decoupled decay, warm-up and cosine, gradient
clipping; a batch's objective is the mean over its examples of weight · mean loss of the example. Initial factors and the
order of examples come from the same seeded numbers. A step is cut into micro-batches (gradient accumulation); between
them others have their turn.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .adapters import Lora, check_lora, factors_of, write_config, write_weights
from .base import BaseModel
from .errors import EngineFault, is_memory
from .examples import Example, batches, check_example, read_examples
from .pass_graphs import TrainingPasses
from .random import Random, shuffled
from .sites import SharedPlan
from .team import Alone, Team

MAGIC = "torch-checkpoint-1"
FACTOR_STREAM = 1
#: The epoch is added.
ORDER_STREAM = 1024
#: Tokens of a micro-batch below which it is not halved when memory runs out.
LEAST_TOKENS = 256


@dataclass(frozen=True)
class Settings:
    lora: Lora
    learning_rate: float
    epochs: int
    steps: int | None
    batch: int
    sequence_length: int
    warmup: float
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    seed: int
    checkpoint_every: int | None


def read_settings(value: dict[str, Any]) -> Settings:
    def number(key: str, otherwise: float | None, good) -> float:
        found = value.get(key, otherwise)
        if type(found) not in (int, float) or not math.isfinite(found) or not good(found):
            raise EngineFault("BAD_SETTINGS", key)
        return found

    def count(key: str, least: int, otherwise: int | None = None) -> int:
        return int(number(key, otherwise, lambda n: n == int(n) and n >= least))

    betas = value.get("betas", [0.9, 0.999])
    if not isinstance(betas, list) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise EngineFault("BAD_SETTINGS", "betas")
    seed = value.get("seed")
    if not isinstance(seed, str) or not seed.isdigit() or int(seed) >= 1 << 64:
        raise EngineFault("BAD_SETTINGS", "seed")
    lora = value.get("lora")
    if not isinstance(lora, dict):
        raise EngineFault("BAD_SETTINGS", "lora")
    steps = count("steps", 1) if value.get("steps") is not None else None
    return Settings(
        lora=check_lora(lora, "BAD_SETTINGS"),
        learning_rate=number("learningRate", None, lambda n: n >= 0),
        epochs=1 if steps is not None else count("epochs", 1),
        steps=steps,
        batch=count("batch", 1),
        sequence_length=count("sequenceLength", 2),
        warmup=number("warmup", None, lambda n: 0 <= n <= 1),
        weight_decay=number("weightDecay", 0, lambda n: n >= 0),
        betas=(betas[0], betas[1]),
        clip=number("clip", 1, lambda n: n >= 0),
        seed=int(seed),
        checkpoint_every=count("checkpointEvery", 1) if value.get("checkpointEvery") is not None else None,
    )


def rate_at(settings: Settings, index: int, total: int) -> float:
    """The rate of step `index` (from 0)."""
    rising = math.ceil(settings.warmup * total)
    if index < rising:
        return settings.learning_rate * (index + 1) / rising
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (index - rising) / (total - rising)))


@dataclass(frozen=True)
class StepResult:
    step: int
    total: int
    loss: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True)
class Checkpoint:
    step: int
    state: bytes


@dataclass(frozen=True)
class Finished:
    steps: int
    tokens: int
    loss: float
    #: adapter_config.json, the final weights, the weights at mid-run.
    files: tuple[bytes, bytes, bytes]


#: What a training tells; `None` between two slices of a step.
Told = StepResult | Checkpoint | Finished | None


class Trainer:
    def __init__(
        self,
        base: BaseModel,
        settings: Settings,
        examples: Sequence[Example],
        weights: Sequence[float] | None,
        resume: bytes | None,
        micro_tokens: int,
        team: Team | None = None,
        rehearse: bool = False,
    ) -> None:
        """`rehearse`: as of {@link ServingGraphs}."""
        self._base = base
        self._settings = settings
        self._team = Alone() if team is None else team
        self.micro_tokens = micro_tokens
        if weights is not None and len(weights) != len(examples):
            raise EngineFault("BAD_SETTINGS", f"{len(weights)} weights for {len(examples)} examples")
        longest = min(settings.sequence_length, base.positions + 1)
        self._examples: list[Example] = []
        self._weights: list[float] = []
        for i, example in enumerate(examples):
            weight = 1.0 if weights is None else float(weights[i])
            if not 0 <= weight <= 1:
                raise EngineFault("BAD_SETTINGS", f"weight {weight} of example {i}")
            cut = Example(example.tokens[:longest], example.start)
            # A response that is cut away whole has no loss.
            if weight == 0 or (len(example.tokens) > longest and example.start >= longest):
                continue
            check_example(base, cut)
            self._examples.append(cut)
            self._weights.append(weight)
        if not self._examples:
            raise EngineFault("BAD_EXAMPLE", "no example with a response and a weight")
        self._per_epoch = -(-len(self._examples) // settings.batch)
        self.total = settings.steps if settings.steps is not None else settings.epochs * self._per_epoch
        self.factors = factors_of(base, settings.lora)
        self._digest = self._digest_of_job()
        self.flat = torch.zeros(self.factors.size, device=base.device)
        self._slopes = torch.zeros_like(self.flat)
        # Views of one vector, whose gradients gather in views of another: the optimiser is one call, whatever the depth.
        self._leaves: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        for key, pair in self.factors.views(self.flat).items():
            slopes = self.factors.views(self._slopes)[key]
            for leaf, slope in zip(pair, slopes):
                leaf.requires_grad_(True)
                leaf.grad = slope
            self._leaves[key] = pair
        self._passes = TrainingPasses(base, SharedPlan(self._leaves, settings.lora.scale), rehearse)
        self.flat.grad = self._slopes
        self._optimiser = torch.optim.AdamW(
            [self.flat], lr=0.0, betas=settings.betas, eps=1e-8, weight_decay=settings.weight_decay, fused=True
        )
        # The state is made here, so that it can be written into and read out before the first step.
        self._first, self._second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._middle: Tensor | None = None
        self._losses: list[float] = []
        self._order: list[int] = []
        self._epoch = -1
        self.step = 0
        self.tokens = 0
        if resume is None:
            self._initialise()
        else:
            self._restore(resume)
        clock = torch.tensor(float(self.step), device=base.device)
        self._optimiser.state[self.flat] = {"step": clock, "exp_avg": self._first, "exp_avg_sq": self._second}

    # ---- steps -----------------------------------------------------------------------------------------------------

    def run(self, base_name: str) -> Iterator[Told]:
        """To the end, a slice at a time. A checkpoint counts as stored when more is asked for."""
        try:
            yield from self._steps(base_name)
        finally:
            self._passes.clear()

    def _steps(self, base_name: str) -> Iterator[Told]:
        every = self._settings.checkpoint_every
        while self.step < self.total:
            result: StepResult | None = None
            try:
                for result in self.slices():
                    if result is None:
                        yield None
            except Exception as error:
                # The step is begun again with smaller micro-batches; one example must fit. A team begins again as a whole.
                if self._team.size > 1 or not is_memory(error) or self.micro_tokens <= LEAST_TOKENS:
                    raise
                self.micro_tokens //= 2
                self._passes.clear()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            assert result is not None
            yield result
            if every is not None and result.step % every == 0:
                yield Checkpoint(result.step, self.checkpoint())
        yield Finished(self.step, self.tokens, self.loss(), self.files(base_name))

    def slices(self) -> Iterator[StepResult | None]:
        """The next step, a micro-batch a slice: `None` after each, the step's result last."""
        settings = self._settings
        chosen = self._batch()
        self._slopes.zero_()
        loss, counted, read = torch.zeros((), device=self._base.device), 0, 0
        team = self._team
        # Longest first, so that what does not fit in memory fails at once; and neighbours are about as long.
        ordered = sorted(chosen, key=lambda index: -len(self._examples[index].tokens))[team.rank :: team.size]
        weights = iter([self._weights[index] for index in ordered])
        for batch in batches(self._base, [self._examples[i] for i in ordered], self.micro_tokens, settings.batch):
            loss += self._passes.backward(batch, [next(weights) / len(chosen) for _ in batch])
            counted += sum(example.responses for example in batch)
            read += sum(len(example.tokens) for example in batch)
            yield None
        team.add_up(self._slopes)
        loss_sum, counted, read = team.add_numbers([loss.item(), counted, read])
        yield self._update(loss_sum / counted, int(read))

    def _batch(self) -> list[int]:
        epoch = self.step // self._per_epoch
        if epoch != self._epoch:
            self._order = shuffled(len(self._examples), Random(self._settings.seed, ORDER_STREAM + epoch))
            self._epoch = epoch
        at = (self.step % self._per_epoch) * self._settings.batch
        return self._order[at : at + self._settings.batch]

    def _update(self, loss: float, read: int) -> StepResult:
        settings = self._settings
        norm = torch.linalg.vector_norm(self._slopes).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise EngineFault("DIVERGED", f"step {self.step + 1}: loss {loss}, gradient norm {norm}")
        if settings.clip > 0 and norm + 1e-6 > settings.clip:
            self._slopes.mul_(settings.clip / (norm + 1e-6))
        rate = rate_at(settings, self.step, self.total)
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        self.step += 1
        self.tokens += read
        self._losses.append(loss)
        if self.step == math.ceil(self.total / 2):
            self._middle = self.flat.detach().clone()
        return StepResult(self.step, self.total, loss, rate, read)

    def _initialise(self) -> None:
        """As PEFT: A uniform in ± 1 / √in (Kaiming's with a = √5), B zero."""
        names = [name for name in self.factors.names if name.endswith("lora_A.weight")]
        places = [self.factors.places[self.factors.of_name[name]] for name in names]
        rank = self.factors.rank
        units = Random(self._settings.seed, FACTOR_STREAM).units(sum(rank * hidden for _, hidden in places))
        values = np.zeros(self.factors.size, dtype=np.float32)
        drawn = 0
        for at, hidden in places:
            count = rank * hidden
            values[at : at + count] = (units[drawn : drawn + count] * 2 - 1) * (1 / math.sqrt(hidden))
            drawn += count
        self.flat.copy_(torch.from_numpy(values))

    # ---- results ---------------------------------------------------------------------------------------------------

    def loss(self) -> float:
        """Mean over the last epoch's worth of steps."""
        last = self._losses[-self._per_epoch :]
        return sum(last) / max(1, len(last))

    def files(self, base_name: str) -> tuple[bytes, bytes, bytes]:
        """adapter_config.json, the final weights, the weights at mid-run."""
        final = self.flat.detach().cpu()
        middle = final if self._middle is None else self._middle.cpu()
        weights = write_weights(self.factors, final)
        return write_config(self._settings.lora, base_name), weights, write_weights(self.factors, middle)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """JSON line, then float32: parameters, both moments, parameters at mid-run if past; then float64 losses."""
        head = {
            "magic": MAGIC,
            "job": self._digest,
            "step": self.step,
            "tokens": self.tokens,
            "middle": self._middle is not None,
        }
        blocks = [self.flat.detach(), self._first, self._second, *([] if self._middle is None else [self._middle])]
        body = b"".join(block.cpu().numpy().astype("<f4").tobytes() for block in blocks)
        return (json.dumps(head) + "\n").encode() + body + np.array(self._losses, dtype="<f8").tobytes()

    def _restore(self, state: bytes) -> None:
        end = state.find(b"\n")
        try:
            head = json.loads(state[: max(0, end)].decode("utf-8"))
        except ValueError as error:
            raise EngineFault("BAD_CHECKPOINT", "not a checkpoint") from error
        if not isinstance(head, dict) or head.get("magic") != MAGIC:
            raise EngineFault("BAD_CHECKPOINT", "not a checkpoint of this engine")
        if head.get("job") != self._digest:
            raise EngineFault("BAD_CHECKPOINT", "a checkpoint of another job")
        step, tokens, middle = head.get("step"), head.get("tokens"), head.get("middle") is True
        if type(step) is not int or type(tokens) is not int or not 0 <= step <= self.total or tokens < 0:
            raise EngineFault("BAD_CHECKPOINT", f"step {step} of {self.total}")
        size = self.factors.size
        count = 4 if middle else 3
        body = state[end + 1 :]
        if len(body) != count * size * 4 + step * 8:
            raise EngineFault("BAD_CHECKPOINT", f"{len(state)} bytes")
        blocks = torch.from_numpy(np.frombuffer(body, dtype="<f4", count=count * size).astype(np.float32).copy())
        self.flat.copy_(blocks[:size])
        self._first.copy_(blocks[size : 2 * size])
        self._second.copy_(blocks[2 * size : 3 * size])
        if middle:
            self._middle = blocks[3 * size :].clone().to(self.flat.device)
        self._losses = np.frombuffer(body, dtype="<f8", offset=count * size * 4).tolist()
        self.step, self.tokens = step, tokens

    def _digest_of_job(self) -> str:
        """What must be the same for a checkpoint to go on: everything but where checkpoints are made."""
        s = self._settings
        digest = hashlib.sha256()
        words = [s.learning_rate, self.total, s.batch, s.sequence_length, s.warmup, s.weight_decay, s.betas, s.clip]
        lora = [s.lora.rank, s.lora.alpha, sorted(s.lora.targets), str(s.seed), str(self._base.dtype)]
        digest.update(json.dumps([self._base.info["files"], lora, words]).encode())
        digest.update(np.array(self._weights, dtype="<f8").tobytes())
        for example in self._examples:
            digest.update(np.array([example.start, len(example.tokens)], dtype="<i4").tobytes())
            digest.update(example.tokens.astype("<i4").tobytes())
        return digest.hexdigest()


def trainer_of(
    base: BaseModel, settings: dict[str, Any], parts: Sequence[bytes | memoryview], micro_tokens: int, team: Team | None = None
) -> Trainer:
    """From what a call brings: examples, float64 weights or nothing, a checkpoint or nothing."""
    examples, weights, resume = parts
    return Trainer(
        base,
        read_settings(settings),
        read_examples(examples),
        np.frombuffer(weights, dtype="<f8").tolist() if len(weights) > 0 else None,
        bytes(resume) if len(resume) > 0 else None,
        micro_tokens,
        team,
    )
