"""Faults that the worker knows by code: the same catalogue as `EngineErrorCode` in `engine.ts`."""

from __future__ import annotations

CODES = frozenset(
    {
        "MODEL_NOT_FOUND",
        "BAD_CONFIG",
        "UNSUPPORTED_MODEL",
        "BAD_TENSORS",
        "BAD_TOKENIZER",
        "BAD_TEMPLATE",
        "BAD_ADAPTER",
        "UNSUPPORTED_ADAPTER",
        "ADAPTER_CLOSED",
        "BAD_SETTINGS",
        "BAD_EXAMPLE",
        "BAD_REQUEST",
        "PROMPT_TOO_LONG",
        "BAD_CHECKPOINT",
        "OUT_OF_MEMORY",
        "OVERLOADED",
        "DIVERGED",
        "ENGINE_CLOSED",
        "ENGINE_FAILED",
    }
)


class EngineFault(Exception):
    def __init__(self, code: str, message: str) -> None:
        assert code in CODES, code
        super().__init__(message)
        self.code = code
        self.message = message


class Cancelled(Exception):
    """The caller gave a call up."""


#: What PyTorch's allocators say on Linux, macOS and Windows, for which it has no class of its own on the CPU.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "std::bad_alloc")


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(each in str(error).lower() for each in _NO_MEMORY)


def fault_of(error: BaseException) -> EngineFault:
    """Any exception as a fault: what is not foreseen is `ENGINE_FAILED`, memory that ran out is `OUT_OF_MEMORY`."""
    if isinstance(error, EngineFault):
        return error
    name = type(error).__name__
    text = str(error)
    if is_memory(error):
        return EngineFault("OUT_OF_MEMORY", text.split("\n")[0] or "memory ran out")
    return EngineFault("ENGINE_FAILED", f"{name}: {text}".split("\n")[0])
