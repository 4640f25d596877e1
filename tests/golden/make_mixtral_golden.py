# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tiny_mixtral: a small Mixtral, and what torch, transformers and PEFT say of it.

Made with: torch 2.15.0, transformers 5.23.0, peft 0.21.2, tokenizers 0.23.3, safetensors 0.8.0,
numpy 2.3.5; CPU, f32, eager attention and eager experts, one thread. README.md in this folder says
what each file holds.

    python tests/golden/make_mixtral_golden.py

transformers 5 fuses the experts of a layer into two tensors, so an adapter on w1, w2 and w3 cannot
be made there. `PlainMixtral` below has the modules of transformers 4 (one Linear per projection);
the script proves that its logits and all its gradients equal those of transformers, and that
transformers with PEFT reads the adapter back to the same logits. It stops if one is off.
"""
import json
import pathlib
import shutil

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, get_cosine_schedule_with_warmup
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

OUT = pathlib.Path(__file__).parent / "tiny_mixtral"
MODEL = OUT / "model"
ADAPTER = OUT / "adapter"
AUX_COEFFICIENT = 0.1  # large, so that a wrong auxiliary gradient shows
TRAIN = dict(lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, warmup=5, steps=20, clip=1.0,
             aux_coefficient=0.01, micro_batches=2)

CONFIG = MixtralConfig(
    vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, num_local_experts=8, num_experts_per_tok=2,
    max_position_embeddings=256, rms_norm_eps=1e-4, tie_word_embeddings=False, bos_token_id=1,
    eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    router_aux_loss_coef=0.02, initializer_range=0.02, dtype="float32")
CONFIG._attn_implementation = "eager"
CONFIG._experts_implementation = "eager"


class PlainAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)

    def forward(self, x):
        c, (b, n, _) = self.c, x.shape
        heads = lambda y, count: y.view(b, n, count, c.head_dim).transpose(1, 2)
        q = rotate(heads(self.q_proj(x), c.num_attention_heads), c)
        k = rotate(heads(self.k_proj(x), c.num_key_value_heads), c)
        v = heads(self.v_proj(x), c.num_key_value_heads)
        group = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(2, 3) * c.head_dim**-0.5
        future = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        return self.o_proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


def rotate(x, c):
    """Rotary positions, half-rotation layout; angles in f32 as in transformers."""
    theta = c.rope_parameters["rope_theta"]
    inv_freq = 1.0 / theta ** (torch.arange(0, c.head_dim, 2, dtype=torch.float) / c.head_dim)
    angle = torch.arange(x.shape[2], dtype=torch.float)[:, None] * inv_freq
    angle = torch.cat((angle, angle), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * angle.cos().to(x.dtype) + torch.cat((-second, first), dim=-1) * angle.sin().to(x.dtype)


class PlainExpert(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w1 = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.w2 = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)
        self.w3 = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class PlainMoe(nn.Module):
    """Every expert runs, with no rows if need be, so that each has a gradient (zero then)."""

    def __init__(self, c):
        super().__init__()
        self.top_k = c.num_experts_per_tok
        self.gate = nn.Linear(c.hidden_size, c.num_local_experts, bias=False)
        self.experts = nn.ModuleList(PlainExpert(c) for _ in range(c.num_local_experts))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        self.router_logits = self.gate(rows)
        weights, chosen = self.router_logits.softmax(-1).topk(self.top_k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(rows)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == e)
            y = y.index_add(0, token, expert(rows[token]) * weights[token, slot, None])
        return y.view_as(x)


class PlainNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(c.hidden_size)), c.rms_norm_eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class PlainLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = PlainNorm(c), PlainNorm(c)
        self.self_attn, self.block_sparse_moe = PlainAttention(c), PlainMoe(c)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.block_sparse_moe(self.post_attention_layernorm(x))


class PlainMixtral(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.model.layers = nn.ModuleList(PlainLayer(c) for _ in range(c.num_hidden_layers))
        self.model.norm = PlainNorm(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(self.model.norm(x))

    def router_logits(self):
        return tuple(layer.block_sparse_moe.router_logits for layer in self.model.layers)


def padded(rows, fill):
    width = max(len(r) for r in rows)
    return torch.tensor([r + [fill] * (width - len(r)) for r in rows])


def loss_sum(logits, labels):
    """Sum over all targets; label i is predicted at position i - 1, -100 is no target."""
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1),
                           ignore_index=-100, reduction="sum")


def targets(labels):
    return int((labels[:, 1:] != -100).sum())


def aux_loss(model, mask):
    c = model.c
    return load_balancing_loss_func(model.router_logits(), c.num_local_experts,
                                    c.num_experts_per_tok, mask)


def close(what, got, want, tolerance=1e-6):
    error = float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))
    if not error <= tolerance:
        raise SystemExit(f"{what}: relative difference {error:.2e}, expected {tolerance:.0e}")
    return error


def unfused(named, experts):
    """Names and shapes of transformers 5 in memory -> those on disk, which are transformers 4's."""
    out = {}
    for name, value in named.items():
        if name.endswith("mlp.experts.gate_up_proj"):
            base = name.replace("mlp.experts.gate_up_proj", "block_sparse_moe.experts")
            for e in range(experts):
                w1, w3 = value[e].chunk(2, dim=0)
                out[f"{base}.{e}.w1.weight"], out[f"{base}.{e}.w3.weight"] = w1, w3
        elif name.endswith("mlp.experts.down_proj"):
            base = name.replace("mlp.experts.down_proj", "block_sparse_moe.experts")
            for e in range(experts):
                out[f"{base}.{e}.w2.weight"] = value[e]
        else:
            out[name.replace("mlp.gate", "block_sparse_moe.gate")] = value
    return {k: v.detach().clone().contiguous() for k, v in out.items()}


def save(tensors, path):
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path,
              metadata={"format": "pt"})


def make_model():
    torch.manual_seed(20)
    model = MixtralForCausalLM(CONFIG).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif "embed" in name:
                p.copy_(0.5 * torch.randn_like(p))
            elif "mlp.gate" in name:
                p.copy_(0.5 * torch.randn_like(p))
            else:
                p.copy_(0.2 * torch.randn_like(p))
    model.save_pretrained(MODEL, max_shard_size="200KB")
    (MODEL / "generation_config.json").unlink(missing_ok=True)
    return model


CORPUS = """the cat sat on the mat. a small tree is trained and pruned to a shape.
what is the answer? the answer is (A). the answer is (B). the answer is (C). the answer is (D).
an expert is chosen for each token, and the other experts rest. there are eight of them."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}")


def make_tokenizer():
    """In the manner of Mixtral's: BPE over the whole text, spaces become U+2581, BOS is put first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # for the training: no merge across words
    alphabet = ["\u2581", "\n"] + [chr(c) for c in range(33, 127)]
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size, special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet, show_progress=False))
    tokenizer.pre_tokenizer = None
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    assert tokenizer.get_vocab_size() == CONFIG.vocab_size
    tokenizer.save(str(MODEL / "tokenizer.json"))
    config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>",
                  unk_token="<unk>", add_bos_token=True, add_eos_token=False,
                  model_max_length=CONFIG.max_position_embeddings,
                  clean_up_tokenization_spaces=False, chat_template=TEMPLATE)
    (MODEL / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def make_batch(generator, lengths, masked):
    ids = [[1] + torch.randint(3, CONFIG.vocab_size, (n - 1,), generator=generator).tolist()
           for n in lengths]
    labels = [[-100] * m + row[m:] for row, m in zip(ids, masked)]
    return {"ids": ids, "labels": labels}


def tensors_of(batch):
    ids, labels = padded(batch["ids"], 0), padded(batch["labels"], -100)
    mask = padded([[1] * len(r) for r in batch["ids"]], 0)
    return ids, labels, mask


def forward_golden(hf, plain, batch):
    """Logits, router logits, losses and every parameter's gradient, from transformers itself."""
    ids, labels, mask = tensors_of(batch)
    golden = {}
    result = hf(input_ids=ids, attention_mask=mask, output_router_logits=True)
    real = mask.reshape(-1).bool()
    for i, row in enumerate(batch["ids"]):
        golden[f"ids.{i}"] = torch.tensor(row)
        golden[f"labels.{i}"] = torch.tensor(batch["labels"][i])
        golden[f"logits.{i}"] = result.logits[i, : len(row)]
        alone = hf(input_ids=torch.tensor([row])).logits[0]
        close("padding changes the logits", alone, golden[f"logits.{i}"], 1e-5)
    for layer, logits in enumerate(result.router_logits):
        golden[f"router_logits.{layer}"] = logits[real]
    golden["loss"] = loss_sum(result.logits, labels) / targets(labels)
    golden["aux_loss"] = result.aux_loss
    as_tokens = hf(input_ids=ids, output_router_logits=True)  # id 0 is a token like any other
    golden["aux_loss_padding_counted"] = as_tokens.aux_loss

    gradients = {}
    for name, coefficient in (("loss", 0.0), ("loss_and_aux", AUX_COEFFICIENT)):
        hf.zero_grad()
        result = hf(input_ids=ids, attention_mask=mask, output_router_logits=True)
        (loss_sum(result.logits, labels) / targets(labels) + coefficient * result.aux_loss).backward()
        gradients[name] = unfused({n: p.grad for n, p in hf.named_parameters()},
                                  CONFIG.num_local_experts)

        plain.zero_grad()
        logits = plain(ids)
        close("plain logits", logits[mask.bool()], result.logits[mask.bool()], 2e-6)
        (loss_sum(logits, labels) / targets(labels) + coefficient * aux_loss(plain, mask)).backward()
        worst = max(close(f"plain gradient of {n}", p.grad, gradients[name][n], 2e-5)
                    for n, p in plain.named_parameters())
        print(f"PlainMixtral against transformers: worst gradient of {name} differs by {worst:.1e}")
    return golden, gradients


def make_adapter(plain):
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none", task_type=None,
                        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate",
                                        "w1", "w2", "w3"],
                        base_model_name_or_path="tiny_mixtral")
    torch.manual_seed(21)
    model = get_peft_model(plain, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(0.1 * torch.randn_like(p))
    model.save_pretrained(ADAPTER)
    (ADAPTER / "README.md").unlink(missing_ok=True)
    path = ADAPTER / "adapter_config.json"  # a user's file names the task; PEFT then wants generate()
    content = json.loads(path.read_text())
    content.update(task_type="CAUSAL_LM", base_model_name_or_path="tiny_mixtral", auto_mapping=None,
                   target_modules=sorted(content["target_modules"]))
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return model


def lora_gradients(model):
    """Under the names of the adapter file."""
    return {n.replace(".default", ""): p.grad for n, p in model.named_parameters() if p.requires_grad}


def adapter_golden(model, plain, batch):
    ids, labels, mask = tensors_of(batch)
    golden = {}
    for name, coefficient in (("loss", 0.0), ("loss_and_aux", AUX_COEFFICIENT)):
        model.zero_grad()
        logits = model(ids)
        loss, aux = loss_sum(logits, labels) / targets(labels), aux_loss(plain, mask)
        (loss + coefficient * aux).backward()
        golden.update({f"grad.{name}.{k}": v.clone() for k, v in lora_gradients(model).items()})
    golden.update(loss=loss, aux_loss=aux)
    for i, row in enumerate(batch["ids"]):
        golden[f"logits.{i}"] = logits[i, : len(row)]
    return golden


def train(model, plain, steps):
    """One optimizer step as contract and transformers' Trainer have it. Returns the log."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=TRAIN["lr"], betas=TRAIN["betas"], eps=TRAIN["eps"],
                                  weight_decay=TRAIN["weight_decay"], foreach=False)
    schedule = get_cosine_schedule_with_warmup(optimizer, TRAIN["warmup"], TRAIN["steps"])
    log = []
    for step in steps:
        batches = [tensors_of(b) for b in step]
        total = sum(targets(labels) for _, labels, _ in batches)
        optimizer.zero_grad()
        loss, aux = 0.0, 0.0
        for ids, labels, mask in batches:
            micro = loss_sum(model(ids), labels) / total
            micro_aux = aux_loss(plain, mask) / len(batches)
            (micro + TRAIN["aux_coefficient"] * micro_aux).backward()
            loss, aux = loss + micro.item(), aux + micro_aux.item()
        norm = nn.utils.clip_grad_norm_(parameters, TRAIN["clip"])
        idle = sum(float(p.grad.abs().max()) == 0.0 for p in parameters)
        log.append(dict(loss=loss, aux_loss=aux, grad_norm=norm.item(), lr=schedule.get_last_lr()[0],
                        parameters_without_gradient=idle))
        optimizer.step()
        schedule.step()
    return log


def trajectory():
    generator = torch.Generator().manual_seed(22)
    kinds = [([12, 7], [0, 3]), ([5, 15], [1, 4]), ([9, 9], [0, 0]), ([3, 4], [2, 1])]
    few = make_batch(generator, [12, 7], [0, 3])
    pool = [few] + [make_batch(generator, *kinds[i % 4]) for i in range(1, 6)]
    return [[pool[(2 * s) % 6], pool[(2 * s + 1 + s // 3) % 6]] for s in range(TRAIN["steps"])]


def fresh_adapter_model(dtype):
    plain = PlainMixtral(CONFIG)
    state = {}
    for shard in sorted(MODEL.glob("*.safetensors")):
        state.update(load_file(shard))
    plain.load_state_dict(state)
    plain.to(dtype)
    config = PeftConfig.from_pretrained(ADAPTER)
    config.task_type, config.inference_mode = None, False  # no generate() here
    model = PeftModel.from_pretrained(plain, ADAPTER, config=config, is_trainable=True,
                                      autocast_adapter_dtype=False)
    return model.to(dtype), plain


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    hf = make_model()
    make_tokenizer()
    plain = PlainMixtral(CONFIG)
    plain.load_state_dict(unfused(dict(hf.named_parameters()), CONFIG.num_local_experts))

    batch = make_batch(torch.Generator().manual_seed(23), [17, 9, 2, 13], [0, 4, 0, 1])
    golden, gradients = forward_golden(hf, plain, batch)
    save(golden, OUT / "forward.safetensors")
    save(gradients["loss"], OUT / "gradients.safetensors")
    save({k: v for k, v in gradients["loss_and_aux"].items() if ".experts." not in k},
         OUT / "gradients_with_aux.safetensors")

    model = make_adapter(plain)
    adapter = adapter_golden(model, plain, batch)
    save(adapter, OUT / "adapter_forward.safetensors")

    # The judge of the adapter's names and maths: transformers and PEFT read the folder themselves.
    ids, _, mask = tensors_of(batch)
    judge = PeftModel.from_pretrained(MixtralForCausalLM.from_pretrained(
        MODEL, attn_implementation="eager", experts_implementation="eager"), ADAPTER).eval()
    with torch.no_grad():
        judged = judge(input_ids=ids, attention_mask=mask).logits
    for i, row in enumerate(batch["ids"]):
        error = close("transformers with PEFT", adapter[f"logits.{i}"], judged[i, : len(row)], 1e-5)
    print(f"adapter in PlainMixtral against transformers with PEFT: {error:.1e}")

    steps = trajectory()
    model, plain = fresh_adapter_model(torch.float32)
    log = train(model, plain, steps)
    final = {k: v for k, v in get_peft_model_state_dict(model).items()}
    save(final, OUT / "adapter_trained.safetensors")

    model64, plain64 = fresh_adapter_model(torch.float64)
    log64 = train(model64, plain64, steps)
    noise = {key: max(abs(a[key] - b[key]) / max(abs(b[key]), 1e-30) for a, b in zip(log, log64))
             for key in ("loss", "aux_loss", "grad_norm")}
    final64 = get_peft_model_state_dict(model64)
    noise["adapter"] = max(float((final[k] - final64[k]).abs().max()) for k in final)
    content = dict(options={**TRAIN, "betas": list(TRAIN["betas"])}, f32_against_f64=noise, log=log,
                   steps=steps)
    text = json.dumps(content, indent=1)
    (OUT / "trajectory.json").write_text(compact(text) + "\n")

    print("noise of f32 against f64:", noise)
    print("loss", [round(x["loss"], 3) for x in log])
    print("grad_norm", [round(x["grad_norm"], 3) for x in log])
    print("idle", [x["parameters_without_gradient"] for x in log])
    for path in sorted(p for p in OUT.rglob("*") if p.is_file()):
        print(f"{path.stat().st_size:>8} {path.relative_to(OUT)}")
        assert path.stat().st_size <= 600 * 1000, path


def compact(text):
    """json.dumps gives each number of a list its own line; one line per list is easier to read."""
    import re
    return re.sub(r"\[\s*(-?[\d.e+-]+(?:,\s*-?[\d.e+-]+)*)\s*\]",
                  lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)


if __name__ == "__main__":
    main()
