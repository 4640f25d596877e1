# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/moe_block.safetensors: one sparse block with the same weights as transformers'
Mixtral has it (softmax over all experts, top 2, renormalised) and as its OLMoE has it (top 3, not
renormalised). README.md in this folder says what the file holds.

Made with: torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.3.5; CPU, f32, eager
experts, one thread.

    python tests/golden/make_moe_block_golden.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, OlmoeConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

OUT = pathlib.Path(__file__).parent / "moe_block.safetensors"
TOKENS, HIDDEN, WIDTH, EXPERTS, IDLE = 13, 20, 12, 6, 4  # no multiples of a vector; IDLE has no token


def block_of(kind):
    common = dict(hidden_size=HIDDEN, intermediate_size=WIDTH, hidden_act="silu")
    if kind == "mixtral":
        config = MixtralConfig(num_local_experts=EXPERTS, num_experts_per_tok=2, **common)
        block = MixtralSparseMoeBlock
    else:
        config = OlmoeConfig(num_experts=EXPERTS, num_experts_per_tok=3, norm_topk_prob=False, **common)
        block = OlmoeSparseMoeBlock
    config._experts_implementation = "eager"
    return block(config).float()


def per_expert(prefix, gate_up, down):
    out = {}
    for e in range(EXPERTS):
        w1, w3 = gate_up[e].chunk(2, dim=0)
        out.update({f"{prefix}w1.{e}": w1, f"{prefix}w2.{e}": down[e], f"{prefix}w3.{e}": w3})
    return out


def main():
    torch.set_num_threads(1)
    torch.manual_seed(24)
    x = 1 + torch.randn(TOKENS, HIDDEN)
    router = 0.4 * torch.randn(EXPERTS, HIDDEN)
    router[IDLE] = -0.5
    gate_up, down = 0.3 * torch.randn(EXPERTS, 2 * WIDTH, HIDDEN), 0.3 * torch.randn(EXPERTS, HIDDEN, WIDTH)
    dy = torch.randn(TOKENS, HIDDEN)
    golden = {"x": x, "dy": dy, "router": router, **per_expert("", gate_up, down)}
    for kind in ("mixtral", "olmoe"):
        block = block_of(kind)
        with torch.no_grad():
            block.gate.weight.copy_(router)
            block.experts.gate_up_proj.copy_(gate_up)
            block.experts.down_proj.copy_(down)
        input = x.clone().requires_grad_()
        logits, _, chosen = block.gate(input)
        assert IDLE not in chosen
        y = block(input[None])[0]
        (y * dy).sum().backward()
        golden.update({f"{kind}.logits": logits, f"{kind}.y": y, f"{kind}.grad.x": input.grad,
                       f"{kind}.grad.router": block.gate.weight.grad,
                       **per_expert(f"{kind}.grad.", block.experts.gate_up_proj.grad,
                                    block.experts.down_proj.grad)})
    save_file({k: v.detach().clone().contiguous() for k, v in golden.items()}, OUT,
              metadata={"format": "pt"})
    print(OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
