#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prefill and a LoRA step of transformers + PEFT in f32, for comparison with model_bench.

    python bench/model_peer.py --model DIR [--tokens 512] [--threads 2] [--experts grouped_mm]
"""
import argparse
import json
import resource
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def median(repeats, work):
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lora-r", type=int, default=16)
    parser.add_argument("--experts", default="grouped_mm")
    parser.add_argument("--all-targets", action="store_true", help="also router and experts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, experts_implementation=args.experts)
    ids = torch.randint(0, model.config.vocab_size, (1, args.tokens))

    @torch.no_grad()
    def prefill():
        model(ids, use_cache=False)

    prefill_seconds = median(args.repeats, prefill)
    parameters = ["mlp.gate.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = get_peft_model(model, LoraConfig(
        r=args.lora_r, lora_alpha=2 * args.lora_r, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        target_parameters=parameters if args.all_targets else None))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step():
        optimizer.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()

    step_seconds = median(args.repeats, step)
    print(json.dumps({
        "threads": args.threads, "tokens": args.tokens, "experts": args.experts,
        "prefill_tokens_per_second": args.tokens / prefill_seconds,
        "lora_step_tokens_per_second": args.tokens / step_seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


main()
