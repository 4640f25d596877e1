# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/families: tiny models of every family, and what transformers says of them.

Made with: torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0; CPU, f32, eager
attention and eager experts, one thread. README.md in this folder says what each file holds; the
models are those of family_models.py.

    python tests/golden/make_families_golden.py [--only NAME ...]

Gradients and adapters go by the names of the checkpoint, which transformers' own conversion finds.
The script stops if that conversion of the weights is not the file bit for bit, if the reopened file
does not give the same logits, or if PEFT disagrees with an adapter on the attention projections."""
import argparse
import json
import pathlib
import shutil
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import family_models as fm

OUT = pathlib.Path(__file__).parent / "families"
RANK, ALPHA = 2, 4
SCALE = ALPHA / RANK
WITH_LORA = ["llama", "mixtral_window", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3"]
SMALLEST_GAP = 2e-4
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa",
             "kv_b_proj"]


def sequences(name):
    generator = torch.Generator().manual_seed(len(name))
    rows = [torch.randint(3, 64, (n,), generator=generator) for n in (11, 5)]
    labels = [r.clone() for r in rows]
    labels[0][:3] = -100
    return list(zip(rows, labels))


def close(what, got, want, tolerance):
    error = float((got.detach() - want).abs().max() / want.abs().max().clamp(min=1e-30))
    if not error <= tolerance:
        raise SystemExit(f"{what}: relative difference {error:.2e}, expected {tolerance:.0e}")
    return error


def save(tensors, path):
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path,
              metadata={"format": "pt"})


def chosen_model(name, batch):
    """The first seed whose router scores are nowhere close for these tokens."""
    for seed in range(1, 100):
        model = fm.build(name, seed)
        gap = fm.RouterGap(model)
        fm.run(model, batch)
        gap.close()
        if gap.smallest > SMALLEST_GAP:
            return model, seed, gap.smallest
    raise SystemExit(f"{name}: no seed keeps the router scores apart")


def make_adapter(state, kind):
    torch.manual_seed(5)
    adapter = {}
    for module, (name, view) in fm.lora_targets(state, kind).items():
        out, width = view(state[name]).shape
        key = f"base_model.model.{module}.lora_"
        adapter[f"{key}A.weight"] = 0.2 * torch.randn(RANK, width)
        adapter[f"{key}B.weight"] = 0.15 * torch.randn(out, RANK)
    return adapter


def with_adapter(folder, state, adapter, batch, kind):
    with tempfile.TemporaryDirectory() as scratch:
        model = fm.reopened(folder, fm.adapted(state, adapter, SCALE, kind), scratch)
        gap = fm.RouterGap(model)
        logits, loss, gradients = fm.run(model, batch)
        gap.close()
    if gap.smallest < SMALLEST_GAP:
        print(f"  {folder.name}: adapted router scores as close as {gap.smallest:.1e}")
        assert gap.smallest > 2e-5
    return logits, loss, fm.factor_gradients(state, gradients, adapter, SCALE, kind)


def peft_agrees(folder, state, adapter, batch, kind):
    """PEFT itself, on the attention projections, against the same factors added to the weights."""
    adapter = {k: v for k, v in adapter.items() if k.split(".lora_")[0].split(".")[-1] in ATTENTION}
    logits, loss, gradients = with_adapter(folder, state, adapter, batch, kind)
    model = get_peft_model(fm.opened(folder), LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=sorted(
            {k.split(".lora_")[0].split(".")[-1] for k in adapter}))).eval()
    factors = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    assert factors.keys() == adapter.keys(), sorted(factors.keys() ^ adapter.keys())
    with torch.no_grad():
        for key, p in factors.items():
            p.copy_(adapter[key])
    total = sum(int((labels[1:] != -100).sum()) for _, labels in batch)
    judged = 0.0
    for i, (ids, labels) in enumerate(batch):
        got = model(input_ids=ids[None], use_cache=False).logits[0]
        close(f"{folder.name}: PEFT's logits", got, logits[i], 1e-5)
        judged = judged + torch.nn.functional.cross_entropy(
            got[:-1], labels[1:], ignore_index=-100, reduction="sum") / total
    judged.backward()
    close(f"{folder.name}: PEFT's loss", judged, loss, 1e-5)
    worst = max(close(f"{folder.name}: PEFT's gradient of {k}", p.grad, gradients[k], 2e-4)
                for k, p in factors.items())
    print(f"  PEFT on attention agrees: worst gradient differs by {worst:.1e}")


def make_family(name):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    batch, kind = sequences(name), fm.FAMILIES[name]["kind"]
    model, seed, gap = chosen_model(name, batch)
    fm.write(model, folder / "model")
    state = fm.tensors_of(folder / "model")

    converted = fm.on_disk(model, fm.stored(model))
    assert converted.keys() == state.keys() and all(v.equal(state[k]) for k, v in converted.items())
    logits, loss, gradients = fm.run(model, batch)
    reopened = fm.opened(folder / "model")
    for i, again in enumerate(fm.run(reopened, batch)[0]):
        close(f"{name}: the file read again", again, logits[i], 1e-6)
    expected = {k: list(v.shape) for k, v in state.items() 
                if not k.endswith("e_score_correction_bias")}
    assert {k: list(v.shape) for k, v in gradients.items()} == expected, name
    golden = {"loss": loss}
    for i, (ids, labels) in enumerate(batch):
        golden.update({f"ids.{i}": ids, f"labels.{i}": labels, f"logits.{i}": logits[i]})
    golden.update({f"grad.{k}": v for k, v in gradients.items()
                   if k.startswith("model.layers.") and v.dim() >= 2 and not k.endswith("bias")})
    save(golden, folder / "forward.safetensors")
    idle = sum(k.startswith("grad.") and float(v.abs().max()) == 0.0 for k, v in golden.items())
    spread = float(torch.cat(logits).std())
    print(f"{name}: seed {seed}, closest router scores {gap:.1e}, loss {loss:.3f}, logits' "
          f"deviation {spread:.2f}, weights without gradient {idle}")

    if name in WITH_LORA:
        adapter = make_adapter(state, kind)
        logits, loss, gradients = with_adapter(folder / "model", state, adapter, batch, kind)
        golden = {**adapter, "loss": loss, **{f"logits.{i}": x for i, x in enumerate(logits)},
                  **{f"grad.{k}": v for k, v in gradients.items()}}
        save(golden, folder / "lora.safetensors")
        peft_agrees(folder / "model", state, adapter, batch, kind)


def shapes(folder):
    header = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header.update(json.loads(file.read(size)))
    header.pop("__metadata__", None)
    placed = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return [[name, entry["shape"]] for name, entry in placed]


def make_tensors():
    """Names and shapes as transformers writes them, in the order of the file."""
    lines = []
    for name, entry in fm.FAMILIES.items():
        with tempfile.TemporaryDirectory() as scratch:
            fm.write(fm.build(name), scratch)
            config = json.loads((pathlib.Path(scratch) / "config.json").read_text())
            fields = dict(model_type=config["model_type"], architecture=config["architectures"][0],
                          expert_count_key=entry["count"], top_k_key=entry["top_k"])
            for key in (entry["count"], entry["top_k"]):
                assert key is None or key in config, (name, key, sorted(config))
            listed = ",\n   ".join(json.dumps(t) for t in shapes(scratch))
        text = json.dumps(fields)[:-1] + f', "tensors": [\n   {listed}]}}'
        lines.append(f' "{name}": {text}')
    (OUT / "tensors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.only or fm.FORWARD:
        make_family(name)
    if not args.only:
        make_tensors()
    for folder in sorted(p for p in OUT.iterdir() if p.is_dir()):
        sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*"))
                 if p.is_file()}
        assert max(sizes.values()) <= 600 * 1000, (folder, sizes)
        assert sum(sizes.values()) <= 300 * 1000, (folder, sizes)
        print(f"{sum(sizes.values()):>8} {folder.name}", sizes)


if __name__ == "__main__":
    main()
