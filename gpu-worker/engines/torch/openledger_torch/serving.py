"""
Continuous batching (Orca, Yu et al. 2022) over adapters: each step decodes one token of every running sequence and reads
some of the prompts of new ones; sequences join and leave between steps, each with its own adapter. Who joins next is
decided between adapters first: the one with the fewest sequences running, then the one that had the least served, so that
a flood of requests for one doesn't keep others out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Callable

import torch

from .base import BaseModel
from .cache import RaggedCache
from .errors import EngineFault, fault_of
from .graphs import can_record
from .kernels import gather_kernel
from .plans import MixedPlans
from .random import uniform53
from .sampler import sample
from .serving_graphs import ServingGraphs
from .tiers import AdapterTiers, Entry, now_ms


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    #: Tokens that were sampled before (by an engine that died): generation goes on behind them.
    given: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    eos: frozenset[int]


@dataclass(eq=False)
class Sequence:
    request: Request
    entry: Entry | None
    #: Called with each token that is sampled.
    token: Callable[[int], None]
    #: Called once: 'stop', 'length', 'aborted', or a fault.
    done: Callable[[str | EngineFault], None]
    limit: int
    started: float
    tokens: list[int] = field(default_factory=list)
    row: int = -1
    slot: int = 0
    #: Positions in the cache.
    filled: int = 0
    first_ms: float = 0.0
    over: bool = False

    @property
    def total(self) -> int:
        return len(self.request.prompt) + len(self.tokens)

    @property
    def adapter(self) -> int:
        return 0 if self.entry is None else self.entry.id


@dataclass
class Limits:
    batch: int
    queue: int
    #: Prompt tokens read a step, so that those who decode do not wait long.
    prompt_tokens: int
    #: What keys and values may take.
    cache_bytes: int


class Server:
    def __init__(self, base: BaseModel, tiers: AdapterTiers, limits: Limits, rehearse: bool = False) -> None:
        """`rehearse`: what CUDA graphs would be recorded of is run, where there are none."""
        self._base = base
        self._tiers = tiers
        self._limits = limits
        recorded = rehearse or can_record(base)
        rows = limits.batch + 1 if recorded else limits.batch
        self._cache = RaggedCache(rows, base.windows, base.device, base.dtype if base.additive else None)
        kernel = gather_kernel(base.device)
        self.kernel = kernel is not None
        self._plans = MixedPlans(tiers, kernel)
        self._prompt_plans = MixedPlans(tiers, None)
        self._graphs = (
            ServingGraphs(base, tiers, self._cache, self._plans, limits.batch, rehearse) if recorded else None
        )
        self._running: list[Sequence] = []
        self._waiting: OrderedDict[int, deque[Sequence]] = OrderedDict()
        #: Tokens served of each adapter with requests, counted from where the others stood when it came.
        self._served: dict[int, float] = {}
        # Counts that the heart-beat's thread reads: plain numbers, no walk over what this thread changes.
        self.waiting = 0
        self.generated = 0
        self.prompt = 0
        self.steps = 0
        self.rows = 0

    @property
    def active(self) -> int:
        return len(self._running)

    @property
    def cache_bytes(self) -> int:
        return self._cache.bytes

    def add(self, sequence: Sequence) -> None:
        """Faults: OVERLOADED when the queue is full, or when one adapter's requests fill most of it."""
        waiting = self.waiting
        queue = self._waiting.get(sequence.adapter, ())
        if self.active + waiting >= self._limits.batch + self._limits.queue:
            raise EngineFault("OVERLOADED", f"{waiting} requests are waiting")
        share = self._limits.batch + self._limits.queue * 3 // 4
        if len(self._waiting) > 1 and len(queue) >= share:
            raise EngineFault("OVERLOADED", f"{len(queue)} requests of this adapter are waiting")
        if sequence.entry is not None:
            self._tiers.note(sequence.entry)
            self._tiers.ready(sequence.entry)
        if sequence.adapter not in self._served:
            # A newcomer is not owed what it did not ask for.
            self._served[sequence.adapter] = min(self._served.values(), default=0.0)
        self._waiting.setdefault(sequence.adapter, deque()).append(sequence)
        self.waiting += 1

    @torch.inference_mode()
    def abort(self, sequence: Sequence) -> None:
        self._leave(sequence, "aborted")

    def step(self) -> bool:
        """One step. False when there was nothing that could be done."""
        with torch.inference_mode():
            self._admit()
            if not self._running:
                return False
            try:
                self._step()
            except Exception as error:
                self._fail(error)
            return True

    @torch.inference_mode()
    def close(self) -> None:
        for sequence in [*self._running, *(s for queue in self._waiting.values() for s in queue)]:
            self._leave(sequence, "aborted")
        if self._graphs is not None:
            self._graphs.clear()
        self._cache.clear()

    # ---- joining and leaving ---------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while len(self._running) < self._limits.batch and self._waiting:
            running: dict[int, int] = {}
            for sequence in self._running:
                running[sequence.adapter] = running.get(sequence.adapter, 0) + 1
            order = sorted(
                self._waiting, key=lambda id: (running.get(id, 0), self._served[id], self._waiting[id][0].started)
            )
            sequence = next((s for id in order if self._fits(s := self._waiting[id][0])), None)
            if sequence is None:
                return
            queue = self._waiting[sequence.adapter]
            queue.popleft()
            self.waiting -= 1
            if not queue:
                del self._waiting[sequence.adapter]
            sequence.row = len(self._running)
            self._running.append(sequence)
            if sequence.entry is not None:
                sequence.entry.counts.waited_ms += now_ms() - sequence.started

    def _fits(self, sequence: Sequence) -> bool:
        """With its adapter in a slot, if there is one to be had."""
        longest = max([len(s.request.prompt) + s.limit for s in self._running] + [0])
        wanted = len(sequence.request.prompt) + sequence.limit
        if self._cache.bytes_at(max(longest, wanted)) > self._limits.cache_bytes and self._running:
            return False
        if sequence.entry is None:
            return True
        try:
            if not self._tiers.ready(sequence.entry):
                return False
            slot = self._tiers.pin(sequence.entry)
        except Exception as error:
            self._leave(sequence, fault_of(error))
            return False
        if slot is None:
            return False
        sequence.slot = slot
        return True

    def _leave(self, sequence: Sequence, how: str | EngineFault) -> None:
        if sequence.over:
            return
        sequence.over = True
        if sequence.row >= 0:
            if isinstance(how, EngineFault):
                self._cache.wipe(sequence.row)
            last = self._running.pop()
            if last is not sequence:
                # Rows stay without gaps.
                self._running[sequence.row] = last
                self._cache.move(last.row, sequence.row, last.filled)
                last.row = sequence.row
            if sequence.entry is not None:
                self._tiers.unpin(sequence.entry)
        else:
            queue = self._waiting.get(sequence.adapter)
            if queue is not None and sequence in queue:
                queue.remove(sequence)
                self.waiting -= 1
                if not queue:
                    del self._waiting[sequence.adapter]
        if sequence.adapter not in self._waiting and all(s.adapter != sequence.adapter for s in self._running):
            self._served.pop(sequence.adapter, None)
        sequence.done(how)

    def _fail(self, error: Exception) -> None:
        """Memory that runs out costs the youngest half of the batch its place; anything else ends the batch."""
        fault = fault_of(error)
        memory = fault.code == "OUT_OF_MEMORY"
        victims = self._running[len(self._running) // 2 :] if memory else list(self._running)
        for sequence in reversed(victims):
            self._leave(sequence, fault)
        if memory and self._graphs is not None:
            self._graphs.clear()
        if memory and self._base.device.type == "cuda":
            torch.cuda.empty_cache()

    # ---- a step ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self.steps += 1
        self._read_prompts()
        decoding = [s for s in self._running if s.filled == s.total - 1 and s.tokens]
        if not decoding:
            return
        # Those still at their prompts take part with a token whose key and value are written over later.
        rows = self._running
        ids = [[s.tokens[-1] if s.tokens and s.filled == s.total - 1 else 0] for s in rows]
        logits = self._forward(rows, ids, [s.filled for s in rows], self._plans, True, [0] * len(rows))
        self.rows += len(decoding)
        for sequence in decoding:
            sequence.filled += 1
        self._next([(s, s.row) for s in decoding], logits)

    def _read_prompts(self) -> None:
        budget = self._limits.prompt_tokens
        part: list[tuple[Sequence, int]] = []
        for sequence in self._running:
            # A sequence that goes on after a crash reads what was sampled before like a prompt.
            left = sequence.total - sequence.filled - (1 if sequence.tokens and sequence.first_ms else 0)
            count = min(left, budget)
            if count > 0:
                part.append((sequence, count))
                budget -= count
        if not part:
            return
        width = max(count for _, count in part)
        ids = []
        for s, count in part:
            known = [*s.request.prompt, *s.tokens]
            ids.append(known[s.filled : s.filled + count] + [0] * (width - count))
        rows = [s for s, _ in part]
        lasts = [count - 1 for _, count in part]
        logits = self._forward(rows, ids, [s.filled for s in rows], self._prompt_plans, False, lasts)
        ready = []
        for at, (s, count) in enumerate(part):
            length = len(s.request.prompt)
            read = max(0, min(length - s.filled, count))
            self.prompt += read
            if s.entry is not None:
                s.entry.counts.prompt_tokens += read
            s.filled += count
            if s.filled == s.total:
                ready.append((s, at))
        self._next(ready, logits)

    def _forward(self, rows, ids, starts, plans: MixedPlans, keep: bool, lasts: list[int]) -> torch.Tensor:
        """Logits [rows, vocabulary] at position `lasts[i]` of row i."""
        if self._graphs is not None:
            numbers = ([s.row for s in rows], starts, [s.slot for s in rows], lasts)
            logits = self._graphs.forward(ids, *numbers)
            if logits is not None:
                return logits
        device = self._base.device
        tokens = len(ids[0])
        masks = self._cache.begin([s.row for s in rows], starts, tokens)
        read = torch.tensor(ids, device=device)
        at = None if tokens == 1 else torch.tensor(lasts, device=device)
        with self._base.sites.using(plans.of([s.slot for s in rows], tokens, keep)):
            if self._base.lean is not None:
                return self._base.lean.decode(read, self._cache, masks, at)
            columns = sorted(set(lasts))
            out = self._base.model(
                input_ids=read,
                attention_mask=masks,
                position_ids=self._cache.positions.clamp(max=self._base.positions - 1),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1 if columns == [tokens - 1] else torch.tensor(columns, device=device),
            )
        if len(columns) == 1:
            return out.logits[:, 0]
        kept = torch.tensor([columns.index(last) for last in lasts], device=device)
        return out.logits[torch.arange(len(rows), device=device), kept]

    def _next(self, ready: list[tuple[Sequence, int]], logits: torch.Tensor) -> None:
        if not ready:
            return
        at = [index for _, index in ready]
        chosen = logits if at == list(range(logits.shape[0])) else logits[torch.tensor(at, device=logits.device)]
        requests = [s.request for s, _ in ready]
        uniforms = [
            uniform53(r.seed, len(s.tokens)) if r.temperature > 0 else 0.0 for r, (s, _) in zip(requests, ready)
        ]
        ids = sample(chosen, [r.temperature for r in requests], [r.top_p for r in requests], uniforms)
        for (sequence, _), id in zip(ready, ids):
            if sequence.over:
                continue
            if isinstance(id, EngineFault):
                self._leave(sequence, id)
                continue
            if sequence.first_ms == 0:
                sequence.first_ms = now_ms()
                if sequence.entry is not None:
                    sequence.entry.counts.first_token_ms += sequence.first_ms - sequence.started
            sequence.tokens.append(id)
            self.generated += 1
            self._served[sequence.adapter] = self._served.get(sequence.adapter, 0.0) + 1
            if sequence.entry is not None:
                sequence.entry.counts.tokens += 1
            sequence.token(id)
            if id in sequence.request.eos:
                self._leave(sequence, "stop")
            elif len(sequence.tokens) >= sequence.limit:
                self._leave(sequence, "length")


def read_request(base: BaseModel, value: dict, eos: frozenset[int]) -> tuple[Request, int]:
    """A request as it came, checked; and the number of tokens it may make at most."""

    def bad(message: str) -> EngineFault:
        return EngineFault("BAD_REQUEST", message)

    prompt, given = value.get("prompt"), value.get("given", [])
    for ids in (prompt, given):
        if not isinstance(ids, list):
            raise bad("tokens that are no list")
        for id in ids:
            if type(id) is not int or not 0 <= id < base.vocabulary:
                raise bad(f"token {id}")
    if not prompt:
        raise bad("the prompt has no token")
    if len(prompt) >= base.positions:
        raise EngineFault("PROMPT_TOO_LONG", f"{len(prompt)} tokens for a model of {base.positions} positions")
    max_tokens, temperature, top_p, seed = (value.get(k) for k in ("maxTokens", "temperature", "topP", "seed"))
    if type(max_tokens) is not int or max_tokens < 1:
        raise bad(f"maxTokens {max_tokens}")
    if type(temperature) not in (int, float) or not 0 <= temperature <= 100:
        raise bad(f"temperature {temperature}")
    if type(top_p) not in (int, float) or not 0 < top_p <= 1:
        raise bad(f"topP {top_p}")
    if not isinstance(seed, str) or not seed.isdigit() or int(seed) >= 1 << 64:
        raise bad("seed")
    limit = min(max_tokens, base.positions - len(prompt))
    if len(given) >= limit:
        raise bad("nothing is left to generate")
    return Request(prompt, given, max_tokens, float(temperature), float(top_p), int(seed), eos), limit
