"""
Many trainings at once: adapters on one frozen base that differ in the records they see, each with its own rows of every batch
and its own factors (batched products over [models, rank, hidden]). Each is what `Trainer` makes of the same records alone, up to
rounding; a GPU makes dozens in little more than the time of one.
"""

from __future__ import annotations

import warnings
from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from openledger_torch.adapters import Lora, factors_of
from openledger_torch.base import BaseModel
from openledger_torch.examples import Example, pad, response_losses
from openledger_torch.random import Random, shuffled
from openledger_torch.sites import SharedPlan
from openledger_torch.training import ORDER_STREAM, Settings, Trainer, rate_at

# Factors of all models lie in one tensor, a model a row, for the optimiser's sake; products take them as they lie.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")


def start_of(base: BaseModel, settings: Settings, examples: Sequence[Example]) -> Tensor:
    """The factors that every training of these settings begins with: [size]."""
    return Trainer(base, settings, examples, None, None, 1 << 20).flat.detach().clone()


class Ensemble:
    """The trainings of `weights` [models, examples]: an example of weight 0 is not in a model's, as `Trainer` has it."""

    def __init__(
        self,
        base: BaseModel,
        settings: Settings,
        examples: Sequence[Example],
        weights: np.ndarray,
        start: Tensor,
        rates: Sequence[float] | None = None,
    ) -> None:
        """`rates`: a learning rate a model instead of the settings' one. Examples must fit the sequence length."""
        longest = min(settings.sequence_length, base.positions + 1)
        assert settings.steps is None and all(len(example.tokens) <= longest for example in examples)
        self._base = base
        self._settings = settings
        self._examples = list(examples)
        self._weights = weights
        self._kept = [np.flatnonzero(row).tolist() for row in weights]
        assert all(self._kept), "a training without examples"
        self._per_epoch = [-(-len(kept) // settings.batch) for kept in self._kept]
        self._totals = [settings.epochs * count for count in self._per_epoch]
        self._orders: list[list[int]] = [[] for _ in self._kept]
        self._factor = np.ones(len(weights)) if rates is None else np.array(rates) / settings.learning_rate
        self.total = max(self._totals)
        #: [models, size], float32.
        self.flats = start.to(base.device, torch.float32).repeat(len(weights), 1)
        self._slopes = torch.zeros_like(self.flats)
        self._first, self._second = torch.zeros_like(self.flats), torch.zeros_like(self.flats)
        factors = factors_of(base, settings.lora)
        views, slopes = factors.views(self.flats), factors.views(self._slopes)
        for key, pair in views.items():
            for leaf, slope in zip(pair, slopes[key]):
                leaf.requires_grad_(True)
                leaf.grad = slope
        self._plan = SharedPlan(views, settings.lora.scale)
        self._step = 0

    def run(self, micro_tokens: int) -> Tensor:
        """
        All steps of all; the factors [models, size], not finite for those that diverged. `micro_tokens`: of one pass, with
        padding.
        """
        while self._step < self.total:
            self.step(micro_tokens)
        return self.flats.detach()

    def step(self, micro_tokens: int) -> None:
        chosen = [self._batch(model) for model in range(len(self._kept))]
        self._slopes.zero_()
        rows = max(len(some) for some in chosen)
        # The longest of each model together: rows of one pass are then about as long.
        ordered = [sorted(some, key=lambda i: -len(self._examples[i].tokens)) for some in chosen]
        at = 0
        while at < rows:
            longest = max(len(self._examples[some[at]].tokens) for some in ordered if at < len(some))
            count = min(rows - at, max(1, micro_tokens // (len(chosen) * longest)))
            self._pass([some[at : at + count] for some in ordered], [len(some) for some in chosen], count)
            at += count
        self._update()

    def _pass(self, parts: list[list[int]], sizes: list[int], count: int) -> None:
        """`count` rows of every model; what is missing is filled up with the shortest example, at weight 0."""
        filler = min(self._examples, key=lambda example: len(example.tokens))
        batch, factor = [], np.zeros((len(parts), count), dtype=np.float32)
        for model, (part, size) in enumerate(zip(parts, sizes)):
            batch += [self._examples[i] for i in part] + [filler] * (count - len(part))
            for row, i in enumerate(part):
                factor[model, row] = self._weights[model, i] / size
        padded = pad(batch, self._base.device)
        with self._base.sites.using(self._plan):
            sums = response_losses(self._base, padded)
        (sums * torch.from_numpy(factor.reshape(-1)).to(self._base.device) / padded.counts).sum().backward()

    def _batch(self, model: int) -> list[int]:
        """Nothing for a model whose training is over."""
        if self._step >= self._totals[model]:
            return []
        epoch, at = divmod(self._step, self._per_epoch[model])
        kept, size = self._kept[model], self._settings.batch
        if at == 0:
            self._orders[model] = shuffled(len(kept), Random(self._settings.seed, ORDER_STREAM + epoch))
        return [kept[i] for i in self._orders[model][at * size : (at + 1) * size]]

    def _update(self) -> None:
        """Clipping and AdamW with decoupled decay, a model a row; those that are over stay what they are."""
        settings, device = self._settings, self.flats.device
        rates = [
            rate_at(settings, self._step, total) * factor if self._step < total else 0.0
            for total, factor in zip(self._totals, self._factor)
        ]
        rate = torch.tensor(rates, dtype=torch.float32, device=device)[:, None]
        self._step += 1
        with torch.no_grad():
            slopes = self._slopes
            if settings.clip > 0:
                norms = torch.linalg.vector_norm(slopes, dim=1, keepdim=True)
                slopes.mul_((settings.clip / (norms + 1e-6)).clamp(max=1.0))
            low, high = settings.betas
            self._first.lerp_(slopes, 1 - low)
            self._second.mul_(high).addcmul_(slopes, slopes, value=1 - high)
            root = (self._second / (1 - high**self._step)).sqrt_().add_(1e-8)
            if settings.weight_decay > 0:
                self.flats.mul_(1 - rate * settings.weight_decay)
            self.flats.sub_((self._first / root).mul_(rate / (1 - low**self._step)))


def query_losses(base: BaseModel, lora: Lora, flats: Tensor, queries: Sequence[Example], micro_tokens: int) -> np.ndarray:
    """Mean loss of each query under each of `flats` [models, size], in float32: [models, queries]."""
    models = flats.shape[0]
    plan = SharedPlan(factors_of(base, lora).views(flats), lora.scale)
    out = np.empty((models, len(queries)))
    order = sorted(range(len(queries)), key=lambda q: -len(queries[q].tokens))
    at = 0
    while at < len(order):
        count = max(1, micro_tokens // (models * len(queries[order[at]].tokens)))
        some = order[at : at + count]
        padded = pad([queries[q] for q in some] * models, base.device)
        with torch.no_grad(), base.precision.wide(), base.sites.using(plan):
            means = response_losses(base, padded) / padded.counts
        out[:, some] = means.view(models, len(some)).double().cpu().numpy()
        at += count
    return out


def answers(
    base: BaseModel, lora: Lora, flat: Tensor, asked: Sequence[np.ndarray], eos: frozenset[int], most: int
) -> list[Example]:
    """What the adapter answers, greedily, with the token that ends it: each question with its answer of at most `most`."""
    plan = SharedPlan(factors_of(base, lora).views(flat), lora.scale)
    tokens = [list(map(int, prompt)) for prompt in asked]
    going = set(range(len(tokens)))
    for _ in range(most):
        rows = sorted(going)
        if not rows:
            break
        width = max(len(tokens[row]) for row in rows)
        ids = torch.tensor([tokens[row] + [0] * (width - len(tokens[row])) for row in rows], device=base.device)
        places = torch.tensor([at * width + len(tokens[row]) - 1 for at, row in enumerate(rows)], device=base.device)
        with torch.no_grad(), base.precision.wide(), base.sites.using(plan), base.head.at(places):
            logits = base.model(input_ids=ids, use_cache=False).logits
        for row, token in zip(rows, logits.flatten(0, 1).argmax(dim=-1).tolist()):
            tokens[row].append(token)
            if token in eos:
                going.remove(row)
    return [Example(np.array(row, dtype=np.int32), len(prompt)) for row, prompt in zip(tokens, asked)]
