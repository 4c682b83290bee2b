"""
Attribution quality on a base of a size, retraining as truth: the protocol of `test/bench/attribution` (which runs it on the base that
comes along), with the width of sketches and k varied. On a machine without Node, from what `export.ts` wrote:

    python bench/lds.py DATA --pretrain-seconds 80 --budget 220 [--device cuda] [--seeds 1,2,3] [--retrainings 44] …

With `--pretrain-seconds` a base of `--width` × `--depth` is made first, else `--model` is taken. A seed at a time, an adapter is
trained on all records; gradients at its mid-run checkpoint give every method's scores; retrainings on random halves of the records
and of the contributors, many at once, show what queries then lose. Tables are printed and written to bench-results/ after every
seed. `--budget` seconds after the start no more is retrained: what is there is the table, which says how many retrainings it has.
"""

from __future__ import annotations

import time

BEGAN = time.monotonic()

import os  # noqa: E402
import tempfile  # noqa: E402
import traceback  # noqa: E402
from argparse import Namespace  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from typing import Callable, Iterator  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import arguments, load, synchronise, where  # noqa: E402
from lds_base import Pretrained, Pretraining, Shape, pretrain  # noqa: E402
from lds_data import Corpus, read_corpus  # noqa: E402
from lds_methods import (  # noqa: E402
    Gradients,
    Method,
    Preconditioned,
    data_inf,
    gather,
    gradient_dot,
    logra,
    probe_gradients,
    trak_like,
)
from lds_tables import Row, Truth, judged, save, tell  # noqa: E402
from lds_truth import Ensemble, answers, query_losses, start_of  # noqa: E402
from torch import Tensor  # noqa: E402

from openledger_torch.adapters import Lora, read_adapter  # noqa: E402
from openledger_torch.base import BaseModel, choose_device  # noqa: E402
from openledger_torch.errors import is_memory  # noqa: E402
from openledger_torch.examples import Example  # noqa: E402
from openledger_torch.training import Settings, Trainer, read_settings  # noqa: E402

ANSWER_TOKENS = 24
SEQUENCE = 96
#: Of the budget, for what is left to do when retraining ends.
RESERVE_SECONDS = 5.0
#: Retrainings of either kind below which a seed says nothing.
LEAST = 4
#: What a seed takes at least, a record, before one was timed.
SECONDS_A_RECORD = 0.05


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)


def parse() -> Namespace:
    parser = arguments(__doc__)
    parser.set_defaults(targets="all", dtype="fp32")
    parser.add_argument("data", help="the folder that export.ts wrote")
    parser.add_argument("--records", default="144", help="one table for each: 144, 288 or both")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds, from the start of the program")
    parser.add_argument("--retrainings", type=int, default=44, help="a seed, half of them on halves of the contributors")
    parser.add_argument("--group", type=int, default=22, help="retrainings at once")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", default="5e-4,1e-3,2e-3", help="the one that teaches most is taken")
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--buckets", type=int, default=65_536, help="of the sketch while k is varied")
    parser.add_argument("--sketches", default="4096,16384,32768,65536,131072,262144,524288")
    parser.add_argument("--ks", default="16,32,64,96,128,144,192,256,288")
    parser.add_argument("--micro", type=int, default=8192, help="tokens of a pass of all models")
    parser.add_argument("--pretrain-seconds", type=float, default=0.0)
    parser.add_argument("--keep", help="where the base that is made stays")
    for name, value in asdict(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--pretrain-rate", type=float, default=Pretraining.rate)
    parser.add_argument("--pretrain-batch", type=int, default=Pretraining.batch)
    parser.add_argument("--window", type=int, default=Pretraining.window)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def made_base(options: Namespace, directory: str) -> Pretrained:
    shape = Shape(options.width, options.depth, options.heads, options.shared_heads, options.inner)
    settings = Pretraining(
        shape,
        options.pretrain_seconds,
        options.pretrain_rate,
        options.pretrain_batch,
        options.window,
        compile=options.compile,
    )
    device = choose_device(options.device)
    made = pretrain(options.data, directory, settings, device, say)
    say(f"pre-trained: {made.tokens / 1e6:.1f} M tokens in {made.steps} steps, held-out loss {made.held_out:.4f}")
    return made


def settings_of(options: Namespace, lora: Lora, seed: int, rate: float) -> Settings:
    """As `test/bench/attribution/lab.ts` has them."""
    value = dict(rank=lora.rank, alpha=lora.alpha, targets=list(lora.targets))
    return read_settings(
        dict(
            lora=value, learningRate=rate, epochs=options.epochs, batch=8, sequenceLength=SEQUENCE, warmup=0.1,
            seed=str(seed),
        )
    )  # fmt: skip


def chosen_rate(base: BaseModel, options: Namespace, lora: Lora, corpus: Corpus) -> float:
    """The one after which true answers to held-out questions have the least loss."""
    rates = [float(rate) for rate in options.rates.split(",")]
    settings = settings_of(options, lora, corpus.seed, rates[0])
    start = start_of(base, settings, corpus.records)
    before = query_losses(base, lora, start[None], corpus.queries, options.micro).mean()
    many = np.tile(corpus.weights, (len(rates), 1))
    flats = Ensemble(base, settings, corpus.records, many, start, rates).run(options.micro)
    after = query_losses(base, lora, flats, corpus.queries, options.micro).mean(axis=1)
    found = ", ".join(f"{loss:.4f} at rate {rate:g}" for loss, rate in zip(after, rates))
    say(f"held-out questions lose {before:.4f} without an adapter, {found}")
    return rates[int(np.where(np.isfinite(after), after, np.inf).argmin())]


@dataclass(frozen=True)
class Material:
    corpus: Corpus
    settings: Settings
    lora: Lora
    #: The adapter at mid-run.
    checkpoint: Tensor
    #: True answers, then those that the final adapter gives.
    queries: list[Example]
    loss: float


def prepare(base: BaseModel, lora: Lora, corpus: Corpus, settings: Settings, micro: int) -> Material:
    trainer = Trainer(base, settings, corpus.records, corpus.weights.tolist(), None, micro)
    while trainer.step < trainer.total:
        for _ in trainer.slices():
            pass
    config, _, middle = trainer.files("lds")
    checkpoint = read_adapter(base, config, middle)[1].to(base.device)
    own = answers(base, lora, trainer.flat.detach(), corpus.asked, corpus.eos, ANSWER_TOKENS)
    return Material(corpus, settings, lora, checkpoint, [*corpus.queries, *own], trainer.loss())


def scored(base: BaseModel, material: Material, options: Namespace) -> list[Method]:
    """Every method; one that fails is named and left out."""
    corpus, lora = material.corpus, material.lora
    found: Gradients = gather(
        base, lora, material.checkpoint, corpus.records, material.queries, options.block, options.micro
    )
    ks = [k for k in map(int, options.ks.split(",")) if k <= len(corpus.records)]
    widths = sorted({*map(int, options.sketches.split(",")), options.buckets})
    out: list[Method] = []

    def take(what: str, make: Callable[[], Method | Iterator[Method]]) -> None:
        began = time.monotonic()
        try:
            made = make()
            out.extend([made] if isinstance(made, Method) else made)
            synchronise(base)
            say(f"  {what}: {time.monotonic() - began:.2f} s")
        except Exception:
            print(f"{what} failed:\n{traceback.format_exc()}", flush=True)

    def by_logra() -> Method:
        probes = probe_gradients(base, lora, material.checkpoint, corpus.seed, options.micro)
        rows, queries = probes(corpus.records), probes(material.queries)
        return logra(rows, queries, rows.shape[2])

    unknown = np.full((len(material.queries) - len(corpus.queries), len(corpus.records)), np.nan)
    out.append(Method("span match", None, np.concatenate([corpus.spans, unknown])))
    take("TRAK-like, k = 256", lambda: trak_like(found, 256))
    take("TRAK-like, k = 1024", lambda: trak_like(found, 1024))
    take("LoGra", by_logra)
    take("DataInf", lambda: data_inf(found))
    take("gradient dot product", lambda: gradient_dot(found))
    ours = Preconditioned(found)
    take("EK-FAC, rows not normalised", lambda: ours.uncompressed("EK-FAC, rows not normalised", False))
    take("ours, uncompressed", lambda: ours.uncompressed("ours, uncompressed"))
    for width in widths:
        of_width = ks if width == options.buckets else ks[-1:]
        take(f"ours, {width} buckets", lambda: ours.compressed(corpus.seed, width, of_width))
    return out


def retrained(base: BaseModel, material: Material, options: Namespace, until: float) -> Truth:
    """Groups of retrainings, both kinds in each, until the time is over; one group at least."""
    corpus, lora = material.corpus, material.lora
    each = min(options.retrainings // 2, len(corpus.halves), len(corpus.coalitions))
    # Turn by turn, so that there are as many of either kind whenever it ends.
    plan = np.stack([corpus.halves[:each], corpus.coalitions[:each]], axis=1).reshape(2 * each, -1) * corpus.weights
    start = start_of(base, material.settings, corpus.records)
    losses = np.empty((0, len(material.queries)))
    group, took = max(2, options.group // 2 * 2), 0.0
    while len(losses) < len(plan) and (took == 0 or time.monotonic() + took < until):
        some = plan[len(losses) : len(losses) + group]
        began = time.monotonic()
        try:
            flats = Ensemble(base, material.settings, corpus.records, some, start).run(options.micro)
            found = query_losses(base, lora, flats, material.queries, options.micro)
            if not np.isfinite(found).all():
                raise RuntimeError("a retraining diverged")
        except Exception as error:
            if is_memory(error) and group > 2:
                group = max(2, group // 4 * 2)
                say(f"  no memory for so many at once: {group} from now on")
            elif len(losses) > 0:
                print(f"retraining ends here:\n{traceback.format_exc()}", flush=True)
                break
            else:
                raise
        else:
            took = time.monotonic() - began
            losses = np.concatenate([losses, found])
            say(f"  {len(losses)} of {len(plan)} retrainings, {took:.1f} s for {len(some)}")
        flats = None
        if base.device.type == "cuda":
            torch.cuda.empty_cache()
    done = len(losses)
    return Truth((plan[:done:2], losses[::2]), (plan[1:done:2], losses[1::2]))


def main() -> None:
    options = parse()
    say(f"torch {torch.__version__}, started")
    made: Pretrained | None = None
    with tempfile.TemporaryDirectory() as temporary:
        if options.pretrain_seconds > 0:
            options.model = options.keep or os.path.join(temporary, "base")
            made = made_base(options, options.model)
        base, lora = load(options)
    say(f"loaded in {base.dtype}, float32 products: {torch.get_float32_matmul_precision()}")
    about: Row = {**where(base), "rank": lora.rank, "epochs": options.epochs}
    if made is not None:
        about |= {"pre-training tokens": made.tokens, "held-out loss": round(made.held_out, 4)}
    counts, seeds = options.records.split(","), options.seeds.split(",")
    pace = SECONDS_A_RECORD
    for at, count in enumerate(counts):
        pace = Study(base, lora, options, count, about).run(seeds, len(seeds) * (len(counts) - at), pace)
    say("end")


class Study:
    """All seeds of so many records, and their tables."""

    def __init__(self, base: BaseModel, lora: Lora, options: Namespace, count: str, about: Row) -> None:
        self._base = base
        self._lora = lora
        self._options = options
        self._count = count
        self._about = dict(about)
        self._name = f"torch-lds-{count}"
        self._rate: float | None = None
        self._judgements: list[list[Row]] = []
        self._retrainings: list[int] = []

    def run(self, seeds: list[str], still: int, pace: float) -> float:
        """
        `still` seeds, of this study and of those to come, share what is left of the budget. `pace`: seconds a record that the
        last seed took up to its first retrainings; gives the same.
        """
        for at, seed in enumerate(seeds):
            began = time.monotonic()
            left = BEGAN + self._options.budget - RESERVE_SECONDS - began
            if left < pace * int(self._count):
                say(f"no time for seed {seed} of {self._count} records")
                break
            try:
                pace = self._seed(seed, began + left / (still - at))
            except Exception:
                print(f"seed {seed} of {self._count} records failed:\n{traceback.format_exc()}", flush=True)
        self._tell(True)
        return pace

    def _seed(self, seed: str, until: float) -> float:
        began = time.monotonic()
        base, lora, options = self._base, self._lora, self._options
        corpus = read_corpus(os.path.join(options.data, f"corpus-{self._count}-{seed}.json"))
        if self._rate is None:
            self._rate = chosen_rate(base, options, lora, corpus)
        material = prepare(base, lora, corpus, settings_of(options, lora, corpus.seed, self._rate), options.micro)
        say(f"seed {seed}: trained on {len(corpus.records)} records, loss {material.loss:.3f}")
        methods = scored(base, material, options)
        prepared = time.monotonic()
        truth = retrained(base, material, options, until)
        groups = -(-truth.count // options.group)
        pace = (prepared - began + (time.monotonic() - prepared) / groups) / len(corpus.records)
        save(f"{self._name}-seed-{seed}", methods, truth)
        if truth.count < 2 * LEAST:
            say(f"seed {seed}: {truth.count} retrainings say nothing")
            return pace
        self._judgements.append(judged(corpus, methods, truth))
        self._retrainings.append(truth.count)
        self._about |= {"rate": self._rate, "records": len(corpus.records), "adapter": material.checkpoint.numel()}
        self._about |= {"seeds": len(self._judgements), "retrainings": self._retrainings}
        if base.device.type == "cuda":
            self._about["GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        self._tell(False)
        return pace

    def _tell(self, shown: bool) -> None:
        if self._judgements:
            tell(self._name, self._about, self._judgements, self._options.buckets, shown)


if __name__ == "__main__":
    main()
