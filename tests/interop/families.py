# SPDX-License-Identifier: Apache-2.0
"""Model families: makes tiny checkpoints, and compares what our programs wrote with transformers.

    families.py make --family NAME --output DIR [--seed N] [--dtype f32|bf16]
                     [--vocab N --tokenizer DIR]
    families.py logits --model DIR [--adapter DIR] --tokens FILE --ours FILE [--tolerance T]
    families.py pruned --base DIR --pruned DIR --plan FILE --tokens FILE [--tolerance T]
    families.py adapter-gradients --model DIR --adapter DIR --batch FILE --ours FILE [--tolerance T]
    families.py peft --model DIR --adapter DIR --tokens FILE [--without TEXT ...] [--tolerance T]
    families.py training --model DIR --adapter DIR --data FILE --log FILE --lr X --batch-size N
                         [--tolerance T]
    families.py batch --commands FILE

NAME is one of tests/golden/family_models.py. A line of `--tokens` is {"ids": [...]}; `--ours` of
`logits` holds `logits.0`, `logits.1` ...; a plan is {"keep": [[...], [], ...]}, one list per layer,
[] where a layer has no mixture (or all of it stays); `--batch` holds `ids.S` and `labels.S` as
forward.safetensors of tests/golden/families does, and `--ours` of `adapter-gradients` the gradients
by the names of the adapter file, and `loss` if it likes. `make` copies the tokenizer of another
checkpoint beside the model if asked to. Differences are relative to the largest value of a tensor.
Prints one line and exits 1 where they differ.

`peft` lets PEFT itself load the adapter and compares its logits with those of the factors added to
the weights, but for modules whose name contains one of `--without`: these PEFT leaves out.
`training` goes on from the adapter as fine_tune --schedule constant --no-shuffle does over the
lines {"text": ...} of `--data`, with PEFT and AdamW of torch, and compares loss and gradient norm
of every step with those of `--log`. `batch` runs a line of the file after the other, each a command
as above, so that torch is loaded once."""
import argparse
import copy
import json
import math
import pathlib
import shlex
import shutil
import sys
import tempfile
import warnings

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
import family_models as fm  # noqa: E402


class Differs(Exception):
    """What the line says."""


def token_rows(path):
    with open(path, encoding="utf-8") as file:
        return [torch.tensor(json.loads(line)["ids"]) for line in file]


def relative(got, want, least=1e-30):
    """Infinite where a value is none: max() and <= would pass over a NaN."""
    off = float((got - want).abs().max() / want.abs().max().clamp(min=least))
    return off if math.isfinite(off) else math.inf


def logits_of(model, rows):
    with torch.no_grad():
        return [model(input_ids=ids[None], use_cache=False).logits[0].float() for ids in rows]


def judged(what, worst, tolerance):
    line = f"{what}: worst relative difference {worst:.1e}, allowed {tolerance:.0e}"
    if not worst <= tolerance:
        raise Differs(line)
    return line


def read_adapter(folder):
    """Factors by name, and their scale."""
    folder = pathlib.Path(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    rank = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    return load_file(folder / "adapter_model.safetensors"), config["lora_alpha"] / rank


def with_adapter(model_folder, adapter, scale):
    """The model with the factors added, its tensors before that, and its model_type."""
    state = {k: v.float() if v.is_floating_point() else v
             for k, v in fm.tensors_of(model_folder).items()}
    kind = AutoConfig.from_pretrained(model_folder).model_type
    known = {f"base_model.model.{m}.lora_{f}.weight" for m in fm.lora_targets(state, kind)
             for f in "AB"}
    if strange := sorted(adapter.keys() - known):
        raise Differs(f"the adapter has {strange[0]} (and {len(strange) - 1} more), which is no matrix "
                      "of the model")
    with tempfile.TemporaryDirectory() as scratch:
        model = fm.reopened(model_folder, fm.adapted(state, adapter, scale, kind), scratch)
    return model, state, kind


def make(args):
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    changed = {"vocab_size": args.vocab} if args.vocab else {}
    fm.write(fm.build(args.family, args.seed, dtype, **changed), args.output)
    if args.tokenizer:
        for file in pathlib.Path(args.tokenizer).glob("tokenizer*"):
            shutil.copy(file, args.output)
    return f"{args.family} in {args.output}"


def logits(args):
    rows, ours, worst = token_rows(args.tokens), load_file(args.ours), 0.0
    model = with_adapter(args.model, *read_adapter(args.adapter))[0] if args.adapter \
        else fm.opened(args.model)
    if sorted(ours) != sorted(f"logits.{i}" for i in range(len(rows))):
        raise Differs(f"{args.ours} holds {sorted(ours)}, expected logits.0 to logits.{len(rows) - 1}")
    for i, want in enumerate(logits_of(model, rows)):
        got = ours[f"logits.{i}"]
        if got.shape != want.shape or got.dtype != torch.float32:
            raise Differs(f"logits.{i} is {got.dtype} {list(got.shape)}, expected {list(want.shape)}")
        worst = max(worst, relative(got, want))
    return judged("logits", worst, args.tolerance)


def layer_of(name):
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else None


def sliced(base, keep, pruned_config):
    """A model with the reduced count; its tensors are those of `base`, cut along their expert axis.

    The axis is the one whose length differs; what has none is copied.
    """
    kept = next(k for k in keep if k)
    entry = next(e for e in fm.FAMILIES.values() if e["kind"] == base.config.model_type)
    if any(k and len(k) != len(kept) for k in keep):
        raise Differs("the plan keeps different numbers in different layers")
    config = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):  # transformers has decoded `base` by now
        del config.quantization_config
    setattr(config, entry["count"], len(kept))
    setattr(config, entry["top_k"], min(getattr(config, entry["top_k"]), len(kept)))
    for name in ("n_group", "topk_group"):  # whole groups may have gone
        if hasattr(pruned_config, name):
            setattr(config, name, getattr(pruned_config, name))
    for name in (entry["count"], entry["top_k"]):
        if getattr(pruned_config, name) != getattr(config, name):
            raise Differs(f"{name} of the pruned config is {getattr(pruned_config, name)}, expected "
                          f"{getattr(config, name)}")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **fm.EAGER).eval()
    source = dict(fm.stored(base))
    cut = 0
    with torch.no_grad():
        for name, t in fm.stored(model):
            whole = source[name]
            axes = [d for d in range(t.dim()) if t.shape[d] != whole.shape[d]]
            if axes:
                survivors = keep[layer_of(name)]
                if len(axes) != 1 or not survivors:
                    raise Differs(f"{name} {list(whole.shape)} should become {list(t.shape)}, but the "
                                  f"plan keeps {survivors} of its layer")
                whole = whole.index_select(axes[0], torch.tensor(survivors))
                cut += 1
            t.copy_(whole)
    if cut == 0 and any(k != list(range(len(k))) for k in keep):
        raise Differs("the plan drops no expert")
    return model


def pruned(args):
    rows, keep = token_rows(args.tokens), json.loads(pathlib.Path(args.plan).read_text())["keep"]
    theirs = fm.opened(args.pruned)
    want = logits_of(sliced(fm.opened(args.base), keep, theirs.config), rows)
    worst = max(relative(a, b) for a, b in zip(logits_of(theirs, rows), want))
    return judged("pruned", worst, args.tolerance)


def adapter_gradients(args):
    ours, stored = load_file(args.ours), load_file(args.batch)
    adapter, scale = read_adapter(args.adapter)
    model, state, kind = with_adapter(args.model, adapter, scale)
    count = sum(k.startswith("ids.") for k in stored)
    batch = [(stored[f"ids.{i}"], stored[f"labels.{i}"]) for i in range(count)]
    _, loss, gradients = fm.run(model, batch)
    want = fm.factor_gradients(state, gradients, adapter, scale, kind)
    if "loss" in ours:
        judged("loss", relative(ours.pop("loss"), loss), args.tolerance)
    if ours.keys() != want.keys():
        odd = sorted(ours.keys() ^ want.keys())
        raise Differs(f"gradients: {odd[0]} (and {len(odd) - 1} more) is on one side only")
    # A factor that hardly matters is held to the largest of its kind, not to its own rounding.
    largest = max(float(g.abs().max()) for g in want.values())
    off = {k: relative(ours[k], g, 1e-3 * largest) for k, g in want.items()}
    name = max(off, key=off.get)
    return judged(f"gradients, {name}", off[name], args.tolerance)


def peft(args):
    from peft import PeftModel
    rows, (adapter, scale) = token_rows(args.tokens), read_adapter(args.adapter)
    loaded = {k: t for k, t in adapter.items() if not any(w in k for w in args.without)}
    if args.without and len(loaded) == len(adapter):
        raise Differs(f"the adapter has no module with one of {args.without} in its name")
    want = logits_of(with_adapter(args.model, loaded, scale)[0], rows)
    base = fm.opened(args.model)
    plain = logits_of(base, rows)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, args.adapter).eval()
    if missing := [str(w.message) for w in said if "missing adapter keys" in str(w.message)]:
        raise Differs(f"PEFT: {missing[0][:300]}")
    if not min(relative(a, b) for a, b in zip(plain, want)) > 1e-3:
        raise Differs("the adapter changes nothing")
    worst = max(relative(a, b) for a, b in zip(logits_of(model, rows), want))
    return judged(f"PEFT with {len(loaded) // 2} of {len(adapter) // 2} modules", worst,
                  args.tolerance)


def training(args):
    from peft import PeftModel
    from transformers import AutoTokenizer
    log = [json.loads(line) for line in pathlib.Path(args.log).read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in pathlib.Path(args.data).read_text().splitlines()]
    if not log or len(texts) < len(log) * args.batch_size:
        raise Differs(f"{len(log)} steps of {args.batch_size} lines, {len(texts)} lines")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = PeftModel.from_pretrained(fm.opened(args.model), args.adapter, is_trainable=True).eval()
    end = model.config.eos_token_id
    rows = [torch.tensor(tokenizer(text)["input_ids"] + [end]) for text in texts]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, weight_decay=0.0)
    worst = 0.0
    for step, entry in enumerate(log):
        batch = rows[step * args.batch_size:(step + 1) * args.batch_size]
        count = sum(len(ids) - 1 for ids in batch)
        optimizer.zero_grad()
        loss = sum(torch.nn.functional.cross_entropy(
            model(input_ids=ids[None], use_cache=False).logits[0, :-1], ids[1:], reduction="sum")
            for ids in batch) / count
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        for key, want in (("loss", loss.detach()), ("grad_norm", norm)):
            worst = max(worst, relative(torch.tensor(entry[key]), want.double()))
    return judged(f"{len(log)} steps with {len(trained) // 2} modules", worst, args.tolerance)


def batch(args):
    lines = pathlib.Path(args.commands).read_text().splitlines()
    failed = []
    for line in filter(None, lines):
        try:
            print(run(shlex.split(line)), flush=True)
        except (Differs, SystemExit) as error:
            failed.append(f"{line}\n    {error}")
    if failed:
        raise Differs("\n".join(failed))
    return f"{len(lines)} commands"


def run(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)

    def command(name, work, tolerance, *paths):
        sub = commands.add_parser(name)
        for path in paths:
            sub.add_argument(f"--{path}", required=True)
        if tolerance is not None:
            sub.add_argument("--tolerance", type=float, default=tolerance)
        sub.set_defaults(work=work)
        return sub

    made = command("make", make, None, "output")
    made.add_argument("--family", choices=sorted(fm.FAMILIES), required=True)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    made.add_argument("--vocab", type=int)
    made.add_argument("--tokenizer")
    command("logits", logits, 1e-5, "model", "tokens", "ours").add_argument("--adapter")
    command("pruned", pruned, 1e-5, "base", "pruned", "plan", "tokens")
    command("adapter-gradients", adapter_gradients, 1e-4, "model", "adapter", "batch", "ours")
    command("peft", peft, 1e-5, "model", "adapter", "tokens").add_argument(
        "--without", action="append", default=[])
    trained = command("training", training, 1e-5, "model", "adapter", "data", "log")
    trained.add_argument("--lr", type=float, required=True)
    trained.add_argument("--batch-size", type=int, required=True)
    command("batch", batch, None, "commands")
    args = parser.parse_args(arguments)
    return args.work(args)


def main():
    torch.set_num_threads(1)
    try:
        print(run(sys.argv[1:]))
    except (Differs, SystemExit) as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
