"""Show that a corpus shares no text with what models are judged by.

    disjoint.py CORPUS.jsonl [REPOSITORY]

Evaluation texts are all texts under tests/, tools/train/heldout and docs/ of the repository: the
strings of JSON files, other files whole. Two texts overlap if 13 units in a row are the same. A
unit is a word or number without regard to case, or one character of a script without spaces (Han,
kana, Hangul, Thai). A text shorter than that is looked for whole if it has at least 8 units. Runs
in which most units recur (rows of zeros, "int a, int b, ...") say nothing and are not counted.
Everything in a message counts: content, reasoning, arguments of calls, tools. Prints overlaps,
fails if there are any.
"""
import json
import os
import re
import sys

N, SHORTEST, VARIED = 13, 8, .6
ROOTS = ["tests", "tools/train/heldout", "docs"]
UNIT = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
                  "|[^\\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def units(text):
    return UNIT.findall(text.lower())


def runs(words, n):
    for i in range(len(words) - n + 1):
        run = words[i:i + n]
        if len(set(run)) > VARIED * n:
            yield " ".join(run)


def strings(value):
    """Every string in a JSON value; one that is JSON itself is opened, too."""
    if isinstance(value, str):
        if value[:1] in "{[":
            try:
                yield from strings(json.loads(value))
                return
            except ValueError:
                pass
        yield value
    elif isinstance(value, list):
        for v in value:
            yield from strings(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings(v)


def texts_of(path):
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return []
    if "\0" in text:
        return []
    try:
        if path.endswith(".jsonl"):
            return [s for line in text.splitlines() if line.strip()
                    for s in strings(json.loads(line))]
        if path.endswith(".json"):
            return list(strings(json.loads(text)))
    except ValueError:
        pass
    return [text]


def evaluation_runs(repository):
    """({length: {run: file}}, texts, units) of all evaluation texts."""
    found, n_text, n_unit = {}, 0, 0
    for root in ROOTS:
        for place, folders, names in os.walk(os.path.join(repository, root)):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(place, name)
                for text in texts_of(path):
                    words = units(text)
                    n = min(N, len(words))
                    if n < SHORTEST:
                        continue
                    n_text, n_unit = n_text + 1, n_unit + len(words)
                    for run in runs(words, n):
                        found.setdefault(n, {}).setdefault(run, os.path.relpath(path, repository))
    return found, n_text, n_unit


def overlaps(lines, found):
    """(id of the prompt, file, run), the first of each prompt and file."""
    for line in lines:
        prompt = json.loads(line)
        seen = set()
        for text in strings({k: v for k, v in prompt.items() if k != "id"}):
            words = units(text)
            for n, known in found.items():
                for run in runs(words, n):
                    if run in known and known[run] not in seen:
                        seen.add(known[run])
                        yield prompt["id"], known[run], run


def main(corpus, repository=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")):
    found, n_text, n_unit = evaluation_runs(repository)
    bad = 0
    with open(corpus, encoding="utf-8") as lines:
        for name, path, run in overlaps(lines, found):
            print("%s: shares with %s: %s" % (name, path, run))
            bad += 1
    print("%d overlaps with %d evaluation texts of %d units" % (bad, n_text, n_unit))
    return 1 if bad or n_text == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
