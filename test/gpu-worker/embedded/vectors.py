"""Makes test/vectors/embedded: two tiny random Llamas and what PyTorch, transformers and peft say about them.

    python test/gpu-worker/embedded/vectors.py test/vectors/embedded     # models, values without training
    node test/gpu-worker/embedded/start.ts test/vectors/embedded         # the engine's first factors, as PEFT files
    python test/gpu-worker/embedded/vectors.py test/vectors/embedded     # again, with training from them

Needs torch, transformers, peft, tokenizers. Everything is seeded; figures may differ in the last bits between versions.
"""
import base64, json, math, os, sys
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

out = sys.argv[1]
torch.set_num_threads(1)
floats = lambda t: base64.b64encode(t.detach().to(torch.float32).contiguous().numpy().tobytes()).decode()
doubles = lambda t: base64.b64encode(t.detach().to(torch.float64).contiguous().numpy().tobytes()).decode()

TEXT = [
    "The dog runs after the cat, and the cat runs after the mouse.",
    "A clear sky; a cold night. Nobody knows the naïve café's owner.",
    "What is a dog? An animal that barks. What is a cat? An animal that does not.",
]
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|system|>Be brief.\n' }}{% endif %}"
    "{%- for m in messages -%}{{ '<|' + m.role + '|>' + (m['content'] | trim) }}"
    "{%- if m.role == 'assistant' and not loop.last %}{{ eos_token }}{% endif -%}{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

def tokenizer(directory):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=301, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<|begin|>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    path = os.path.join(directory, "tokenizer_config.json")
    config = json.load(open(path))
    config["chat_template"] = TEMPLATE
    json.dump(config, open(path, "w"), indent=1)
    for extra in ("chat_template.jinja", "special_tokens_map.json"):
        if os.path.exists(os.path.join(directory, extra)):
            os.remove(os.path.join(directory, extra))
    return fast

def model(directory, seed, dtype, shard, **changes):
    torch.manual_seed(seed)
    config = LlamaConfig(**{**dict(
        vocab_size=301, hidden_size=24, intermediate_size=40, num_hidden_layers=11, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=96, rms_norm_eps=1e-5, bos_token_id=0,
        eos_token_id=1, tie_word_embeddings=False, attn_implementation="eager"), **changes})
    m = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in m.named_parameters():
            p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in name else torch.randn_like(p) * (0.8 if "embed" in name or "head" in name else 0.25))
            p.copy_(p.to(dtype).float())
    m.to(dtype).save_pretrained(directory, max_shard_size="30KB" if shard else "5GB")
    g = os.path.join(directory, "generation_config.json")
    if os.path.exists(g):
        os.remove(g)
    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()

def blocks(x, block):
    parts = []
    for s in range(0, x.shape[1], block):
        y = x[:, s:s + block].double()
        parts.append((y.T @ y).flatten())
    return torch.cat(parts)

def examine(directory, base, tok, targets, rank, alpha, seed, block):
    torch.manual_seed(seed)
    examples = [
        {"tokens": tok.encode(TEXT[0], add_special_tokens=False), "from": 1},
        {"tokens": [0] + tok.encode(TEXT[2], add_special_tokens=False)[:40] + [1], "from": 9},
        {"tokens": (tok.encode(TEXT[1], add_special_tokens=False) * 2)[:67], "from": 50},
    ]
    result = {"examples": examples, "baseLosses": [], "losses": [], "gradients": [], "block": block}
    nll = lambda m, e: torch.nn.functional.cross_entropy(
        m(torch.tensor([e["tokens"]])).logits[0, e["from"] - 1:-1], torch.tensor(e["tokens"][e["from"]:]), reduction="sum")
    with torch.no_grad():
        for e in examples:
            result["baseLosses"].append((nll(base, e) / (len(e["tokens"]) - e["from"])).item())
        g = base.generate(torch.tensor([examples[1]["tokens"][:9]]), max_new_tokens=24, do_sample=False, pad_token_id=1)
        result["baseGreedy"] = g[0, 9:].tolist()
    m = get_peft_model(base, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM"))
    named = {n.replace(".default", ""): p for n, p in m.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for p in named.values():
            p.copy_(torch.randn_like(p) * 0.15)
    m.save_pretrained(os.path.join(directory, "adapter"))
    os.path.exists(os.path.join(directory, "adapter", "README.md")) and os.remove(os.path.join(directory, "adapter", "README.md"))
    m.eval()
    for e in examples:
        m.zero_grad()
        loss = nll(m, e) / (len(e["tokens"]) - e["from"])
        loss.backward()
        result["losses"].append(loss.item())
        result["gradients"].append({n: floats(p.grad) for n, p in named.items()})
    # Covariances of the summed loss, over the tokens that are read to predict another.
    seen, hooks = {}, []
    for n, module in m.named_modules():
        if n.endswith(".lora_A.default") or n.endswith(".lora_B.default"):
            key = n.replace(".default", "") + ".weight"
            hooks.append(module.register_forward_hook(lambda _m, i, o, key=key: seen.setdefault(key, {}).__setitem__("x", i[0][0])))
            hooks.append(module.register_full_backward_hook(lambda _m, gi, go, key=key: seen[key].__setitem__("d", go[0][0])))
    sums = {}
    for e in examples:
        m.zero_grad()
        logits = m(torch.tensor([e["tokens"][:-1]])).logits[0, e["from"] - 1:]
        torch.nn.functional.cross_entropy(logits, torch.tensor(e["tokens"][e["from"]:]), reduction="sum").backward()
        for key, s in seen.items():
            x, d = s["x"], s["d"]
            is_a = "lora_A" in key
            hidden, small = (x, d) if is_a else (d, x)
            pair = (blocks(small, rank), blocks(hidden, block))
            sums[key] = pair if key not in sums else tuple(p + q for p, q in zip(sums[key], pair))
    for h in hooks:
        h.remove()
    result["covariances"] = {k: {"rank": doubles(r), "hidden": doubles(h)} for k, (r, h) in sums.items()}
    with torch.no_grad():
        g = m.generate(input_ids=torch.tensor([examples[1]["tokens"][:9]]), max_new_tokens=24, do_sample=False, pad_token_id=1)
        result["greedy"] = g[0, 9:].tolist()
    # Training from the factors that the engine itself starts with (start.ts writes them): AdamW, warm-up, cosine, clipping.
    start = os.path.join(directory, "start")
    if os.path.exists(start):
        spec = json.load(open(os.path.join(start, "settings.json")))
        plain = m.unload()
        t = PeftModel.from_pretrained(plain, start, is_trainable=True)
        params = [p for n, p in t.named_parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(params, lr=1.0, betas=tuple(spec["betas"]), eps=1e-8, weight_decay=spec["weightDecay"])
        result["training"] = {"losses": [], **spec}
        rising = math.ceil(spec["warmup"] * spec["steps"])
        rate = lambda i: spec["learningRate"] * ((i + 1) / rising if i < rising
            else (1 + math.cos(math.pi * (i - rising) / (spec["steps"] - rising))) / 2)
        for step in range(spec["steps"]):
            optimizer.zero_grad()
            summed, count = 0.0, 0
            for e, nu in zip(examples, spec["weights"]):
                n = len(e["tokens"]) - e["from"]
                loss = nll(t, e)
                (nu * loss / n / len(examples)).backward()
                summed, count = summed + loss.item(), count + n
            if spec["clip"] > 0:
                torch.nn.utils.clip_grad_norm_(params, spec["clip"])
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.step()
            result["training"]["losses"].append(summed / count)
        result["training"]["parameters"] = {n.replace(".default", ""): floats(p) for n, p in t.named_parameters() if p.requires_grad}
    return result

os.makedirs(out, exist_ok=True)
deep = os.path.join(out, "deep")
tok = tokenizer(deep)
vectors = {"deep": examine(deep, model(deep, 1, torch.float16, False), tok, ["q_proj", "v_proj", "down_proj"], 4, 8, 2, 10)}
wide = os.path.join(out, "wide")
tokenizer(wide)
vectors["wide"] = examine(wide, model(wide, 3, torch.bfloat16, True, hidden_size=36, intermediate_size=52, num_hidden_layers=2,
    num_attention_heads=6, num_key_value_heads=3, head_dim=16, tie_word_embeddings=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}), tok, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 6, 3, 4, 16)
texts = TEXT + ["naïve 😀 e\u0301 日本語 <|user|>hi<|end|>", "  two  spaces\n\nand lines\t", "", "don't we'll 12345 !!! ½"]
fast = AutoTokenizer.from_pretrained(deep)
vectors["tokenizer"] = []
for text in texts:
    e = fast(text, add_special_tokens=False, return_offsets_mapping=True)
    vectors["tokenizer"].append({"text": text, "ids": e["input_ids"], "offsets": e["offset_mapping"],
        "decoded": fast.decode(e["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False)})
vectors["chats"] = []
for messages in ([{"role": "user", "content": " Hello there "}],
                 [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]):
    for answer in (True, False):
        vectors["chats"].append({"messages": messages, "answer": answer,
            "text": fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)})
json.dump(vectors, open(os.path.join(out, "vectors.json"), "w"))
print({k: os.path.getsize(os.path.join(out, k)) for k in os.listdir(out)})
