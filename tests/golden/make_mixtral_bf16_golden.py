# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tiny_mixtral/bf16.safetensors: how far torch's bf16 is from exact arithmetic.

Made with the packages that make_mixtral_golden.py names; run it after that script.

    python tests/golden/make_mixtral_bf16_golden.py

The weights of the tiny Mixtral are rounded to bf16. With these weights and the adapter in f32 there
are two runs: one in f64 (`exact`), and one as people train, a bf16 base with PEFT's f32 adapter. The
file holds the exact logits and gradients, and the root-mean-square error of the bf16 run relative
to them: the noise that bf16 costs anybody. Sequences are chosen so that no token's second and third
router logit are close: a flipped choice is not noise.
"""
import torch
from make_mixtral_golden import (ADAPTER, CONFIG, MODEL, OUT, PlainMixtral, lora_gradients, loss_sum,
                                 make_batch, save, targets, tensors_of)
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import MixtralForCausalLM

MARGIN = 0.15


class Bf16Norm(nn.Module):
    """As in transformers: statistics in f32, one rounding before the gain and one after."""

    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def moe_forward(self, x):
    """As in transformers: softmax, gates and the combination in f32."""
    rows = x.reshape(-1, x.shape[-1])
    wide = torch.promote_types(x.dtype, torch.float32)
    self.router_logits = self.gate(rows)
    weights, chosen = self.router_logits.softmax(-1, dtype=wide).topk(self.top_k, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    y = torch.zeros_like(rows, dtype=wide)
    for e, expert in enumerate(self.experts):
        token, slot = torch.where(chosen == e)
        y = y.index_add(0, token, expert(rows[token]).to(wide) * weights[token, slot, None])
    return y.to(x.dtype).view_as(x)


def with_adapter(dtype):
    plain = PlainMixtral(CONFIG)
    state = {}
    for shard in sorted(MODEL.glob("*.safetensors")):
        state.update(load_file(shard))
    plain.load_state_dict({k: v.to(torch.bfloat16).to(torch.float32) for k, v in state.items()})
    plain.to(dtype)
    for layer in plain.model.layers:
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = getattr(layer, name)
            setattr(layer, name, Bf16Norm(norm.weight, norm.eps))
        moe = layer.block_sparse_moe
        moe.forward = moe_forward.__get__(moe)
    plain.model.norm = Bf16Norm(plain.model.norm.weight, plain.model.norm.eps)
    config = PeftConfig.from_pretrained(ADAPTER)
    config.task_type, config.inference_mode = None, False
    model = PeftModel.from_pretrained(plain, ADAPTER, config=config, is_trainable=True)
    if dtype == torch.float64:
        model.to(dtype)
    return model, plain


def clear(plain):
    """No token's choice of experts hangs on rounding."""
    for logits in plain.router_logits():
        top = logits.topk(CONFIG.num_experts_per_tok + 1, dim=-1).values
        if float((top[:, -2] - top[:, -1]).min()) < MARGIN:
            return False
    return True


def choose_batch(model, plain):
    """Four sequences that are clear each."""
    generator = torch.Generator().manual_seed(24)
    ids, labels = [], []
    while len(ids) < 4:
        one = make_batch(generator, [10 + len(ids)], [len(ids) % 2])
        with torch.no_grad():
            model(torch.tensor(one["ids"]))
        if clear(plain):
            ids += one["ids"]
            labels += one["labels"]
    return {"ids": ids, "labels": labels}


def rms(t):
    return t.double().pow(2).mean().sqrt()


def run(model, batch):
    """Each sequence alone: padding would route too. Gradients of the mean over all targets."""
    model.zero_grad()
    total = sum(targets(tensors_of({k: [v[i]] for k, v in batch.items()})[1])
                for i in range(len(batch["ids"])))
    logits, loss = [], 0
    for i in range(len(batch["ids"])):
        row, labels, _ = tensors_of({k: [v[i]] for k, v in batch.items()})
        logits.append(model(row))
        loss = loss + loss_sum(logits[-1].to(torch.promote_types(logits[-1].dtype, torch.float32)),
                               labels)
    (loss / total).backward()
    return [l[0].detach() for l in logits], (loss / total).detach(), lora_gradients(model)


def check_against_transformers(exact_model, exact_plain, narrow_model):
    """Without the adapter, the bf16 modules of this script are as noisy as transformers' own."""
    hf = MixtralForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16, attn_implementation="eager",
                                            experts_implementation="eager").eval()
    with torch.no_grad(), exact_model.disable_adapter(), narrow_model.disable_adapter():
        batch = choose_batch(exact_model, exact_plain)
        for row in batch["ids"]:
            ids = torch.tensor([row])
            exact = exact_model(ids)[0]
            theirs = float(rms(hf(input_ids=ids).logits[0] - exact) / rms(exact))
            own = float(rms(narrow_model(ids)[0] - exact) / rms(exact))
            print(f"without adapter, relative error: transformers {theirs:.4f}, PlainMixtral {own:.4f}")
            assert own <= 1.25 * theirs, "the bf16 modules of this script are too coarse"


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    exact_model, exact_plain = with_adapter(torch.float64)
    batch = choose_batch(exact_model, exact_plain)
    logits, loss, gradients = run(exact_model, batch)
    narrow_model, narrow_plain = with_adapter(torch.bfloat16)
    narrow_logits, narrow_loss, narrow_gradients = run(narrow_model, batch)

    golden = {"exact.loss": loss.float(), "error.loss": ((narrow_loss - loss).abs() / loss).float()}
    check_against_transformers(exact_model, exact_plain, narrow_model)
    for i, row in enumerate(batch["ids"]):
        golden[f"ids.{i}"], golden[f"labels.{i}"] = torch.tensor(row), torch.tensor(batch["labels"][i])
        golden[f"exact.logits.{i}"] = logits[i].float()
        golden[f"error.logits.{i}"] = (rms(narrow_logits[i] - logits[i]) / rms(logits[i])).float()
    for name, g in gradients.items():
        golden[f"exact.grad.{name}"] = g.float()
        error = rms(narrow_gradients[name] - g) / rms(g).clamp(min=1e-30)
        golden[f"error.grad.{name}"] = error.float()
    errors = sorted(float(v) for k, v in golden.items() if k.startswith("error.grad"))
    print(f"gradients, relative error: least {errors[0]:.4f}, median {errors[len(errors) // 2]:.4f}, "
          f"most {errors[-1]:.4f}; logits {[round(float(golden[f'error.logits.{i}']), 4) for i in range(4)]}"
          f"; loss {float(golden['error.loss']):.5f}")
    save(golden, OUT / "bf16.safetensors")


if __name__ == "__main__":
    main()
