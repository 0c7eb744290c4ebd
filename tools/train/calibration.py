"""calibration.py - texts for `dstar calibrate` on pebble: what training draws, nothing held out.

    python3 calibration.py [N_TOKEN] > pebble.jsonl

A line is one dialogue, {id, skill, thinking, messages, tools}, its answers included. The mixture is
that of training: three dialogues in four fit into 1,024 tokens, the others into 8,192; the tasks
are those for which the held-out rule (world.py) says no, so that no dialogue asks what the held-out
sets ask. The same texts come every time."""
import json
import random
import sys

import skills
from tokenizer import Tokenizer


def texts(n_token, seed=41):
    """Records until they have n_token tokens; none exceeds that."""
    rng, tok, n = random.Random("calibration %d" % seed), Tokenizer(), 0
    while True:
        long = rng.random() < 0.04
        limit = rng.choice((2048, 4096, 8000)) if long else rng.choice((512, 1024))
        d = skills.sample(rng, limit, skills.LONG_MIX if long else skills.MIX)
        size = len(tok.encode(d.text()))
        if size > limit * 5 // 4:
            continue
        n += size
        if n > n_token:
            return
        record = d.record("calibration-%d" % n)
        del record["expect"]
        yield record


def main():
    for record in texts(int(sys.argv[1]) if len(sys.argv) > 1 else 280000):
        print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
