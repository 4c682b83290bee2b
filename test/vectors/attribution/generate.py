"""Known answers for the attribution arithmetic, from Python's own hashes, integers and numpy (not from the TypeScript).

    python3 generate.py > known-answers.json
"""
import base64
import hashlib
import json
import math
from fractions import Fraction

import numpy as np

MASK = (1 << 64) - 1


def splitmix(seed, index):
    z = (seed + 0x9E3779B97F4A7C15 * (index + 1)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def blake(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def domain(name):
    return f"openledger/{name}".encode().ljust(32, b"\0")


def leaf(kind, data):
    return blake(domain(f"tree/{kind}/1") + b"\0" + data)


def top(kind, leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return blake(domain(f"tree/{kind}/1") + b"\1" + top(kind, leaves[:split]) + top(kind, leaves[split:]))


def root(kind, leaves):
    inner = top(kind, leaves) if leaves else bytes(32)
    return blake(domain(f"tree/{kind}/1") + b"\2" + len(leaves).to_bytes(4, "little") + inner)


def merkle():
    out = []
    for count in [0, 1, 2, 3, 5, 7, 8, 13]:
        data = [f"record {i}".encode() for i in range(count)]
        leaves = [leaf("records", each) for each in data]
        out.append({"count": count, "root": "0x" + root("records", leaves).hex()})
    return out


def shares(rng):
    out = []
    for _ in range(40):
        n = int(rng.integers(0, 7))
        pool = int(rng.integers(0, 2**62)) * int(rng.integers(1, 2**40))
        influence = [int(rng.integers(-(2**62), 2**62)) * int(rng.integers(0, 2**20)) for _ in range(n)]
        spans = [int(rng.integers(0, 2**30)) * int(rng.integers(0, 2)) for _ in range(n)]
        a, b = Fraction(7, 10), Fraction(3, 10)
        floor = max([0, *influence]) // 10
        positive = [max(0, each - floor) for each in influence]
        if sum(positive) == 0:
            a, b = Fraction(0), a + b
        elif sum(spans) == 0:
            a, b = a + b, Fraction(0)
        amounts = []
        for p, t in zip(positive, spans):
            weight = Fraction(0)
            if sum(positive):
                weight += a * Fraction(p, sum(positive))
            if sum(spans):
                weight += b * Fraction(t, sum(spans))
            amounts.append(math.floor(pool * weight))
        out.append(
            {
                "pool": str(pool),
                "influence": [str(each) for each in influence],
                "spanMass": [str(each) for each in spans],
                "amounts": [str(each) for each in amounts],
                "remainder": str(pool - sum(amounts)),
            }
        )
    return out


def log2_fixed(value):
    """floor(log2(value)·2^16) exactly: the largest q with 2^q <= value^65536."""
    power = value**65536
    return power.bit_length() - 1


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def signed(vectors):
    """Columns with their entry of largest size positive."""
    for c in range(vectors.shape[1]):
        if vectors[np.argmax(np.abs(vectors[:, c])), c] < 0:
            vectors[:, c] *= -1
    return vectors


def pipeline(rng):
    """EK-FAC, sketch and PCA over 24 random gradients of two LoRA matrices, in numpy."""
    block, width, k, damping, seed = 4, 64, 8, 0.01, 0xDEADBEEFCAFEF00D
    matrices = [("a.lora_A", 3, 10), ("a.lora_B", 3, 6)]
    size = sum(r * h for _, r, h in matrices)
    factors = rng.normal(size=(6, size)) * np.linspace(2, 0.1, size)
    gradients = (rng.normal(size=(24, 6)) @ factors + 0.1 * rng.normal(size=(24, size))).astype(np.float32)
    covariances, lambdas, scaled = [], [], []
    offset = 0
    for _, rank, hidden in matrices:
        g = gradients[:, offset : offset + rank * hidden].reshape(-1, rank, hidden).astype(np.float64)
        s = np.einsum("nij,nkj->ik", g, g)
        qs = signed(np.linalg.eigh(s)[1]).astype(np.float32).astype(np.float64)
        turned = np.einsum("ts,ntj->nsj", qs, g)
        blocks = []
        for start in range(0, hidden, block):
            stop = min(start + block, hidden)
            a = np.einsum("nij,nik->jk", g[:, :, start:stop], g[:, :, start:stop])
            blocks.append(a.reshape(-1))
            qa = signed(np.linalg.eigh(a)[1]).astype(np.float32).astype(np.float64)
            turned[:, :, start:stop] = turned[:, :, start:stop] @ qa
        covariances.append((s.reshape(-1), np.concatenate(blocks)))
        flat = turned.reshape(len(g), -1)
        lam = (flat**2).mean(0).astype(np.float32).astype(np.float64)
        lambdas.append(lam)
        scaled.append(flat / np.sqrt(lam + damping * lam.mean()))
        offset += rank * hidden
    a = np.concatenate(scaled, 1)
    sketch = np.zeros((len(a), width))
    for j in range(size):
        h = splitmix(seed, j)
        sketch[:, h % width] += a[:, j] * (-1 if h >> 63 else 1)
    unit = sketch / np.linalg.norm(sketch, axis=1, keepdims=True)
    v = np.linalg.svd(unit)[2][:k]
    z = sketch @ v.T
    unit_z = z / np.linalg.norm(z, axis=1, keepdims=True)
    return {
        "block": block, "width": width, "k": k, "damping": damping, "seed": str(seed),
        "matrices": [{"name": n, "rank": r, "hidden": h} for n, r, h in matrices],
        "gradients": b64(gradients),
        "covariances": [{"rank": b64(r), "hidden": b64(h)} for r, h in covariances],
        "lambda": b64(np.concatenate(lambdas)),
        "sketch": b64(sketch),
        "inner": b64(unit_z @ unit_z.T),
    }  # fmt: skip


def eigen(rng):
    a = rng.normal(size=(12, 12))
    a = a @ a.T
    return {"n": 12, "matrix": b64(a), "values": b64(np.linalg.eigvalsh(a))}


def scores(rng):
    n, k, c = 50, 16, 4
    values = rng.integers(-127, 128, size=(n, k)).astype(np.int8)
    u = rng.integers(-127, 128, size=k).astype(np.int8)
    scale = rng.integers(0, 33_818_641, size=n)
    novelty = rng.integers(0, 65537, size=n)
    owner = rng.integers(0, c, size=n)
    influence = [0] * c
    for i in range(n):
        dot = sum(int(x) * int(y) for x, y in zip(values[i], u))
        influence[owner[i]] += int(novelty[i]) * int(scale[i]) * dot
    return {
        "k": k, "values": b64(values), "u": b64(u), "scale": scale.tolist(), "novelty": novelty.tolist(),
        "owner": owner.tolist(), "influence": [str(each) for each in influence],
    }  # fmt: skip


rng = np.random.default_rng(20260731)
print(
    json.dumps(
        {
            "splitmix": [{"seed": str(s), "index": i, "value": str(splitmix(s, i))} for s in [0, 1234567, MASK] for i in [0, 1, 2, 1000]],
            "merkle": merkle(),
            "shares": shares(rng),
            "log2": [{"value": v, "log2": log2_fixed(v)} for v in [1, 2, 3, 5, 7, 10, 100, 1000, 1023, 1024, 10001, 65535, 1048576]],
            "scores": scores(rng),
            "eigen": eigen(rng),
            "pipeline": pipeline(rng),
            "blake": {"domain": "text", "hash": "0x" + blake(domain("voucher/1") + b"abc").hex()},
        },
        separators=(",", ":"),
    )
)
