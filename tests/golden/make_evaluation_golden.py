# SPDX-License-Identifier: Apache-2.0
"""Golden files of the evaluation, made by Python itself: its `random`, its `re`, its `json`, the format of the
MMLU-Pro reference script written down independently, and lm-evaluation-harness' way of cutting tokens.
CPython 3.11, lm_eval 0.4.13, transformers 5.23.0.

    python make_evaluation_golden.py [SHARED_DATA]

With the folder of shared data it also writes shared_*.json: digests only, none of the data."""
import hashlib
import json
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "evaluation")
LETTERS = "ABCDEFGHIJKLMNOP"
HEADER = ("The following are multiple choice questions (with answers) about {$}. Think step by step and then finish "
          "your answer with \"the answer is (X)\" where X is the correct letter choice.\n\n\n")


def write(name, text):
    path = os.path.join(OUT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


# --- the three patterns ---
def extract(text, levels=3):
    patterns = [(r"answer is \(?([A-J])\)?", 0, 1), (r".*[aA]nswer:\s*([A-J])", 0, 1),
                (r"\b[A-J]\b(?!.*\b[A-J]\b)", re.DOTALL, 0)]
    for level, (pattern, flags, group) in enumerate(patterns[:levels], 1):
        m = re.search(pattern, text, flags)
        if m:
            return m.group(group), level
    return None, None


def extraction_cases():
    by_hand = [
        "", "answer is", "The answer is (B).", "answer is (B", "answer is B)", "answer is Dalton", "answer is ((C)",
        "the answer is not A. The answer is (C)", "Answer is (A)", "answer is (K). answer is (J)", "answer is  (A)",
        "answer is (b)", "answer is (ÀB)", "answer isanswer is E", "Answer: A", "answer:\n\n  C and answer: D",
        "answer: D answer: E\nanswer: F", "no hit answer: x\nAnswer:\u00a0\u2003G tail", "nswer: A", "Answer:\u200bA",
        "Answer:\x1cB", "Answer:\x85C", "answer:\nAnswer: B", "Answer:\n\n\nanswer: Z\nAnswer:H answer:I\nanswer:A",
        "ANSWER: B", "A", "I think so", "I", "so it is A, B or C", "ABC", "_A_", "A_", "1A", "A1", "\u0391A", "A\u0301", "éB",
        "B\u00b2", "B\u2460", "\u4e2dC", "C\u4e2d", "D\u200d", "E\u3002", "F\ufe0f", "\U0001d7ceG", "\U0001f600H", "I\n\nJ K",
        "K L M", "A\u0600", "A\u0345", "B\u02b0", "C\u00aa", "\u00bdD", "E\u0903", "F\u203f", "G\u005f", "H\u1d2c", "answer:\tK C",
        "answer is (\nA", "final: (J)", "\u2163 A", "A\u2163", "\uff21 B", "\uff22", "A\u30fc", "A\u3005", "\u0e33A", "A\u0e31",
    ]
    rng = random.Random(20)
    parts = ["A", "J", "K", "b", " ", "\n", "answer is ", "(", ")", "Answer:", "answer:", "_", "é", "1", ".", "\u2003",
             "\u0301", "²", "nswer:", "\x1f", "中", "I"]
    made = ["".join(rng.choice(parts) for _ in range(rng.randint(1, 14))) for _ in range(1500)]
    lines = []
    for text in by_hand + made:
        one, _ = extract(text, 1)
        three, level = extract(text)
        lines.append(json.dumps([text, one, three, level], ensure_ascii=False))
    write("extraction.jsonl", "\n".join(lines) + "\n")


def random_draws():
    r = random.Random(12345)
    doc = {"bits": [r.getrandbits(32) for _ in range(1300)]}
    for seed in (0, 1, 1234, 2**32 - 1, 2**32 + 5, 2**63):
        r = random.Random(seed)
        doc[str(seed)] = {
            "randint": [r.randint(0, n - 1) for n in range(1, 60)],
            "choice": [r.choice(range(10)) for _ in range(40)],
            "sample": [[n, k, r.sample(range(n), k)]
                       for n, k in [(1, 1), (5, 5), (21, 3), (22, 3), (85, 6), (86, 6), (1172, 26), (300, 5), (2000, 1)]],
        }
    write("random.json", json.dumps(doc) + "\n")


# --- the reference script's prompt and score ---
def preprocess(rows):
    return [dict(r, options=[o for o in r["options"] if o != "N/A"]) for r in rows]


def example(row, solved):
    text = "Question:\n" + row["question"] + "\nOptions:\n"
    for letter, option in zip(LETTERS, row["options"]):
        text += f"{letter}. {option}\n"
    if not solved:
        return text + "Answer: Let's think step by step."
    return text + row["cot_content"].replace("A: Let's think step by step.",
                                             "Answer: Let's think step by step.") + "\n\n"


def prompt(header, val, row, k):
    shots = [v for v in val if v["category"] == row["category"]][:k]
    return header.replace("{$}", row["category"]) + "\n" + "".join(example(s, True) for s in shots) + example(row, False)


def score(rows, outputs, rule):
    """[[pred, level, guess, correct] of each row] in the order of the rows, and the counts."""
    found = [extract(o, 1 if rule == "leaderboard-2024" else 3) for o in outputs]
    result = [None] * len(rows)
    random.seed(12345)
    for category in sorted({r["category"] for r in rows}):
        for _ in range(2 if rule == "current" else 1):
            for i, r in enumerate(rows):
                if r["category"] != category:
                    continue
                (pred, level), guess = found[i], None
                if not pred:
                    if rule != "current":
                        random.seed(12345)
                    guess = random.randint(0, len(r["options"]) - 1)
                    correct = guess == r["answer_index"]
                else:
                    correct = pred == r["answer"]
                result[i] = [pred, level, guess, correct]
    return result


def mini():
    rng = random.Random(5)
    words = "cat déjà 中文 river\tsum $x_{1}$ \"quoted\" back\\slash α→β 0.5% I A answer".split(" ")
    text = lambda n: " ".join(rng.choice(words) for _ in range(n))
    rows = {"test": [], "validation": []}
    for split, per, first in (("validation", 5, 0), ("test", 12, 70)):
        for c, category in enumerate(["math", "computer science", "law"]):
            for i in range(per):
                n = rng.choice([1, 2, 4, 5, 9, 10])
                options = [text(rng.randint(1, 4)) for _ in range(n)]
                answer = rng.randrange(n)
                if split == "validation" and i % 2:
                    options += ["N/A"] * (10 - n)
                rows[split].append({
                    "question_id": first + 3 * i + c, "question": text(rng.randint(3, 12)) + ("\nsecond line" if i == 1 else ""),
                    "options": options, "answer": LETTERS[answer], "answer_index": answer,
                    "cot_content": f"A: Let's think step by step. {text(6)}. The answer is ({LETTERS[answer]})."
                                   if split == "validation" else "",
                    "category": category, "src": f"mini-{c}"})
    rng.shuffle(rows["test"])
    for split, content in rows.items():
        write(f"mini/mmlu_pro/{split}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in content))
    test, val = preprocess(rows["test"]), preprocess(rows["validation"])
    prompts = {r["question_id"]: [prompt(HEADER, val, r, k) for k in (5, 2, 0)] for r in test}
    write("mini/prompts.json", json.dumps({str(q): [hashlib.sha256(x.encode()).hexdigest() for x in p]
                                           for q, p in prompts.items()}) + "\n")
    write("mini/one_prompt.txt", prompts[70][0])
    outputs = []
    for r in test:
        letter = rng.choice(LETTERS[:11])
        outputs.append(rng.choice([f" So the answer is ({letter}).\n\n", f" Hmm.\nAnswer: {letter}", f" it is {letter}!",
                                   " I do not know", " nothing here", " é 中\U0001f600 \x7f"]))
    recorded = [dict(r, pred=extract(o)[0], model_outputs=o) for r, o in zip(test, outputs)]
    write("mini/outputs.json", json.dumps(recorded) + "\n")
    for category in sorted({r["category"] for r in recorded}):
        write(f"mini/CoT/{category}.json", json.dumps([r for r in recorded if r["category"] == category]))
    write("mini/scores.json", json.dumps({rule: score(test, outputs, rule)
                                          for rule in ("current", "2024-07", "leaderboard-2024")}) + "\n")


# --- lm-evaluation-harness ---
def encode_pairs():
    from lm_eval.api.model import TemplateLM
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(os.path.join(HERE, "tiny_mixtral", "model"))

    class Pairs(TemplateLM):
        backend = "causal"
        eot_token_id = tokenizer.eos_token_id
        prefix_token_id = tokenizer.bos_token_id

        def tok_encode(self, string, add_special_tokens=None, **_):
            return tokenizer.encode(string, **({} if add_special_tokens is None else {"add_special_tokens": False}))

        def _loglikelihood_tokens(self, requests, **_):
            return [[c, k] for _, c, k in requests]

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

        def generate_until(self, requests):
            raise NotImplementedError

    class Request:
        def __init__(self, *args):
            self.args = args

    cases = [("the answer", " is here"), ("the answer ", "is here"), ("the answer \n\t ", "is"), ("", "the answer"),
             ("", " the answer"), ("a", ""), ("the ans", "wer"), ("and\u00a0", "then"), ("and\u3000 ", " then"),
             ("and\x1f", "then"), ("and\u200b", "then"), ("Question: why?\nAnswer:", " because"), ("x\n", "\ny"),
             ("one two", "three"), ("é", "é"), ("中", " 文")]
    lm = Pairs()
    rows = [json.dumps([c, k, *ids], ensure_ascii=False)
            for (c, k), ids in zip(cases, lm.loglikelihood([Request(*x) for x in cases], disable_tqdm=True))]
    write("encode_pairs.jsonl", "\n".join(rows) + "\n")


# --- digests of the shared data ---
def shared(folder):
    at = os.path.join(folder, "mmlu_pro")
    rows = json.load(open(os.path.join(at, "mixtral_8x7b_instruct_outputs.json"), encoding="utf-8"))
    val = preprocess([json.loads(line) for line in open(os.path.join(at, "validation.jsonl"), encoding="utf-8")])
    header = open(os.path.join(at, "initial_prompt.txt"), encoding="utf-8").read()
    assert header == HEADER
    test = preprocess(rows)
    outputs = [r["generated_text"] for r in rows]
    digest = lambda s: hashlib.sha256(s.encode()).hexdigest()[:8]
    levels = [extract(o) for o in outputs]
    doc = {
        "prompts": "".join(digest(prompt(header, val, r, 5)) for r in test),
        "level_1": "".join(extract(o, 1)[0] or "-" for o in outputs),
        "letters": "".join(p or "-" for p, _ in levels),
        "levels": "".join(str(l or 0) for _, l in levels),
    }
    for rule in ("current", "2024-07", "leaderboard-2024"):
        s = score(test, outputs, rule)
        doc[rule] = {"correct": "".join(str(int(x[3])) for x in s),
                     "guess": "".join("-" if x[2] is None else LETTERS[x[2]] for x in s)}
    write("shared_mmlu_pro.json", json.dumps(doc) + "\n")


if __name__ == "__main__":
    extraction_cases()
    random_draws()
    mini()
    encode_pairs()
    if len(sys.argv) > 1:
        shared(sys.argv[1])
