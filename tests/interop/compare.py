# SPDX-License-Identifier: Apache-2.0
"""Compares what our programs wrote with what transformers and PEFT make of it.

    compare.py logits --model DIR [--adapter DIR] [--mask-experts PLAN] --tokens FILE --ours FILE
    compare.py ids --model DIR --text FILE --ours FILE

Prints one line and exits 1 where they differ. Logits are f32 on both sides, eager attention and
experts: a relative difference of 1e-4 of the largest logit is far above rounding at these depths and
far below any mistake.
"""
import argparse
import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralForCausalLM

TOLERANCE = 1e-4


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load(args):
    kind = json.load(open(f"{args.model}/config.json"))["architectures"][0]
    options = dict(attn_implementation="eager", dtype=torch.float32)
    if kind == "MixtralForCausalLM":
        options["experts_implementation"] = "eager"
    model = AutoModelForCausalLM.from_pretrained(args.model, **options)
    if args.mask_experts:
        keep = json.load(open(args.mask_experts))["keep"]
        assert isinstance(model, MixtralForCausalLM)
        for layer, kept in zip(model.model.layers, keep):
            dropped = [e for e in range(model.config.num_local_experts) if e not in kept]
            layer.mlp.gate.forward = masked_router(layer.mlp.gate, dropped)
    if args.adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, args.adapter)
    return model.eval()


def masked_router(gate, dropped):
    def forward(hidden):
        logits = torch.nn.functional.linear(hidden.reshape(-1, gate.hidden_dim), gate.weight)
        logits[:, dropped] = float("-inf")
        value, index = logits.float().softmax(-1).topk(gate.top_k, dim=-1)
        return logits, value / value.sum(-1, keepdim=True), index
    return forward


def compare_logits(args):
    model, ours, worst = load(args), load_file(args.ours), 0.0
    rows = lines(args.tokens)
    if sorted(ours) != sorted(f"logits.{i}" for i in range(len(rows))):
        return f"{args.ours} holds {sorted(ours)}, expected logits.0 to logits.{len(rows) - 1}", 1
    with torch.no_grad():
        for i, row in enumerate(rows):
            want, got = model(torch.tensor([row["ids"]])).logits[0].float(), ours[f"logits.{i}"]
            if want.shape != got.shape or got.dtype != torch.float32:
                return f"logits.{i} is {got.dtype} {list(got.shape)}, expected {list(want.shape)}", 1
            worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    return f"worst relative difference {worst:.1e}", 0 if worst <= TOLERANCE else 1


def compare_ids(args):
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts, ours = lines(args.text), lines(args.ours)
    if len(texts) != len(ours):
        return f"{len(ours)} lines for {len(texts)} texts", 1
    for text, got in zip(texts, ours):
        want = tokenizer(text["text"])["input_ids"]
        if got["ids"] != want:
            return f"{text['text']!r}: {got['ids']}, expected {want}", 1
    return f"{len(texts)} texts alike", 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["logits", "ids"])
    for name in ("model", "adapter", "mask-experts", "tokens", "text", "ours"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    message, code = {"logits": compare_logits, "ids": compare_ids}[args.what](args)
    print(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
