"""extract_wordnet.py - the small closed world that the model learns by heart.

Reads WordNet 3.0 (Debian package wordnet-base) and writes two files of plain text:
  data/entries.tsv   topic, name, gloss, kinds (names of the hypernyms that make subtopics)
  data/lexicon.txt   frequent short nouns, the words that all other skills play with
Both are committed, so that this is run only to change the selection. A model of fifty million
parameters memorises some hundred thousand characters in minutes and no encyclopedia at all, so
entries are few and short, and no two glosses share a run of words (a greedy text is then free of
repetitions exactly as far as it is right)."""
import collections
import hashlib
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOPICS = {"05": "animals", "20": "plants", "06": "things", "13": "foods"}
N_ENTRY = 320
N_LEXICON = 576
KINDS = ["bird", "fish", "insect", "dog", "snake", "horse", "tree", "shrub", "herb", "vine",
         "fern", "grass", "tool", "garment", "vehicle", "weapon", "furniture", "building",
         "musical_instrument", "fabric", "container", "fruit", "dish", "drug", "beverage",
         "bread", "cake", "cheese", "vegetable", "sauce", "wood"]
UNWANTED = re.compile(r"sex|genital|slur|offens|vulgar|obscen|erotic|disparag|prostitut|penis|"
                      r"breast|racial|rape|naz|slave|execut|tortur|condom|contracept|narcotic|"
                      r"cocaine|opium|marijuana|excre|feces|anus|vagin|negro|kill|suicide|hitler|"
                      r"cannabis|heroin|hashish|terror|whip|corpse|bomb|poison", re.I)


def read_nouns(folder):
    """offset -> (words, gloss, hypernym offsets, lexicographer file)"""
    nouns = {}
    for line in open(os.path.join(folder, "data.noun"), encoding="latin1"):
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition("|")
        f = head.split()
        n = int(f[3], 16)
        words = [f[4 + 2 * i] for i in range(n)]
        p = 4 + 2 * n
        up = [f[p + 2 + 4 * i] for i in range(int(f[p])) if f[p + 1 + 4 * i] in ("@", "@i")]
        nouns[f[0]] = (words, gloss.strip(), up, f[1])
    return nouns


def kinds_of(nouns, offset):
    found, queue = set(), list(nouns[offset][2])
    while queue:
        o = queue.pop()
        found.update(w for w in nouns[o][0][:1])
        queue += nouns[o][2]
    return [k for k in KINDS if k in found]


def order(text):
    return hashlib.sha256(text.encode()).hexdigest()


def candidates(nouns):
    """Per topic: (fewer letters first among those of a kind) name, gloss, kinds."""
    taken, by_topic = set(), collections.defaultdict(list)
    for offset, (words, gloss, _, lex) in nouns.items():
        name = words[0]
        gloss = re.sub(r';\s*".*$', "", gloss)
        gloss = re.sub(r"\s*\([^)]*\)", "", gloss).strip().rstrip(";:, ")
        if lex not in TOPICS or not re.fullmatch("[a-z]{3,11}", name):
            continue
        if not re.fullmatch("[ -~]{28,110}", gloss) or UNWANTED.search(name + " " + gloss):
            continue
        if re.search(r'["`|]|[0-9]|\b%s\b' % name, gloss) or name in taken:
            continue
        taken.add(name)
        by_topic[TOPICS[lex]].append((name, gloss, kinds_of(nouns, offset)))
    return by_topic


def pick_entries(by_topic):
    runs, rows = set(), []
    for topic, some in sorted(by_topic.items()):
        some.sort(key=lambda e: (not e[2], order(e[0])))
        of_kind, chosen = collections.Counter(), []
        for name, gloss, kinds in some:
            words = gloss.split()
            mine = {tuple(words[i:i + 4]) for i in range(len(words) - 3)}
            if mine & runs or any(of_kind[k] >= 36 for k in kinds) or len(chosen) == N_ENTRY:
                continue
            runs |= mine
            of_kind.update(kinds)
            chosen.append((topic, name, gloss, " ".join(kinds)))
        rows += sorted(chosen, key=lambda e: e[1])
    return rows


def pick_lexicon(folder, banned):
    count = collections.Counter()
    for line in open(os.path.join(folder, "cntlist.rev"), encoding="latin1"):
        sense, _, n = line.split()
        word, _, rest = sense.partition("%")
        if rest[0] in "1":
            count[word] += int(n)
    words = [w for w, _ in count.most_common() if re.fullmatch("[a-z]{3,7}", w)
             and not UNWANTED.search(w) and w not in banned]
    return sorted(words[:N_LEXICON])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet"
    rows = pick_entries(candidates(read_nouns(folder)))
    with open(os.path.join(HERE, "data", "entries.tsv"), "w") as f:
        f.writelines("\t".join(r) + "\n" for r in rows)
    words = pick_lexicon(folder, set("death blood body devil drug enemy fear gun war ass dope jew "
                                     "murder bullet rifle lung serum saline thyroid colonel "
                                     "throat wound".split()))
    with open(os.path.join(HERE, "data", "lexicon.txt"), "w") as f:
        f.writelines(w + "\n" for w in words)
    print(collections.Counter(r[0] for r in rows),
          collections.Counter(k for r in rows for k in r[3].split()),
          sum(len(r[1]) + len(r[2]) for r in rows), len(words))


if __name__ == "__main__":
    main()
