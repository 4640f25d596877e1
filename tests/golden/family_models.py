# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of every model family the project reads or prunes, built by transformers itself.

`FAMILIES` names them: those of `FORWARD` have golden files (make_families_golden.py), the others
are only built live, by tests/interop/families.py, for pruning. Every dimension that a reader might
mistake for another differs from it, and every weight is far from its default: norms 1 +- 0.2,
biases, sinks and selection biases clearly nonzero, so that leaving one out shows in the logits.

    python tests/golden/family_models.py make-quantized --kind fp8_block --output DIR

writes a checkpoint whose files are laid out as those of a quantised release (names, dtypes, shapes,
quantization_config); but for fp8_block, its numbers are random bits. Kinds: see `QUANTIZED`.
"""
import argparse
import json
import pathlib
import shutil

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging

logging.disable_progress_bar()

ROPE = {"rope_type": "default", "rope_theta": 100.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "rope_theta": 150.0, "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 32}
BASE = dict(vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-4,
            tie_word_embeddings=False, rope_parameters=ROPE, pad_token_id=None, bos_token_id=1,
            eos_token_id=2)
MLA = dict(num_key_value_heads=4, kv_lora_rank=14, qk_nope_head_dim=12, qk_rope_head_dim=8,
           v_head_dim=10, intermediate_size=28, moe_intermediate_size=10, n_routed_experts=8,
           first_k_dense_replace=1)
QWEN_MOE = dict(intermediate_size=28, moe_intermediate_size=10, num_experts=8,
                num_experts_per_tok=3)


def family(kind, count=None, top_k=None, base=BASE, **options):
    return dict(kind=kind, count=count, top_k=top_k, options={**base, **options})


def without(*names):
    return {k: v for k, v in BASE.items() if k not in names}


GLM = dict(head_dim=8, intermediate_size=28, moe_intermediate_size=10, n_routed_experts=8,
           num_experts_per_tok=3, first_k_dense_replace=1, n_shared_experts=1, num_mtp_layers=0,
           rope_parameters={**ROPE, "partial_rotary_factor": 0.5})
GATED_DELTA = dict(head_dim=8, num_hidden_layers=2,
                   layer_types=["linear_attention", "full_attention"],
                   linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
                   linear_value_head_dim=6, moe_intermediate_size=10,
                   shared_expert_intermediate_size=18, num_experts=8, num_experts_per_tok=3)
LOCAL = ("num_local_experts", "num_experts_per_tok")
PLAIN = ("num_experts", "num_experts_per_tok")
ROUTED = ("n_routed_experts", "num_experts_per_tok")

# `count` and `top_k` are the keys of config.json as transformers 5 writes it.
FAMILIES = {
    # Dense.
    "llama": family("llama", intermediate_size=28, head_dim=6, attention_bias=True, mlp_bias=True,
                    tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama_plain": family("llama", intermediate_size=28),
    "mistral": family("mistral", intermediate_size=28, head_dim=8, sliding_window=4),
    "qwen2": family("qwen2", intermediate_size=28, tie_word_embeddings=True),
    "qwen3": family("qwen3", intermediate_size=28, head_dim=8),
    # Mixtures with a forward pass of ours.
    "mixtral_window": family("mixtral", *LOCAL, intermediate_size=10, head_dim=8, sliding_window=4,
                             num_local_experts=8, num_experts_per_tok=2),
    "qwen3_moe": family("qwen3_moe", *LOCAL, **QWEN_MOE, num_hidden_layers=3, head_dim=8,
                        norm_topk_prob=True, mlp_only_layers=[1]),
    "qwen3_moe_plain": family("qwen3_moe", *LOCAL, **QWEN_MOE, head_dim=8, norm_topk_prob=False),
    "olmoe": family("olmoe", *PLAIN, intermediate_size=10, num_experts=8, num_experts_per_tok=3,
                    norm_topk_prob=False),
    "olmoe_clip": family("olmoe", *PLAIN, intermediate_size=10, num_experts=8,
                         num_experts_per_tok=3, norm_topk_prob=False, clip_qkv=0.7),
    "qwen2_moe": family("qwen2_moe", *PLAIN, **QWEN_MOE, num_hidden_layers=3, norm_topk_prob=False,
                        shared_expert_intermediate_size=18, mlp_only_layers=[1]),
    "granitemoe": family("granitemoe", *LOCAL, intermediate_size=10, num_local_experts=8,
                         num_experts_per_tok=3, embedding_multiplier=3.0, attention_multiplier=0.3,
                         residual_multiplier=0.6, logits_scaling=2.5, tie_word_embeddings=True),
    "gpt_oss": family("gpt_oss", *LOCAL, intermediate_size=10, head_dim=8, num_local_experts=8,
                      num_experts_per_tok=3, sliding_window=4, swiglu_limit=1.0,
                      rope_parameters={**YARN, "truncate": False}),
    "deepseek_v2": family("deepseek_v2", *ROUTED, **{**BASE, **MLA}, base={}, n_shared_experts=2,
                          q_lora_rank=18, num_experts_per_tok=3, topk_method="group_limited_greedy",
                          n_group=4, topk_group=2, norm_topk_prob=False, routed_scaling_factor=1.7),
    "deepseek_v2_lite": family("deepseek_v2", *ROUTED, **{**BASE, **MLA}, base={}, n_shared_experts=2,
                               q_lora_rank=None, num_experts_per_tok=3, topk_method="greedy",
                               norm_topk_prob=False, routed_scaling_factor=1.0),
    "deepseek_v3": family("deepseek_v3", *ROUTED, **{**BASE, **MLA, "n_routed_experts": 12}, base={},
                          n_shared_experts=1, q_lora_rank=18, num_experts_per_tok=3, n_group=4,
                          topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5,
                          num_mtp_layers=0),
    "deepseek_v3_plain": family("deepseek_v3", *ROUTED, **{**BASE, **MLA}, base={}, n_shared_experts=2,
                                q_lora_rank=None, num_experts_per_tok=3, n_group=1, topk_group=1,
                                norm_topk_prob=False, routed_scaling_factor=1.0, num_mtp_layers=0),
    "glm4_moe": family("glm4_moe", *ROUTED, **{**BASE, **GLM}, base={}, attention_bias=True,
                       use_qk_norm=True, norm_topk_prob=True, routed_scaling_factor=1.5),
    "glm4_moe_plain": family("glm4_moe", *ROUTED, **{**BASE, **GLM}, base={}, attention_bias=False,
                             use_qk_norm=False, norm_topk_prob=False, routed_scaling_factor=1.0),
    # Mixtures that are only pruned.
    "phimoe": family("phimoe", *LOCAL, intermediate_size=10, num_local_experts=8,
                     num_experts_per_tok=2, attention_bias=True, lm_head_bias=True),
    "lfm2_moe": family("lfm2_moe", *PLAIN, base=without("rms_norm_eps"), norm_eps=1e-4,
                       intermediate_size=28, moe_intermediate_size=10, num_hidden_layers=3,
                       num_dense_layers=1, num_experts=8, num_experts_per_tok=3,
                       layer_types=["conv", "full_attention", "conv"], use_expert_bias=True),
    "minimax_m2": family("minimax_m2", *LOCAL, intermediate_size=10, head_dim=8, num_local_experts=8,
                         num_experts_per_tok=3,
                         rope_parameters={**ROPE, "partial_rotary_factor": 0.5}),
    "ernie4_5_moe": family("ernie4_5_moe", "moe_num_experts", "moe_k", intermediate_size=28,
                           moe_intermediate_size=10, moe_num_experts=8, moe_k=3,
                           moe_num_shared_experts=2, moe_layer_start_index=1),
    "qwen3_next": family("qwen3_next", *PLAIN, **{**BASE, **GATED_DELTA}, base={},
                         intermediate_size=28),
    "qwen3_5_moe": family("qwen3_5_moe_text", *PLAIN, **{**BASE, **GATED_DELTA}, base={}),
    "gemma4": family("gemma4_text", "num_experts", "top_k_experts", base=without("rope_parameters"),
                     intermediate_size=28, moe_intermediate_size=10, head_dim=8, global_head_dim=12,
                     sliding_window=4, layer_types=["sliding_attention", "full_attention"],
                     enable_moe_block=True, num_experts=8, top_k_experts=3,
                     hidden_size_per_layer_input=0, final_logit_softcapping=30.0, pad_token_id=0),
    "nemotron_h": family("nemotron_h", *ROUTED, intermediate_size=28, head_dim=8,
                         base=without("rms_norm_eps", "num_hidden_layers", "rope_parameters"),
                         layer_norm_epsilon=1e-4, mamba_num_heads=6, mamba_head_dim=8,
                         ssm_state_size=8, n_groups=2, chunk_size=8, moe_intermediate_size=10,
                         moe_shared_expert_intermediate_size=18, n_routed_experts=8,
                         num_experts_per_tok=3, n_group=1, topk_group=1, routed_scaling_factor=1.5,
                         layers_block_type=["linear_attention", "moe", "full_attention", "moe"]),
    "llama4_text": family("llama4_text", *LOCAL, intermediate_size=10, intermediate_size_mlp=28,
                          head_dim=8, num_local_experts=8, num_experts_per_tok=1,
                          interleave_moe_layer_step=1, num_hidden_layers=2),
    "granitemoeshared": family("granitemoeshared", *LOCAL, intermediate_size=10,
                               shared_intermediate_size=18, num_local_experts=8,
                               num_experts_per_tok=3, embedding_multiplier=3.0,
                               attention_multiplier=0.3, residual_multiplier=0.6, logits_scaling=2.5),
}
# The factor of the frequencies, 0.1 mscale ln(factor) + 1 over the same of mscale_all_dim, differs
# from 1 in V2; in V3, as released, only the softmax scale does.
for name_, all_dim in (("deepseek_v2", 0.707), ("deepseek_v3", 1.0)):
    FAMILIES[name_]["options"]["rope_parameters"] = {**YARN, "mscale": 1.0, "mscale_all_dim": all_dim}

FORWARD = ["llama", "llama_plain", "mistral", "qwen2", "qwen3", "mixtral_window", "qwen3_moe",
           "qwen3_moe_plain", "olmoe", "olmoe_clip", "qwen2_moe", "granitemoe", "gpt_oss",
           "deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "deepseek_v3_plain", "glm4_moe",
           "glm4_moe_plain"]
EAGER = dict(attn_implementation="eager", experts_implementation="eager")


def value(name, t):
    """What tensor `name` is filled with."""
    noise = torch.randn(t.shape)
    if name.endswith("A_log"):
        return noise.abs().add(1).log()
    if "norm" in name or name.endswith(("per_expert_scale", "router.scale", "layer_scalar", ".D")):
        return 0.3 * noise if name.endswith("bias") else 1 + 0.2 * noise
    if name.endswith("sinks"):
        return 0.5 + 0.5 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embed" in name:
        return 0.5 * noise
    if name.endswith(("gate.weight", "router.weight", "router.proj.weight")):
        return 0.4 * noise
    return 0.25 * noise


def stored(model):
    """Parameters and buffers that a checkpoint holds, tied ones once."""
    kept = model.state_dict().keys()
    everything = list(model.named_parameters()) + list(model.named_buffers())
    return [(name, t) for name, t in everything if name in kept]


def build(name, seed=1, dtype=torch.float32, **changed):
    """The model of `name`, with the options `changed` in place of its own."""
    entry = FAMILIES[name]
    config = AutoConfig.for_model(entry["kind"], **{**entry["options"], **changed})
    config.dtype = torch.float32
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, **EAGER).eval()
    with torch.no_grad():
        for key, t in stored(model):
            t.copy_(value(key, t))
    return model if dtype == torch.float32 else narrowed(model, dtype)


def narrowed(model, dtype):
    """To `dtype`, but for what transformers keeps in f32 (the selection biases)."""
    wide = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    for key, t in stored(model):
        if not any(w in key for w in wide):
            t.data = t.data.to(dtype)
    model.config.dtype = dtype
    return model


def write(model, folder):
    """The checkpoint alone: config.json and model.safetensors."""
    folder = pathlib.Path(folder)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def on_disk(model, tensors):
    """Tensors by their names in memory -> by the names of the checkpoint, experts apart if so there:
    transformers' own way back.
    """
    return {k: v.detach().clone().contiguous()
            for k, v in revert_weight_conversion(model, dict(tensors)).items()}


def routers(model):
    return [m for m in model.modules() if type(m).__name__.endswith("Router")]


class RouterGap:
    """The closest two scores of any token, while the model runs: logits, what the choice is made of,
    and the scores of groups."""

    def __init__(self, model):
        self.smallest = float("inf")
        self.hooks = [m.register_forward_hook(self.look) for m in routers(model)]

    def look(self, module, inputs, _):
        x = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
        weight = module.layer.weight if hasattr(module, "layer") else module.weight
        logits = F.linear(x, weight, getattr(module, "bias", None))
        self.note(logits)
        groups = getattr(module, "num_group", None) or 1
        choice = logits.softmax(-1)
        if hasattr(module, "e_score_correction_bias"):
            choice = logits.sigmoid() + module.e_score_correction_bias
            self.note(choice)
        if groups > 1:
            best = choice.reshape(len(x), groups, -1).sort(dim=-1).values
            self.note(best[..., -1])
            self.note(best[..., -2:].sum(-1))

    def note(self, scores):
        scores = scores.detach()
        self.smallest = min(self.smallest, float(scores.sort(dim=-1).values.diff(dim=-1).min()))

    def close(self):
        for hook in self.hooks:
            hook.remove()


def matrices(name, shape, kind):
    """The modules of one tensor of a checkpoint: [(module, view)], view: tensor -> [out, in] matrix.

    Fused experts are taken apart: `...experts.E.gate_proj`, `up_proj`, `down_proj`.
    """
    if name.endswith("bias") or len(shape) not in (2, 3):
        return []
    if len(shape) == 2:
        return [(name.removesuffix(".weight"), lambda t: t)]
    found = []
    for e in range(shape[0]):
        if kind in ("gpt_oss", "llama4_text"):  # transposed; gpt_oss interleaves gate and up
            prefix = name.rsplit(".", 1)[0] + f".{e}."
            half = shape[2] // 2
            cut = (slice(0, None, 2), slice(1, None, 2)) if kind == "gpt_oss" \
                else (slice(0, half), slice(half, None))
            if name.endswith("gate_up_proj"):
                found += [(prefix + "gate_proj", lambda t, e=e: t[e][:, cut[0]].T),
                          (prefix + "up_proj", lambda t, e=e: t[e][:, cut[1]].T)]
            else:
                found.append((prefix + "down_proj", lambda t, e=e: t[e].T))
        else:
            prefix = name.replace("input_linear.weight", "experts.gate_up_proj") \
                .replace("output_linear.weight", "experts.down_proj").rsplit(".", 1)[0] + f".{e}."
            half = shape[1] // 2
            if name.endswith(("gate_up_proj", "input_linear.weight")):
                found += [(prefix + "gate_proj", lambda t, e=e: t[e][:half]),
                          (prefix + "up_proj", lambda t, e=e: t[e][half:])]
            else:
                found.append((prefix + "down_proj", lambda t, e=e: t[e]))
    return found


def lora_targets(state, kind):
    """Every matrix of the decoder layers: module -> (tensor of the checkpoint, view)."""
    return {module: (name, view) for name, t in state.items() if ".layers." in name
            for module, view in matrices(name, t.shape, kind)}


def run(model, sequences):
    """Logits, mean loss, and its gradients under the checkpoint's names.

    `sequences`: [(ids, labels)]; label i is predicted at position i - 1, -100 is no target.
    """
    model.zero_grad()
    total = sum(int((labels[1:] != -100).sum()) for _, labels in sequences)
    all_logits, loss = [], 0.0
    for ids, labels in sequences:
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        loss = loss + F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100,
                                      reduction="sum") / total
        all_logits.append(logits.detach())
    loss.backward()
    gradients = {n: p.grad if p.grad is not None else torch.zeros_like(p)
                 for n, p in model.named_parameters()}
    return all_logits, loss.detach(), on_disk(model, gradients)


def adapted(state, adapter, scale, kind):
    """The checkpoint's tensors with scale * B * A added to each matrix that has factors."""
    state = {k: v.clone() for k, v in state.items()}
    for module, (name, view) in lora_targets(state, kind).items():
        a = adapter.get(f"base_model.model.{module}.lora_A.weight")
        if a is not None:
            view(state[name]).add_(scale * adapter[f"base_model.model.{module}.lora_B.weight"] @ a)
    return state


def factor_gradients(state, gradients, adapter, scale, kind):
    """dA = s B^T dW and dB = s dW A^T, from the gradient of the adapted matrix W + s B A."""
    out = {}
    for module, (name, view) in lora_targets(state, kind).items():
        key = f"base_model.model.{module}.lora_"
        if f"{key}A.weight" in adapter:
            a, b = adapter[f"{key}A.weight"], adapter[f"{key}B.weight"]
            dw = view(gradients[name])
            out[f"{key}A.weight"], out[f"{key}B.weight"] = scale * b.T @ dw, scale * dw @ a.T
    return out


def reopened(folder, state, scratch):
    """A model with the config of `folder` and these tensors, as from_pretrained reads them."""
    scratch = pathlib.Path(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.copy(pathlib.Path(folder) / "config.json", scratch / "config.json")
    save_file({k: v.contiguous() for k, v in state.items()}, scratch / "model.safetensors",
              metadata={"format": "pt"})
    return opened(scratch)


def opened(folder, **options):
    """A checkpoint in f32; stops if transformers misses a tensor or has one left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **EAGER, **options)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    if wrong:
        raise SystemExit(f"{folder}: transformers reports {wrong}")
    for _, t in stored(model):  # a quantised one is decoded to bf16, whatever dtype was asked for
        t.data = t.data.float()
    return model.eval()


def tensors_of(folder):
    state = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        state.update(load_file(shard))
    return state


# Quantised checkpoints: kind -> (the family it is made of, the options that make whole blocks).
QUANTIZED = {
    "fp8_block": ("qwen3_moe", dict(hidden_size=160, moe_intermediate_size=136, intermediate_size=264)),
    "fp8_block_v3": ("deepseek_v3", dict(hidden_size=160, moe_intermediate_size=136,
                                         intermediate_size=264)),
    "mxfp4": ("gpt_oss", dict(hidden_size=64, intermediate_size=32)),
    "packed4": ("qwen3_moe", dict(hidden_size=64, moe_intermediate_size=32, intermediate_size=96)),
    "gptq": ("mixtral_window", dict(hidden_size=64, intermediate_size=32)),
}
GROUP = 32  # columns per scale of the 4-bit kinds


def fp8_block(name, w):
    """E4M3 with one f32 scale per block of 128 x 128 (the weight is the product)."""
    rows, columns = -(-w.shape[0] // 128), -(-w.shape[1] // 128)
    whole = F.pad(w.float(), (0, columns * 128 - w.shape[1], 0, rows * 128 - w.shape[0]))
    blocks = whole.view(rows, 128, columns, 128)
    scale = blocks.abs().amax(dim=(1, 3)) / 448
    cast = (blocks / scale[:, None, :, None]).view(whole.shape)[: w.shape[0], : w.shape[1]]
    return {f"{name}.weight": cast.to(torch.float8_e4m3fn), f"{name}.weight_scale_inv": scale}


def random_words(*shape):
    return torch.randint(-2**31, 2**31 - 1, shape).to(torch.int32)


def packed4(name, w):
    """compressed-tensors, pack-quantized: eight 4-bit numbers per word along the row."""
    rows, columns = w.shape
    return {f"{name}.weight_packed": random_words(rows, columns // 8),
            f"{name}.weight_scale": torch.rand(rows, columns // GROUP).bfloat16(),
            f"{name}.weight_shape": torch.tensor([rows, columns])}


def gptq(name, w):
    rows, columns = w.shape
    return {f"{name}.qweight": random_words(columns // 8, rows),
            f"{name}.qzeros": random_words(columns // GROUP, rows // 8),
            f"{name}.scales": torch.rand(columns // GROUP, rows).half(),
            f"{name}.g_idx": (torch.arange(columns) // GROUP).to(torch.int32)}


def mxfp4(name, t):
    """Fused experts [E, in, out] -> 16 bytes and one exponent per 32 inputs of an output."""
    experts, width, out = t.shape
    return {f"{name}_blocks": torch.randint(0, 256, (experts, out, width // 32, 16)).to(torch.uint8),
            f"{name}_scales": torch.randint(118, 125, (experts, out, width // 32)).to(torch.uint8)}


def quantization_config(kind, state, excepted):
    layers = sorted({int(k.split(".")[2]) for k in state if k.startswith("model.layers.")})
    routers_ = sorted({k.removesuffix(".weight") for k in state if k.endswith(".gate.weight")})
    if kind.startswith("fp8_block"):
        return dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                    weight_block_size=[128, 128],
                    modules_to_not_convert=["lm_head", *routers_, *excepted])
    if kind == "mxfp4":
        return dict(quant_method="mxfp4", modules_to_not_convert=[
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"])
    if kind == "packed4":
        weights = dict(actorder=None, block_structure=None, dynamic=False, group_size=GROUP,
                       num_bits=4, observer="minmax", observer_kwargs={}, strategy="group",
                       symmetric=True, type="int")
        group = dict(input_activations=None, output_activations=None, targets=["Linear"],
                     weights=weights)
        return dict(config_groups={"group_0": group}, format="pack-quantized",
                    global_compression_ratio=None, ignore=[r"re:.*mlp\.gate$", *excepted, "lm_head"],
                    kv_cache_scheme=None, quant_method="compressed-tensors",
                    quantization_status="compressed")
    inside = sorted({k.split(".", 3)[3].rsplit(".", 1)[0] for k in state
                     if k.startswith(f"model.layers.{layers[0]}.") and k.endswith(".qweight")})
    by_kind = [[m for m in inside if m.rsplit(".", 1)[1] == last]
               for last in dict.fromkeys(m.rsplit(".", 1)[1] for m in inside)]
    return dict(bits=4, checkpoint_format="gptq", damp_percent=0.1, desc_act=False, group_size=GROUP,
                modules_in_block_to_quantize=by_kind, quant_method="gptq", sym=True,
                true_sequential=True)


def make_quantized(kind, folder, seed=1, exceptions=True):
    """Every matrix of the decoder layers but the routers and, where a list of the config can say so
    and `exceptions` asks for it, `down_proj` of expert 3 and all of expert 5 in one layer, which
    stay bf16. Without exceptions transformers opens fp8_block*, and mxfp4 either way, as bf16 on a CPU;
    packed4 and gptq need packages of their own."""
    name, options = QUANTIZED[kind]
    model = build(name, seed, torch.bfloat16, **options)
    write(model, folder)
    folder = pathlib.Path(folder)
    state, out = tensors_of(folder), {}
    excepted = []
    if exceptions and kind in ("fp8_block", "fp8_block_v3", "packed4"):
        first = next(k for k in sorted(state) if ".experts.0." in k).split(".0.down_proj")[0]
        excepted = [f"{first}.{m}_proj" for m in ("3.down", "5.down", "5.gate", "5.up")]
    for key, t in state.items():
        module = key.removesuffix(".weight")
        matrix = key.startswith("model.layers.") and key.endswith(".weight") and t.dim() == 2
        if kind == "mxfp4":
            out.update(mxfp4(key, t) if t.dim() == 3 else {key: t})
        elif matrix and not module.endswith(".gate") and module not in excepted:
            out.update({"packed4": packed4, "gptq": gptq}.get(kind, fp8_block)(module, t))
        else:
            out[key] = t
    save_file(out, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantization_config(kind, out, excepted)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make-quantized"])
    parser.add_argument("--kind", choices=sorted(QUANTIZED), required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-exceptions", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_quantized(args.kind, args.output, args.seed, not args.no_exceptions)


if __name__ == "__main__":
    main()
