"""What can be called. A method answers at once, or gives an iterator that does its work a slice a turn."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from . import attribution
from .adapters import factors_of
from .base import BaseModel, choose_device, choose_dtype
from .calls import Call
from .crew import crew_training
from .errors import EngineFault
from .examples import Example, batches, check_example, read_examples
from .feature_bases import FeatureBases
from .features import Features
from .fitting import Fit, FitSettings
from .loading import load_base
from .probes import Probe, Probes
from .serving import Limits, Sequence, Server, read_request
from .sites import SharedPlan
from .tiers import AdapterTiers, Entry, now_ms
from .team import accelerate_version
from .training import Checkpoint, StepResult, Told, trainer_of

Job = Iterator[None]


class Loaded:
    def __init__(self, base: BaseModel, params: dict[str, Any], scratch: str) -> None:
        self.base = base
        on_gpu = base.device.type == "cuda"
        limits = params.get("serving") or {}
        batch, waiting = whole(limits, "batch", 1, 32 if on_gpu else 8), whole(limits, "queue", 0, 64)
        slots = max(batch, whole(params, "slots", 1, 128 if on_gpu else 64))
        free = torch.cuda.mem_get_info(base.device)[0] if on_gpu else 8 << 30
        self.limits = Limits(
            batch=batch,
            queue=waiting,
            prompt_tokens=whole(params, "promptTokens", 1, 2048 if on_gpu else 256),
            cache_bytes=whole(params, "cacheBytes", 1, free // 2),
        )
        host_bytes = whole(params, "hostBytes", 0, 4 << 30)
        self.micro_tokens = whole(params, "microTokens", 1, 8192 if on_gpu else 2048)
        self.directory = str(params.get("directory"))
        #: That a training is spread over.
        self.processes = whole(params, "trainProcesses", 1, 1)
        if self.processes > 1 and accelerate_version() is None:
            raise EngineFault("BAD_SETTINGS", "training in several processes needs accelerate, which Python does not have")
        if on_gpu and self.processes > torch.cuda.device_count():
            raise EngineFault("BAD_SETTINGS", f"{self.processes} training processes, {torch.cuda.device_count()} GPUs")
        slot_bytes = free // 4 if on_gpu else None
        self.tiers = AdapterTiers(base, os.path.join(scratch, "adapters"), slots, host_bytes, slot_bytes)
        self.server = Server(base, self.tiers, self.limits)
        self.probes = Probes(base, self.micro_tokens)
        share = whole(params, "basisBytes", 0, free // 8)
        self.bases = FeatureBases(base.device, os.path.join(scratch, "features"), share)
        self.eos = frozenset(params.get("eos") or base.info["eos"])
        #: Factors of adapters that gradients are taken of, on the device.
        self.devices: dict[int, Tensor] = {}


class Methods:
    def __init__(self, scratch: str, token: Callable[[int, int], None]) -> None:
        self._scratch = scratch
        self._token = token
        self._loaded: Loaded | None = None
        self._sequences: dict[int, tuple[Call, Sequence]] = {}
        self._table: dict[str, Callable[[Call], Job | None]] = {
            "load": self._load,
            "openAdapter": self._open_adapter,
            "recoverAdapters": self._recover_adapters,
            "closeAdapter": self._close_adapter,
            "generate": self._generate,
            "train": self._train,
            "losses": self._losses,
            "gradients": self._gradients,
            "covariances": self._covariances,
            "openFeatures": self._open_features,
            "recoverFeatures": self._recover_features,
            "closeFeatures": self._close_features,
            "features": self._features,
            "fitFeatures": self._fit_features,
            "adapterMetrics": self._adapter_metrics,
        }

    def begin(self, call: Call) -> Job | None:
        method = self._table.get(call.method)
        if method is None:
            raise EngineFault("BAD_REQUEST", f"no method {call.method}")
        return method(call)

    @property
    def waits(self) -> bool:
        """Requests that wait for the disk."""
        return self._loaded is not None and self._loaded.server.waiting > 0

    def figures(self) -> dict[str, Any]:
        """For the heart-beat, which another thread sends."""
        loaded = self._loaded
        if loaded is None:
            return {}
        server, tiers = loaded.server, loaded.tiers
        cuda = loaded.base.device.type == "cuda"
        return {
            "active": server.active,
            "waiting": server.waiting,
            "adapters": tiers.open,
            "generated": server.generated,
            "prompt": server.prompt,
            "steps": server.steps,
            "memory": torch.cuda.memory_allocated(loaded.base.device) if cuda else resident_bytes(),
            "tiers": tiers.tiers(),
        }

    def serve(self) -> bool:
        if self._loaded is None:
            return False
        for call, sequence in list(self._sequences.values()):
            if call.cancelled.is_set():
                self._loaded.server.abort(sequence)
        return self._loaded.server.step()

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.server.close()
            self._loaded.tiers.shut()
            self._loaded.bases.shut()

    # ---- methods ---------------------------------------------------------------------------------------------------

    def _model(self) -> Loaded:
        if self._loaded is None:
            raise EngineFault("BAD_REQUEST", "no model is loaded")
        return self._loaded

    def _load(self, call: Call) -> None:
        if self._loaded is not None:
            raise EngineFault("BAD_REQUEST", "a model is loaded already")
        params = call.params
        threads = params.get("threads")
        if threads is not None:
            torch.set_num_threads(whole(params, "threads", 1, 1))
        device = choose_device(str(params.get("device", "auto")))
        dtype = choose_dtype(str(params.get("dtype", "auto")), device, str(params.get("directory")))
        base = load_base(str(params.get("directory")), device, dtype)
        self._loaded = Loaded(base, params, self._scratch)
        name = "bf16" if dtype == torch.bfloat16 else "fp32"
        kernel = self._loaded.server.kernel
        call.done({**base.info, "device": str(device), "dtype": name, "kernel": kernel, "figures": self.figures()})

    def _open_adapter(self, call: Call) -> None:
        tiers = self._model().tiers
        config, weights = parts_of(call, 2)
        entry = tiers.register(whole(call.params, "adapter", 1, None), bytes(config), bytes(weights))
        lora = {"rank": entry.lora.rank, "alpha": entry.lora.alpha, "targets": list(entry.lora.targets)}
        call.done({"lora": lora, "bytes": entry.bytes, "figures": self.figures()})

    def _recover_adapters(self, call: Call) -> None:
        tiers = self._model().tiers
        for id in call.params.get("adapters") or []:
            tiers.recover(id)
        call.done({"figures": self.figures()})

    def _close_adapter(self, call: Call) -> None:
        loaded = self._model()
        id = whole(call.params, "adapter", 1, None)
        loaded.tiers.close(id)
        loaded.devices.pop(id, None)
        call.done({"figures": self.figures()})

    def _adapter_metrics(self, call: Call) -> None:
        call.done({"adapters": self._model().tiers.report()})

    def _generate(self, call: Call) -> None:
        loaded = self._model()
        request, limit = read_request(loaded.base, call.params, loaded.eos)
        id = call.params.get("adapter")
        entry = None if id is None else loaded.tiers.hold(id)

        def done(how: str | EngineFault) -> None:
            del self._sequences[call.id]
            if entry is not None:
                loaded.tiers.release(entry)
            if isinstance(how, EngineFault):
                call.fail(how)
            else:
                first = sequence.first_ms - sequence.started if sequence.first_ms else 0
                call.done({"finish": how, "firstTokenMs": round(first, 3), "figures": self.figures()})

        sequence = Sequence(
            request, entry, lambda token: self._token(call.id, token), done, limit, now_ms(), list(request.given)
        )
        self._sequences[call.id] = (call, sequence)
        try:
            loaded.server.add(sequence)
        except EngineFault:
            del self._sequences[call.id]
            if entry is not None:
                loaded.tiers.release(entry)
            raise

    def _train(self, call: Call) -> Job:
        loaded = self._model()
        started = reported = now_ms()
        with contextlib.closing(self._training(loaded, call)) as training:
            for told in training:
                if told is None:
                    yield
                elif isinstance(told, StepResult):
                    now = now_ms()
                    speed = told.tokens * 1000 / max(1e-3, now - reported)
                    reported = now
                    call.event(
                        "progress",
                        step=told.step,
                        total=told.total,
                        loss=told.loss,
                        learningRate=told.learning_rate,
                        tokensPerSecond=round(speed, 3),
                    )
                elif isinstance(told, Checkpoint):
                    call.event("checkpoint", [told.state], step=told.step)
                    while not call.stored():
                        time.sleep(0.0005)
                        yield
                else:
                    value = {"steps": told.steps, "tokens": told.tokens, "loss": told.loss}
                    call.done({**value, "milliseconds": round(now_ms() - started, 3)}, list(told.files))

    def _training(self, loaded: Loaded, call: Call) -> Iterator[Told]:
        examples, weights, resume = [*parts_of(call, 1, 3), b"", b""][:3]
        settings = call.params.get("settings") or {}
        name = str(call.params.get("baseName") or loaded.base.info["name"])
        parts = (examples, weights, resume)
        if loaded.processes == 1:
            return trainer_of(loaded.base, settings, parts, loaded.micro_tokens).run(name)
        return crew_training(
            loaded.base, loaded.directory, loaded.processes, self._scratch, settings, parts, loaded.micro_tokens, name
        )

    def _losses(self, call: Call) -> Job:
        loaded = self._model()
        examples = read_examples(parts_of(call, 1)[0])
        id = call.params.get("adapter")
        entry = None if id is None else loaded.tiers.hold(id)
        try:
            plan = None
            if entry is not None:
                views = factors_of(loaded.base, entry.lora).views(self._on_device(loaded, entry))
                plan = SharedPlan(views, entry.lora.scale)
            out: list[float] = []
            for each in attribution.losses(loaded.base, examples, plan, loaded.micro_tokens):
                out += each.double().tolist()
                yield
        finally:
            if entry is not None:
                loaded.tiers.release(entry)
        call.done(None, [np.array(out, dtype="<f8").tobytes()])

    def _gradients(self, call: Call) -> Job:
        """Answers with float64 losses, and float32 gradients one after the other."""
        loaded = self._model()
        examples = read_examples(parts_of(call, 1)[0])
        entry = loaded.tiers.hold(whole(call.params, "adapter", 1, None))
        try:
            probe = yield from self._probed(loaded, call, examples, entry)
        finally:
            loaded.tiers.release(entry)
        rows = [memoryview(each.numpy()).cast("B") for each in probe.results]
        call.done(None, [np.array(probe.losses, dtype="<f8").tobytes(), *rows])

    def _features(self, call: Call) -> Job:
        """Answers with float64 losses, and of each example the float32 coordinates along V_k and the squared norm of its sketch."""
        loaded = self._model()
        examples = read_examples(parts_of(call, 1)[0])
        entry = loaded.tiers.hold(whole(call.params, "adapter", 1, None))
        try:
            bases = loaded.bases.hold(whole(call.params, "features", 1, None))
            try:
                scope = scope_of(call.params)
                attribution.check_scope(loaded.base, [], entry.lora, scope)
                factors = factors_of(loaded.base, entry.lora, from_layer=scope.from_layer)
                while (features := loaded.bases.take(bases, factors)) is None:
                    time.sleep(0.0005)
                    yield
                probe = yield from self._probed(loaded, call, examples, entry, features)
            finally:
                loaded.bases.release(bases)
        finally:
            loaded.tiers.release(entry)
        rows = [memoryview(each.numpy()).cast("B") for each in probe.results]
        call.done(None, [np.array(probe.losses, dtype="<f8").tobytes(), *rows])

    def _probed(
        self, loaded: Loaded, call: Call, examples: list[Example], entry: Entry, features: Features | None = None
    ) -> Generator[None, None, Probe]:
        flat = self._on_device(loaded, entry)
        probe = loaded.probes.add(examples, entry.lora, flat, scope_of(call.params), features)
        try:
            half = max(1, loaded.limits.batch // 2)
            while not probe.done:
                # Where many answers are being made, others will end soon: a pass for several costs little more than for one.
                if loaded.server.active < half or loaded.probes.ripe(half):
                    loaded.probes.step(probe)
                yield
        finally:
            loaded.probes.leave(probe)
        return probe

    def _open_features(self, call: Call) -> Job:
        bases = self._model().bases
        eigenbases, projection = parts_of(call, 2)
        id = whole(call.params, "features", 1, None)
        entry = bases.register(id, seed_of(call.params, "sketchSeed"), eigenbases, projection)
        try:
            while (features := bases.take(entry)) is None:
                time.sleep(0.0005)
                yield
        except BaseException:
            bases.close(id)
            raise
        call.done({"k": features.k, "bytes": features.nbytes})

    def _recover_features(self, call: Call) -> None:
        bases = self._model().bases
        for id in call.params.get("features") or []:
            bases.recover(id)
        call.done()

    def _close_features(self, call: Call) -> None:
        self._model().bases.close(whole(call.params, "features", 1, None))
        call.done()

    def _fit_features(self, call: Call) -> Job:
        """
        Answers with float32 arrays: rank sides and hidden sides of all matrices, Λ, V_k, the energy along its vectors; of each example
        what `features` answers with. Goes on where a process that was killed had got to with the same number `fit`.
        """
        loaded = self._model()
        examples = read_examples(parts_of(call, 2)[0])
        sample = np.frombuffer(call.parts[1], dtype="<i4").tolist()
        entry = loaded.tiers.hold(whole(call.params, "adapter", 1, None))
        try:
            settings = FitSettings(
                k=whole(call.params, "k", 1, None),
                sketch_width=whole(call.params, "sketchWidth", 1, None),
                sketch_seed=seed_of(call.params, "sketchSeed"),
                damping=float(call.params.get("damping", 0)),
                block=whole(call.params, "block", 1, None),
                from_layer=call.params.get("fromLayer", 0),
                sample=sample,
            )
            file = os.path.join(self._scratch, "features", f"fit-{whole(call.params, 'fit', 1, None)}.pt")
            flat = self._on_device(loaded, entry)
            fit = Fit(loaded.base, examples, entry.lora, flat, settings, loaded.micro_tokens, file)
            try:
                for phase, done in fit.run():
                    call.event("progress", phase=phase, done=done)
                    yield
                bases, *others = fit.result
            finally:
                fit.forget()
        finally:
            loaded.tiers.release(entry)
        arrays = [torch.cat(list(bases.rank)), torch.cat(list(bases.hidden)), bases.moments, *others]
        call.done(None, [memoryview(each.cpu().contiguous().numpy()).cast("B") for each in arrays])

    def _covariances(self, call: Call) -> Job:
        """Answers with two parts a matrix, in the order of the layout: rank side, hidden side; float64."""
        loaded = self._model()
        examples = read_examples(parts_of(call, 1)[0])
        entry = loaded.tiers.hold(whole(call.params, "adapter", 1, None))
        try:
            for example in examples:
                check_example(loaded.base, example)
            sums = attribution.Covariances(
                loaded.base,
                entry.lora,
                self._on_device(loaded, entry),
                call.params.get("fromLayer", 0),
                call.params.get("block", 32),
            )
            for batch in batches(loaded.base, examples, loaded.micro_tokens, 64):
                sums.add(batch)
                yield
        finally:
            loaded.tiers.release(entry)
        parts = [memoryview(side.numpy()).cast("B") for pair in sums.finish() for side in pair]
        call.done(None, parts)

    def _on_device(self, loaded: Loaded, entry: Entry) -> Tensor:
        """The last few adapters that were asked for; queries come for the same ones again and again."""
        flat = loaded.devices.pop(entry.id, None)
        if flat is None:
            flat = loaded.tiers.factors(entry).to(loaded.base.device)
        loaded.devices[entry.id] = flat
        while len(loaded.devices) > 8:
            del loaded.devices[next(iter(loaded.devices))]
        return flat


def parts_of(call: Call, least: int, most: int | None = None) -> list:
    if not least <= len(call.parts) <= (least if most is None else most):
        raise EngineFault("BAD_REQUEST", f"{call.method} with {len(call.parts)} parts")
    return call.parts


def whole(values: dict[str, Any], key: str, least: int, otherwise: int | None) -> int:
    value = values.get(key)
    if value is None:
        value = otherwise
    if type(value) is not int or value < least:
        raise EngineFault("BAD_SETTINGS", f"{key}: {value}")
    return value


def scope_of(values: dict[str, Any]) -> attribution.Scope:
    return attribution.Scope(values.get("fromLayer", 0), values.get("stride", 1))


def seed_of(values: dict[str, Any], key: str) -> int:
    """u64, as text: JSON's numbers end at 2⁵³."""
    try:
        seed = int(values[key])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineFault("BAD_SETTINGS", f"{key}: {values.get(key)}") from error
    if not 0 <= seed < 1 << 64:
        raise EngineFault("BAD_SETTINGS", f"{key}: {seed}")
    return seed


def resident_bytes() -> int:
    """Memory of this process. 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
