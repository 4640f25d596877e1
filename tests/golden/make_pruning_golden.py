# SPDX-License-Identifier: Apache-2.0
# Scores of experts of the tiny Mixtral with its adapter merged, from transformers and PEFT in
# double precision, expert by expert as the criteria are defined.
#   python tests/golden/make_pruning_golden.py        (torch 2.15.0, transformers 5.23.0, peft 0.21.2)
import json
import pathlib

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

here = pathlib.Path(__file__).parent / "tiny_mixtral"


def load():
    return AutoModelForCausalLM.from_pretrained(
        here / "model", dtype=torch.float64, experts_implementation="eager").eval()


base = load()
tuned = PeftModel.from_pretrained(load(), here / "adapter").merge_and_unload().eval()
layers, experts, top_k = 2, 8, base.config.num_experts_per_tok
inputs = {}
for l, layer in enumerate(tuned.model.layers):
    layer.mlp.register_forward_pre_hook(lambda _, a, l=l: inputs.__setitem__(l, a[0].detach()[0]))

zeros = lambda: torch.zeros(layers, experts, dtype=torch.float64)
count, soft, norms, gated, squares, largest = (zeros() for _ in range(6))
golden = load_file(here / "forward.safetensors")
for s in range(4):
    with torch.no_grad():
        tuned(golden[f"ids.{s}"].reshape(1, -1).long())
    for l, layer in enumerate(tuned.model.layers):
        weights = layer.mlp.experts
        probabilities = F.softmax(inputs[l] @ layer.mlp.gate.weight.T, -1)
        gates, chosen = probabilities.topk(top_k, -1)
        gates = gates / gates.sum(-1, keepdim=True)
        for x, gs, es in zip(inputs[l], gates, chosen):
            for g, e in zip(gs, es):
                gate, up = (weights.gate_up_proj[e] @ x).chunk(2)
                f = weights.down_proj[e] @ (F.silu(gate) * up)
                count[l, e] += 1
                soft[l, e] += g
                norms[l, e] += f.norm()
                gated[l, e] += g * f.norm()
                squares[l, e] += f.norm() ** 2
                largest[l, e] = max(largest[l, e], f.abs().max())

scores = {
    "frequency": count, "soft_frequency": soft, "ean": norms, "reap": gated / count.clamp(min=1),
    "man": norms / count.clamp(min=1), "msan": squares / count.clamp(min=1),
    "max_activation": largest,
}
for name in ["router_norm_drift", "router_delta", "router_norm", "expert_delta",
             "expert_delta_relative", "expert_norm"]:
    scores[name] = zeros()
for l in range(layers):
    before, after = base.model.layers[l].mlp, tuned.model.layers[l].mlp
    g0, g1 = before.gate.weight, after.gate.weight
    scores["router_norm_drift"][l] = (g1.norm(dim=1) - g0.norm(dim=1)).abs()
    scores["router_delta"][l] = (g1 - g0).norm(dim=1)
    scores["router_norm"][l] = g1.norm(dim=1)
    for e in range(experts):
        w0, w1 = (torch.cat([m.experts.gate_up_proj[e].flatten(), m.experts.down_proj[e].flatten()])
                  for m in (before, after))
        scores["expert_delta"][l, e] = (w1 - w0).norm()
        scores["expert_delta_relative"][l, e] = (w1 - w0).norm() / w0.norm()
        scores["expert_norm"][l, e] = w1.norm()
criteria = {name: s.tolist() for name, s in scores.items()}
(here.parent / "pruning_scores.json").write_text(json.dumps({"criteria": criteria}, indent=1) + "\n")
