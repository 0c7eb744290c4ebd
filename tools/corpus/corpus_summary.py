"""Add the tokens of each prompt to the manifest and write the summary of the corpus.

    corpus_summary.py OUT [IDS]

IDS is what `dstar tokenize --jsonl` made of OUT/corpus.jsonl. The summary says how much there is of
what, from which packages under which licences, and the hashes by which a corpus is recognised.
"""
import hashlib
import json
import os
import sys

from corpus_sources import packages


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def shares(entries, key):
    out = {}
    for e in entries:
        row = out.setdefault(key(e), {"prompts": 0, "tokens": 0})
        row["prompts"] += 1
        row["tokens"] += e.get("tokens", 0)
    return dict(sorted(out.items(), key=lambda v: (-v[1]["tokens"], v[0])))


def main(out, ids=None):
    path = os.path.join(out, "manifest.jsonl")
    with open(path, encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    if ids:
        with open(ids, encoding="utf-8") as file:
            counts = [line.count(",") + 1 for line in file]
        if len(counts) != len(entries):
            sys.exit("%s: found %d lines, expected %d" % (ids, len(counts), len(entries)))
        for entry, n in zip(entries, counts):
            entry["tokens"] = n
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(e, ensure_ascii=False) + "\n" for e in entries)
    used = {}
    for e in entries:
        for source in e["sources"]:
            used[source] = used.get(source, 0) + 1
    licence = {str(p): p.licence for p in packages()}
    sizes = sorted(e.get("tokens", 0) for e in entries)
    summary = {
        "prompts": len(entries), "tokens": sum(sizes),
        "tokens of one": {"median": sizes[len(sizes) // 2], "most": sizes[-1],
                          "over 4096": sum(s > 4096 for s in sizes),
                          "over 16384": sum(s > 16384 for s in sizes)},
        "corpus.jsonl": hash_of(os.path.join(out, "corpus.jsonl")), "manifest.jsonl": hash_of(path),
        "kinds": shares(entries, lambda e: e["kind"]),
        "mode": shares(entries, lambda e: "thinking" if e["thinking"] else "direct"),
        "languages": shares(entries, lambda e: e["language"].split(">")[-1]),
        "sources": {s: {"prompts": n, "licence": licence.get(s, "own")}
                    for s, n in sorted(used.items())},
    }
    with open(os.path.join(out, "summary.json"), "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(
            "%s: %s" % (json.dumps(k), json.dumps(v, ensure_ascii=False) if not isinstance(v, dict)
                        else "{\n  " + ",\n  ".join(
                            "%s: %s" % (json.dumps(a, ensure_ascii=False), json.dumps(b))
                            for a, b in v.items()) + "\n}")
            for k, v in summary.items()) + "\n}\n")
    print("%d prompts, %d tokens" % (summary["prompts"], summary["tokens"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
