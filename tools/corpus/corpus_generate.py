"""Write the calibration corpus: corpus.jsonl and what is known of each prompt, manifest.jsonl.

    corpus_generate.py ROOT OUT [--small]

ROOT is where tools/corpus/fetch unpacked the packages. A line of the corpus is {"id", "messages",
"tools", "thinking"}; half of each kind thinks. Lines are in a fixed random order, so that the first
part of the file is a fair sample of it. --small: two prompts of each kind, for the test.
"""
import hashlib
import json
import os
import sys

import corpus_agent
import corpus_code
import corpus_math
import corpus_sources
import corpus_text
from corpus_dice import Dice

# How many prompts of each kind.
COUNT = {"code": 1400, "math": 850, "agent": 850, "language": 900, "translation": 450,
         "document": 450, "long": 50}
# Of the languages of code; others: 2.
SHARE = {"python": 6, "c": 5, "go": 4, "javascript": 4, "rust": 4, "cpp": 4, "tcl": 1}
OWN = ["templates"]  # sources of a prompt that holds nothing of a package


class Material:
    """Everything in the packages, and which prompts have used what."""

    def __init__(self, root):
        self.code, self.pages, self.help = {}, {}, {}
        self.package = {p.name: p for p in corpus_sources.packages()}
        for p in self.package.values():
            if p.role == "code":
                files = corpus_sources.code_files(root, p)
                if any(f.chunks(15, 70) for f in files):
                    self.code[p.name] = files
            elif p.role == "help":
                self.help[p.language] = corpus_sources.help_pages(root, p)
            elif p.name in corpus_sources.PAGES:
                self.pages[p.name] = corpus_sources.pages(root, p)
        corpus_text.only_translated(self.help)
        self.catalogues = corpus_sources.messages(root, self.package["python3-django"])
        self.tutors = corpus_sources.tutors(root, self.package["vim-runtime"])
        self.by_language = {}
        for name, files in sorted(self.code.items()):
            self.by_language.setdefault(self.package[name].language, []).append(name)
        self.languages = [n for n in sorted(self.by_language) for _ in range(SHARE.get(n, 2))]
        self.used = {}

    def chunk(self, d, low, high):
        """(package, its files, (file, lines)); no line is given twice."""
        while True:
            name = d.pick(self.by_language[d.pick(self.languages)])
            file = d.pick(self.code[name])
            used = self.used.setdefault((name, file.path), set())
            chunks = [c for c in file.chunks(low, high) if used.isdisjoint(range(*c))]
            if chunks:
                chunk = d.pick(chunks)
                used.update(range(*chunk))
                return self.package[name], self.code[name], (file, chunk)

    def page(self, d):
        name = d.pick(sorted(self.pages))
        return self.package[name], d.pick(self.pages[name])

    def help_sources(self, *languages):
        return [p for p in self.package.values() if p.language in languages and p.role == "help"]


def make_code(m, d, thinking):
    package, _, chunk = m.chunk(d, d.pick([14, 25, 40, 60]), 110)
    return corpus_code.dialogue(d, chunk, thinking), None, chunk[0].language, [package]


def make_math(m, d, thinking):
    messages, language, _ = corpus_math.problem(d, thinking)
    return messages, None, language, OWN


def make_agent(m, d, thinking):
    package, files, chunk = m.chunk(d, 12, 60)
    manual, page = m.page(d)
    messages, tools = corpus_agent.dialogue(d, (files, chunk), page, thinking)
    names = {t["function"]["name"] for t in tools}
    sources = [manual] if "search_docs" in names else [package]
    if names & {"search_orders", "get_forecast", "list_events",
                "sql"} and "search_docs" not in names:
        sources = OWN
    return messages, tools, chunk[0].language if sources == [package] else "en", sources


def make_language(m, d, thinking):
    messages, name = corpus_text.language(d, m.help, m.tutors, thinking)
    return messages, None, name, m.help_sources(name) or [m.package["vim-runtime"]]


def make_translation(m, d, thinking):
    messages, name = corpus_text.translation(d, m.help, m.catalogues, thinking)
    sources = m.help_sources(*name.split(">")) if not name.startswith("en>") else []
    return messages, None, name, sources or [m.package["python3-django"]]


def make_document(m, d, thinking):
    while True:
        package, page = m.page(d)
        messages = corpus_text.document(d, page)
        if messages:
            return messages, None, "en", [package]


def make_long(m, d, thinking):
    characters = d.pick([20000, 30000, 40000, 60000, 90000])
    what = d.below(3)
    if what == 0:
        name = d.pick(sorted(m.pages))
        pieces = [(p.name, p.text) for p in m.pages[name]]
        return (corpus_text.long_document(d, pieces, characters, thinking), None, "en",
                [m.package[name]])
    if what == 1:
        name = d.pick(sorted(m.code))
        pieces = [(f.path, "\n".join(f.lines)) for f in m.code[name]]
        return (corpus_text.long_document(d, pieces, characters, thinking), None,
                m.code[name][0].language, [m.package[name]])
    name = d.pick(corpus_text.WEIGHTED)
    pieces = [(page, "\n\n".join(texts.values())) for page, texts in sorted(m.help[name].items())
              if sum(map(len, texts.values())) > 300]
    scale = 3 if name in ("zh-cn", "zh-tw", "ja", "ko", "hi") else 1
    return (corpus_text.long_document(d, pieces, characters // scale, thinking), None, name,
            m.help_sources(name))


MAKE = {"code": make_code, "math": make_math, "agent": make_agent, "language": make_language,
        "translation": make_translation, "document": make_document, "long": make_long}


def prompts(m, count):
    """(line of the corpus, entry of the manifest), kinds one after the other."""
    for kind, n in count.items():
        for i in range(n):
            name, thinking = "%s-%04d" % (kind, i), i % 2 == 0
            messages, tools, language, sources = MAKE[kind](m, Dice(name), thinking)
            line = {"id": name, "messages": messages, "thinking": thinking}
            if tools:
                line["tools"] = tools
            text = json.dumps(line, ensure_ascii=False)
            licences = sorted({"own" if s == "templates" else s.licence for s in sources})
            yield text, {"id": name, "kind": kind, "language": language, "thinking": thinking,
                         "sources": [str(s) for s in sources], "licence": " and ".join(licences),
                         "sha256": hashlib.sha256(text.encode()).hexdigest()}


def main(root, out, *options):
    count = {k: 2 for k in COUNT} if "--small" in options else COUNT
    made = Dice("order").shuffled(list(prompts(Material(root), count)))
    with open(os.path.join(out, "corpus.jsonl"), "w", encoding="utf-8") as corpus, \
            open(os.path.join(out, "manifest.jsonl"), "w", encoding="utf-8") as manifest:
        for text, entry in made:
            corpus.write(text + "\n")
            manifest.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
