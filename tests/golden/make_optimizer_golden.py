# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/optimizer.json: AdamW, gradient clipping and learning-rate schedules.

Made with: torch 2.15.0, transformers 5.23.0; CPU, f32, one thread.

    python tests/golden/make_optimizer_golden.py
"""
import json
import pathlib

import torch
from torch import nn
from transformers import (get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup,
                          get_linear_schedule_with_warmup)

OUT = pathlib.Path(__file__).parent / "optimizer.json"
SHAPES = [(3, 5), (7,), (2, 2)]
STEPS, CLIP = 12, 1.0
ADAMW = dict(lr=3e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.05)


def run(generator):
    """The third parameter has gradient zero in every other step, as an expert without tokens."""
    parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]
    out = dict(start=[p.flatten().tolist() for p in parameters], grads=[], norms=[], after=[])
    optimizer = torch.optim.AdamW(parameters, foreach=False, fused=False, **ADAMW)
    for step in range(STEPS):
        for i, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=generator) * (10.0 ** (step % 4 - 2))
            if i == 2 and step % 2 == 1:
                p.grad.zero_()
        out["grads"].append([p.grad.flatten().tolist() for p in parameters])
        out["norms"].append(nn.utils.clip_grad_norm_(parameters, CLIP).item())
        optimizer.step()
        out["after"].append([p.flatten().tolist() for p in parameters])
    return out


def rates(make, warmup, total):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-4)
    schedule = make(optimizer, warmup, total)
    out = []
    for _ in range(total):
        out.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return out


def main():
    torch.set_num_threads(1)
    schedules = []
    for warmup, total in ((0, 7), (3, 10), (10, 10)):
        for name, make in (("constant", lambda o, w, t: get_constant_schedule_with_warmup(o, w)),
                           ("linear", get_linear_schedule_with_warmup),
                           ("cosine", get_cosine_schedule_with_warmup)):
            schedules.append(dict(name=name, warmup=warmup, total=total, lr=2e-4,
                                  rates=rates(make, warmup, total)))
    options = dict(ADAMW, betas=list(ADAMW["betas"]), clip=CLIP)
    golden = dict(options=options, shapes=SHAPES, **run(torch.Generator().manual_seed(31)),
                  schedules=schedules)
    OUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
