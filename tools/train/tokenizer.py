"""tokenizer.py - byte-level BPE as the vendor's, in plain Python.

Reads and writes tokenizer.json (vendor's pre-tokenizer patterns and marker strings) and encodes
printable ASCII exactly as the vendor's splitter does; other text is refused, since everything the
generators write is such and the markers. Pieces are cached, which makes it faster than the data
generators that call it, so no package is needed on the training machine.
Digits stay one token each: no merge touches them, so that arithmetic sees places, not chunks.

    python3 tokenizer.py OUT.json    trains on generated text"""
import collections
import json
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "data", "tokenizer.json")
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK, DSML = "<think>", "</think>", "｜DSML｜"
SPECIALS = [BOS, EOS, PAD, USER, ASSISTANT, THINK, END_THINK, DSML, "<｜latest_reminder｜>"]
VOCAB_SIZE = 2304

PATTERNS = [
    r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"]
# The same for ASCII: letters are A-Za-z, punctuation and symbols the 32 others that print.
_DIGITS = re.compile(r"([0-9]{1,3})")
_P = r"!-/:-@\[-`{-~"
_PIECE = re.compile(r"[%s][A-Za-z]+|[^\r\n%sA-Za-z]?[A-Za-z]+| ?[%s]+[\r\n]*"
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+" % (_P, _P, _P))
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")


def byte_map():
    """byte -> the character that stands for it in tokenizer.json"""
    same = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in same]
    return {**{b: chr(b) for b in same}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


BYTE = byte_map()


def pieces(text):
    """The pre-tokenizer's pieces of ASCII text without markers."""
    out = []
    for i, part in enumerate(_DIGITS.split(text)):
        out += [part] if i % 2 else _PIECE.findall(part)
    return out


class Tokenizer:
    def __init__(self, path=DEFAULT):
        with open(path, encoding="utf8") as f:
            model = json.load(f)["model"]
        self.id = model["vocab"]
        self.token = {i: t for t, i in self.id.items()}
        merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        self.rank = {tuple(m): i for i, m in enumerate(merges)}
        self.cache = {}
        self.special = {s: self.id[s] for s in SPECIALS if s in self.id}

    def __len__(self):
        return len(self.id)

    def _piece(self, piece):
        parts = [BYTE[b] for b in piece.encode("utf8")]
        while len(parts) > 1:
            rank, at = min((self.rank.get(p, 1 << 30), i)
                           for i, p in enumerate(zip(parts, parts[1:])))
            if rank == 1 << 30:
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        ids = self.cache[piece] = [self.id[p] for p in parts]
        return ids

    def encode(self, text):
        out, cache = [], self.cache
        for i, part in enumerate(_SPECIAL.split(text)):
            if i % 2:
                out.append(self.special[part])
                continue
            if not part.isascii():
                raise ValueError("not ASCII: %r" % part[:80])
            for p in pieces(part):
                ids = cache.get(p)
                out += self._piece(p) if ids is None else ids
        return out

    def decode(self, ids):
        """bytes -> text; markers as they are written"""
        back = {c: b for b, c in BYTE.items()}
        out = b""
        for i in ids:
            t = self.token[int(i)]
            out += t.encode("utf8") if t in self.special else bytes(back[c] for c in t)
        return out.decode("utf8", "replace")


def merge_word(parts, pair):
    out, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


def train(counts, n_merge):
    """counts: piece -> how often. Returns the merges, most frequent pair first."""
    words = [([BYTE[b] for b in p.encode()], n) for p, n in sorted(counts.items())
             if not p.isdigit()]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (w, n) in enumerate(words):
        for p in zip(w, w[1:]):
            pairs[p] += n
            where[p].add(i)
    merges, made = [], set()
    while len(merges) < n_merge:
        best = max(pairs.items(), key=lambda x: (x[1], x[0]))[0]
        if best[0] + best[1] in made:  # ids and ranks must run in parallel: one way to a token
            del pairs[best]
            where.pop(best)
            continue
        merges.append(best)
        made.add(best[0] + best[1])
        for i in where.pop(best):
            w, n = words[i]
            for p in zip(w, w[1:]):
                if p in pairs:
                    pairs[p] -= n
                    if pairs[p] <= 0:
                        del pairs[p]
            w = merge_word(w, best)
            words[i] = (w, n)
            for p in zip(w, w[1:]):
                if p[0] + p[1] not in made:
                    pairs[p] += n
                    where[p].add(i)
    return merges


def write_json(path, merges):
    tokens = SPECIALS + [BYTE[b] for b in sorted(BYTE, key=lambda b: ord(BYTE[b]))]
    tokens += [a + b for a, b in merges]
    text = {THINK, END_THINK, DSML}
    split = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
             for p in PATTERNS]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": False}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": s not in text} for i, s in enumerate(SPECIALS)]
    model = {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False,
             "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [list(m) for m in merges]}
    with open(path, "w", encoding="utf8") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                   "normalizer": None,
                   "pre_tokenizer": {"type": "Sequence", "pretokenizers": split + [byte_level]},
                   "post_processor": None,
                   "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                               "trim_offsets": True, "use_regex": True},
                   "model": model}, f, ensure_ascii=False, indent=0)
        f.write("\n")


def main():
    import skills
    rng = random.Random(1)
    counts = collections.Counter()
    # Half of the weight on running text, so that glosses get tokens of their own.
    for topic in skills.WORLD.topics:
        for part in _SPECIAL.split(skills.WORLD.book(topic))[::2]:
            for p in pieces(part):
                counts[p] += 12
    for _ in range(12000):
        text = skills.sample(rng, max_tokens=600).text()
        for part in _SPECIAL.split(text)[::2]:
            counts.update(pieces(part))
    for w in skills.WORLD.words:
        counts[" " + w] += 4000
    # Letters of words spelt aloud stay letters: "-s", "S".
    for p in [p for p in counts if re.fullmatch("-[a-z]|[A-Z]+", p)]:
        del counts[p]
    write_json(sys.argv[1], train(counts, VOCAB_SIZE - len(SPECIALS) - 256))


if __name__ == "__main__":
    main()
