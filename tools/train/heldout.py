"""heldout.py - the held-out sets: what the model is measured by.

    python3 heldout.py OUTDIR      writes OUTDIR/<set>.jsonl

A line is one dialogue: {id, skill, thinking, messages, tools, expect}. For every entry of expect,
messages[:message] are the prompt (rendered with the vendor's chat markup in the stated mode); the
greedy completion has to be `completion` exactly, or, if reasoning is not to count, its part after
</think> and before the calls has to be `answer` and the calls those of messages[message]. A
dialogue counts as right if all its entries are. The tasks are those that training never draws
(world.py)."""
import json
import os
import random
import sys

import skills
import tool_skill


def plain(skill, task):
    def make(rng):
        thinking = rng.random() < 0.3
        return skills.dialogue(rng, skill, [task(rng, True)], thinking)
    return make


def recall(n_code, n_char):
    def make(rng):
        return skills.dialogue(rng, "recall", skills.recall(rng, True, n_code, n_char, 1), False)
    return make


def memory(rng):
    thinking = rng.random() < 0.3
    return skills.dialogue(rng, "memory", skills.mixed(rng, True, rng.randint(1, 4)), thinking)


def tools(rng):
    return tool_skill.dialogue(rng, True, rng.random() < 0.3, rng.choice((1, 1, 2)))


def encyclopedia(rng):
    task = skills.encyclopedia(rng, True, 400)
    return skills.dialogue(rng, "encyclopedia", [task], False)


# name: (how many, maker, row length that holds it)
SETS = {
    "arithmetic": (300, plain("arithmetic", skills.arithmetic), 1024),
    "words": (300, plain("words", skills.words), 1024),
    "define": (150, plain("define", skills.define), 1024),
    "tools": (150, tools, 1024),
    "memory": (100, memory, 1024),
    "encyclopedia": (60, encyclopedia, 1024),
    "recall-4": (100, recall(4, 0), 1024),
    "recall-16": (100, recall(16, 0), 1024),
    "recall-64": (100, recall(64, 0), 1024),
    "recall-4096": (40, recall(16, 12300), 8192),
    "recall-8000": (20, recall(32, 22500), 8192),
}


def draw(name, n=None, seed=77):
    """The first n dialogues of a set, the same every time."""
    rng = random.Random("%s %d" % (name, seed))
    return [SETS[name][1](rng) for _ in range(n or SETS[name][0])]


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for name in SETS:
        with open(os.path.join(sys.argv[1], name + ".jsonl"), "w") as f:
            for i, d in enumerate(draw(name)):
                f.write(json.dumps(d.record("%s-%d" % (name, i)), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
