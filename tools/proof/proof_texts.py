"""proof_texts.py - what the proof on pebble reads: texts to calibrate by, and texts to judge by.

    proof_texts.py OUT

OUT/calibration.jsonl: dialogues as in training, of about 200,000 tokens. OUT/eval/<set>.jsonl:
dialogues of held-out tasks, which neither training nor calibration ever draws (tools/train/world.py
says how they are kept apart), and other ones than in tools/train/heldout; of about 115,000 tokens.
OUT/wrong.txt: sources of the program, which are nothing like what pebble knows. The dialogues are
the same every time."""
import glob
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tools", "train"))
import heldout  # noqa: E402
import skills  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402

SEED = 78
EVAL = {"arithmetic": 400, "words": 400, "define": 200, "tools": 60, "memory": 120,
        "encyclopedia": 60, "recall-16": 60, "recall-64": 15, "recall-4096": 3}
CALIBRATION_TOKENS, WRONG_CHARS = 200_000, 350_000


def write(path, dialogues, name):
    with open(path, "w") as f:
        for i, d in enumerate(dialogues):
            f.write(json.dumps(d.record("%s-%d" % (name, i)), ensure_ascii=False) + "\n")


def committed():
    """Every dialogue of tools/train/heldout, as what was said in it."""
    seen = set()
    for path in glob.glob(os.path.join(ROOT, "tools", "train", "heldout", "*.jsonl")):
        with open(path) as f:
            seen.update(json.dumps(json.loads(line)["messages"]) for line in f)
    return seen


def new_dialogues(name, n, seen):
    """n held-out dialogues of a set, none of them in `seen`."""
    out = []
    for d in heldout.draw(name, 4 * n, SEED):
        said = json.dumps(d.record("")["messages"])
        if said not in seen and len(out) < n:
            seen.add(said)
            out.append(d)
    return out


def calibration():
    rng, tok, n = random.Random("calibration %d" % SEED), Tokenizer(), 0
    while n < CALIBRATION_TOKENS:
        d = skills.sample(rng, rng.choice((300, 1000, 1000, 4000)))
        n += len(tok.encode(d.text()))
        yield d


def main():
    out = sys.argv[1]
    os.makedirs(os.path.join(out, "eval"), exist_ok=True)
    write(os.path.join(out, "calibration.jsonl"), calibration(), "calibration")
    seen = committed()
    for name, n in EVAL.items():
        write(os.path.join(out, "eval", name + ".jsonl"), new_dialogues(name, n, seen), name)
    wrong = ""
    for path in sorted(glob.glob(os.path.join(ROOT, "src", "*", "*.c"))):
        with open(path) as f:
            wrong += f.read()
    with open(os.path.join(out, "wrong.txt"), "w") as f:
        f.write(wrong[:WRONG_CHARS])


if __name__ == "__main__":
    main()
