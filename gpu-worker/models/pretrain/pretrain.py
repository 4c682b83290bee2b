"""Second step of pre-training: `python pretrain.py MODEL_DIRECTORY WORK_DIRECTORY [--minutes 30]`.

Reads the token files that prepare.ts wrote, trains a small Llama from nothing (AdamW, warm-up, cosine, bf16 matmuls, fp32
weights) and writes config.json and model.safetensors (fp16) to the model's directory. Needs torch, transformers and safetensors,
here only: the product itself needs no Python.
"""

import argparse
import json
import math
import os
import time

import numpy
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

BEGIN, END, PAD = 1, 2, 0
SHAPE = dict(
    hidden_size=192,
    num_hidden_layers=6,
    num_attention_heads=6,
    num_key_value_heads=3,
    intermediate_size=512,
)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("work")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--tokens", type=int, default=0, help="stop after so many tokens (default: as the minutes allow)")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--batch", type=int, default=8192, help="tokens a step")
    parser.add_argument("--micro", type=int, default=2048, help="tokens a forward pass: what fits into the cache")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2026)
    return parser.parse_args()


# Part of the run up to which windows are so long: short ones are quicker, the last part teaches the far positions.
LENGTHS = ((0.6, 128), (0.85, 256), (1.01, 512))
LONGEST = 512


class CrossEntropy(torch.autograd.Function):
    """Mean loss of tied-head logits, in pieces that stay in the cache; the gradient is made in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, embedding, targets, piece=512):
        by_hidden, by_embedding = torch.empty_like(hidden), torch.zeros_like(embedding)
        narrow, total, count = embedding.to(torch.bfloat16), 0.0, hidden.shape[0]
        for at in range(0, count, piece):
            rows, wanted = hidden[at : at + piece].to(torch.bfloat16), targets[at : at + piece, None]
            shares = torch.softmax((rows @ narrow.T).float(), -1)
            total -= shares.gather(1, wanted).log().sum().item()
            shares.scatter_add_(1, wanted, torch.full(wanted.shape, -1.0))
            shares = shares.to(torch.bfloat16)
            by_hidden[at : at + piece] = (shares @ narrow).to(hidden.dtype)
            by_embedding += (shares.T @ rows).float()
        ctx.save_for_backward(by_hidden / count, by_embedding / count)
        return torch.tensor(total / count)

    @staticmethod
    def backward(ctx, grad):
        by_hidden, by_embedding = ctx.saved_tensors
        return grad * by_hidden, grad * by_embedding, None, None


def save(model, directory, vocabulary):
    """fp16 weights and config.json; leaves the model itself as it is."""
    state = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied
    }
    save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    described = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": LONGEST,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "torch_dtype": "float16",
        **SHAPE,
        "head_dim": SHAPE["hidden_size"] // SHAPE["num_attention_heads"],
    }
    with open(os.path.join(directory, "config.json"), "w", encoding="utf8") as file:
        json.dump(described, file, indent=2)
        file.write("\n")


def held_out(model, test, length):
    """Mean loss a token of the held-out questions, in windows."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(test) - 1, length):
            ids = torch.from_numpy(test[start : start + length + 1].astype("int64"))[None]
            logits = model(ids[:, :-1]).logits.float()
            total += torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
    model.train()
    return total / count


def main():
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    train = numpy.fromfile(os.path.join(options.work, "train.u16"), dtype="<u2")
    test = numpy.fromfile(os.path.join(options.work, "test.u16"), dtype="<u2")
    with open(os.path.join(options.model, "tokenizer.json"), encoding="utf8") as file:
        vocabulary = len(json.load(file)["model"]["vocab"])
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=LONGEST,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
        initializer_range=0.04,
        attn_implementation="eager",
        **SHAPE,
    )
    model = LlamaForCausalLM(config)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=options.rate,
        betas=(0.9, 0.97),
        eps=1e-8,
        fused=True,
    )
    draw = numpy.random.default_rng(options.seed)
    length, order, at = 0, (), 0
    began, seen, step, warm, said, saved = time.time(), 0, 0, 200, 0.0, time.time()
    while True:
        gone = seen / options.tokens if options.tokens else (time.time() - began) / (60 * options.minutes)
        if gone >= 1:
            break
        wanted = next(each for until, each in LENGTHS if gone < until)
        rows = options.batch // wanted
        if wanted != length or at + rows > len(order):
            length, at = wanted, 0
            shift = int(draw.integers(0, length))
            order = draw.permutation(numpy.arange(shift, len(train) - length - 1, length))
        rate = options.rate * min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * gone)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        some = max(1, options.micro // length)
        loss = 0.0
        for first in range(at, at + rows, some):
            starts = order[first : min(first + some, at + rows)]
            ids = torch.from_numpy(numpy.stack([train[s : s + length + 1] for s in starts]).astype("int64"))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
            part = CrossEntropy.apply(
                hidden.reshape(-1, hidden.shape[-1]), model.lm_head.weight, ids[:, 1:].reshape(-1)
            ) * (len(starts) / rows)
            part.backward()
            loss += part.item()
        at += rows
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        seen += rows * length
        if time.time() - said > 20:
            said = time.time()
            print(f"step {step} tokens {seen} loss {loss:.3f} {seen / (said - began):.0f} tokens/s", flush=True)
        if time.time() - saved > 300:
            saved = time.time()
            save(model, options.work, vocabulary)
            print(f"held-out loss {held_out(model, test, 256):.4f}", flush=True)
    save(model, options.model, vocabulary)
    minutes = (time.time() - began) / 60
    print(f"{seen} tokens in {minutes:.1f} minutes; held-out loss {held_out(model, test, 256):.4f}", flush=True)


if __name__ == "__main__":
    main()
