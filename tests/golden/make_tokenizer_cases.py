# SPDX-License-Identifier: Apache-2.0
"""Golden files of the tokenizers: two tiny tokenizers, and the ids that Hugging Face's tokenizers
gives for them, for variants of their components, and for the tokenizers of Mixtral and SmolLM2.

    python make_tokenizer_cases.py --mixtral DIR --smollm2 DIR

Made with tokenizers 0.23.3. Strings are generated, from code points that Unicode 14 assigns, so
that the Unicode version of a library does not matter. DIR: folders with a tokenizer.json; these
are not part of the repository, only the ids are.
"""
import argparse
import copy
import json
import pathlib
import random
import unicodedata

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent / "tokenizer"
ASSIGNED = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
WORDS = """the of and to in is that it was for on are as with his they at be this from have or by one
had not but what all were when we there can an your which their said if do will each about how up
out them then she many some so these would other into has more her two like him see time could no
make than first been its who now people my made over did down only way find use may water long
little very after words called just where most know get through back much before go good new write
our used me man too any day same right look think also around another came come work three word
must because does part even place well such here take why things help put years different away
again off went old number""".split()
MARKERS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<0x0A>", "\u2581", "\u0120", "<"]
BLANKS = [" ", "  ", "     ", "\n", "\r\n", "\t", "\n\n", "\x00", "\x1c", "\x85", "\u00a0", "\u3000",
          "\u200b", "\u180e", " \n "]
CLUSTERS = ["\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u00e9", "e\u0301", "\ufb01", "\u212b",
            "\ud55c\uad6d\uc5b4", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0627\u0644\u0639",
            "\U0001f1e9\U0001f1ea", "\u4f60\u597d", "1234", "\u00b2\u00b3", "\u2163", "\u0130"]
CODE = ["def f(x):\n    return x**2", "http://a.b/c?d=e#f", "I'll", "don't", "we've", "'S", "x+=1;",
        "{'k': [1, 2]}", "</div>", "1,024.50"]


def atom(rng):
    kind = rng.randrange(10)
    if kind == 0:
        return chr(rng.choice(ASSIGNED))
    if kind == 1:
        return chr(rng.choice([c for c in ASSIGNED[:9000]]))
    if kind == 2:
        return rng.choice(MARKERS)
    if kind == 3:
        return rng.choice(BLANKS)
    if kind == 4:
        return rng.choice(CLUSTERS)
    if kind == 5:
        return rng.choice(CODE)
    if kind == 6:
        return str(rng.randrange(10 ** rng.randrange(1, 7)))
    if kind == 7:
        return chr(rng.randrange(0x300, 0x370)) * rng.randrange(1, 4)
    return rng.choice(["", " ", " "]) + rng.choice(WORDS)


def strings(count, seed, longest=14):
    rng = random.Random(seed)
    out = ["", " ", "  ", "\n", "a", "\u2581", "<s>", " <s> "]
    while len(out) < count:
        out.append("".join(atom(rng) for _ in range(rng.randrange(1, longest))))
    return out


def training_text(seed):
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(12)) + ". It's " + str(rng.randrange(5000))
            + " in " + rng.choice(["Z\u00fcrich", "M\u00e9xico", "\u6771\u4eac", "Kiev"]) + "!\n"
            for _ in range(400)]


def byte_level():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(training_text(1), trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return json.loads(tok.to_str())


def byte_fallback():
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    # Words end where a space begins, as in SentencePiece; training only.
    tok.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tok.train_from_iterator(training_text(2), trainers.BpeTrainer(
        vocab_size=900, special_tokens=specials, show_progress=False))
    spec = json.loads(tok.to_str())
    spec["pre_tokenizer"] = None
    spec["added_tokens"] = spec["added_tokens"][:3]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    spec["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return spec


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def metaspace(scheme, do_split=True):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme,
            "split": do_split}


def added(content, i, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": False, **flags}


def byte_level_step(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True,
            "use_regex": regex}


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
          r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def variants():
    """(base, what replaces parts of it)"""
    flat = byte_level_step(regex=False)
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield "byte_level", {"normalizer": {"type": name}}
    yield "byte_level", {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}}
    yield "byte_level", {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "_"},
        {"type": "Prepend", "prepend": "> "}]}}
    yield "byte_level", {"pre_tokenizer": byte_level_step(prefix=True)}
    yield "byte_level", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": False}, byte_level_step()]}}
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for pattern, kind in ((r"\s|[aeiou]", "Regex"), (" ", "String")):
                steps = [split(pattern, behavior, invert, kind), flat]
                yield "byte_level", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    yield "byte_level", {"pre_tokenizer": {"type": "Sequence",
                                           "pretokenizers": [split(LLAMA3, "Isolated"), flat]}}
    yield "byte_level", {"pre_tokenizer": {"type": "Sequence",
                                           "pretokenizers": [split(LLAMA3, "Isolated"), flat]},
                         "ignore_merges": True}
    yield "byte_level", {"pre_tokenizer": None, "decoder": None}
    for scheme in ("first", "always", "never"):
        for do_split in (True, False):
            step = metaspace(scheme, do_split)
            yield "byte_fallback", {"normalizer": None, "pre_tokenizer": step, "decoder": {
                "type": "Sequence", "decoders": [step, {"type": "ByteFallback"}]}}
    for flags in ({}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True},
                  {"single_word": True}, {"normalized": True}, {"special": True},
                  {"normalized": True, "special": True},
                  {"normalized": True, "lstrip": True, "single_word": True}):
        tokens = [added("<x>", 900, **flags), added("the", 901, **flags),
                  added("e\u0301", 902, **flags)]
        yield "byte_fallback", {"added_tokens": tokens}
        yield "byte_level", {"added_tokens": tokens, "normalizer": {"type": "NFC"}}
    yield "byte_fallback", {"byte_fallback": False}
    yield "byte_fallback", {"byte_fallback": False, "fuse_unk": False}
    yield "byte_fallback", {"byte_fallback": False, "fuse_unk": False, "unk_token": None}


MODEL_KEYS = ("byte_fallback", "fuse_unk", "unk_token", "ignore_merges")


def patched(base, patch):
    spec = copy.deepcopy(base)
    for key, value in patch.items():
        (spec["model"] if key in MODEL_KEYS else spec)[key] = value
    return spec


def record(tok, text):
    ids = tok.encode(text).ids
    return [text, ids, tok.decode(ids), tok.decode(ids, skip_special_tokens=False)]


def write(name, header, rows):
    path = HERE / name
    with open(path, "w", encoding="utf-8") as f:
        for row in [{"tokenizers": tokenizers.__version__, **header}] + rows:
            f.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size, "bytes,", len(rows), "rows")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixtral")
    parser.add_argument("--smollm2")
    args = parser.parse_args()
    HERE.mkdir(exist_ok=True)
    bases = {"byte_level": byte_level(), "byte_fallback": byte_fallback()}
    for name, spec in bases.items():
        (HERE / f"{name}.json").write_text(
            json.dumps(spec, ensure_ascii=True, separators=(",", ":")) + "\n")
        tok = Tokenizer.from_str(json.dumps(spec))
        write(f"{name}_cases.jsonl", {"columns": ["text", "ids", "decoded", "with specials"]},
              [record(tok, s) for s in strings(500, 11)])
    rows = []
    for i, (base, patch) in enumerate(variants()):
        tok = Tokenizer.from_str(json.dumps(patched(bases[base], patch)))
        texts = strings(24, 100 + i, 9) + ["a<x>b <x> c <x>", " the  the, other\tthe\n<x>\n",
                                           "e\u0301 <x>e\u0301x the<x>  "]
        cases = [record(tok, s) for s in texts]
        if any(t["normalized"] and t["special"] for t in patch.get("added_tokens", [])):
            # This version compares a special token's normalized text with its raw text and so
            # fails to leave it out; earlier versions did, and so does Espalier.
            cases = [[text, ids, None, shown] for text, ids, _, shown in cases]
        rows.append({"base": base, "patch": patch, "cases": cases})
    write("component_cases.jsonl", {"columns": ["text", "ids", "decoded", "with specials"]}, rows)
    for name in ("mixtral", "smollm2"):
        folder = getattr(args, name)
        if folder:
            tok = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
            write(f"{name}_cases.jsonl", {"columns": ["text", "ids", "decoded"]},
                  [record(tok, s)[:3] for s in strings(2000, 21)])


if __name__ == "__main__":
    main()
