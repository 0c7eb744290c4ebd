"""Prose: passages in many languages, translations, manuals, and long documents.

The pages of one help system exist in 21 languages with the same paragraph numbers, so that a
translation can be asked for and given. What a translator left in English is recognised and skipped.
"""
import json

from corpus_dice import PHRASES
from corpus_sources import NOTICE

LANGUAGES, ASK = PHRASES["languages"], PHRASES["page"]
# Languages as they are spoken and written, roughly.
WEIGHT = {"en-us": 2, "zh-cn": 16, "zh-tw": 2, "ja": 3, "ko": 2, "de": 3, "fr": 3, "es": 3, "ru": 3,
          "pt-br": 2, "it": 2, "hi": 2, "tr": 2, "vi": 2}
WEIGHTED = [name for name in sorted(LANGUAGES) for _ in range(WEIGHT.get(name, 1))]
SYSTEM = ["You are a helpful assistant.", "Answer in the language of the question.",
          "You are a technical writer. Short sentences, no filler.", None, None, None]


def opening(d):
    system = d.pick(SYSTEM)
    return [{"role": "system", "content": system}] if system else []


OTHER_SCRIPT = ("zh-cn", "zh-tw", "ja", "ko", "ru", "el", "hi")


def only_translated(help_of):
    """Take out of every language but English what its translators have left in English."""
    english = help_of["en-us"]
    for language, pages in help_of.items():
        for name, page in pages.items() if language != "en-us" else ():
            there = english.get(name, {})
            pages[name] = {k: t for k, t in page.items() if there.get(k) != t and not (
                language in OTHER_SCRIPT and sum(map(str.isascii, t)) > .7 * len(t))}


def own_passage(d, help_of, language, low, high):
    """A run of paragraphs of one page, low..high characters; shorter where there is little."""
    names = sorted(help_of[language])
    scale = .45 if language in ("zh-cn", "zh-tw", "ja", "ko") else 1
    low, high = int(low * scale), int(high * scale)
    for attempt in range(400):
        least = low >> attempt // 100
        texts = list(help_of[language][d.pick(names)].values())
        start = d.below(len(texts)) if texts else 0
        run = []
        for text in texts[start:]:
            run.append(text)
            if sum(map(len, run)) >= least:
                break
        if least <= sum(map(len, run)) <= high:
            return "\n\n".join(run)
    raise ValueError("no passage of %d characters in %s" % (low, language))


def language(d, help_of, tutors, thinking):
    """(messages, language) about a passage in a language, asked in it."""
    if d.chance(.12):
        name = d.pick(sorted(tutors))
        lessons = [p for p in tutors[name].split("~" * 20) if 300 < len(p.strip("~ \n")) < 4000]
        text = d.pick(lessons).strip("~ \n") if lessons else tutors[name][:2000]
        return opening(d) + [{"role": "user", "content": "%s\n\n%s"
                              % (text, d.pick(PHRASES["lesson"]))}], name
    name = d.pick(WEIGHTED)
    text = own_passage(d, help_of, name, d.pick([400, 800, 1600]), 4500)
    ask = d.pick(ASK[name])
    messages = opening(d) + [{"role": "user", "content": d.pick(["%s\n\n%s", "%s\n\n---\n%s\n---"])
                              % (ask, text)}]
    if d.chance(.3):
        # The page's own words in shorter form, then another question.
        lines = [line for line in text.split("\n\n") if len(line) > 20][:4] or [text]
        answer = {"role": "assistant", "content": "\n".join("- " + line for line in lines)}
        if thinking:
            answer["reasoning_content"] = "%s\n%s" % (ask, lines[0])
        messages += [answer, {"role": "user", "content": d.pick(ASK[name])}]
    return messages, name


def translation(d, help_of, catalogues, thinking):
    """(messages, languages): paragraphs, or a list of messages of a program, with translations."""
    if d.chance(.35):
        name = d.pick(sorted(n for n in catalogues if len(catalogues[n]) > 250))
        keys = d.shuffled(sorted(catalogues[name]))[:d.between(6, 16)]
        text = json.dumps({k: "" for k in keys}, ensure_ascii=False, indent=1)
        reply = json.dumps({k: catalogues[name][k] for k in keys}, ensure_ascii=False, indent=1)
        ask = "Fill in the translations into the language with the code `%s`. Only JSON."
        ask, source, target = ask % name, "en", name
    else:
        source, target = d.pick(WEIGHTED), d.pick(WEIGHTED)
        while target == source or "en-us" not in (source, target) and d.chance(.5):
            source, target = d.pick(WEIGHTED), d.pick(WEIGHTED)
        pairs, want = [], d.between(2, 5)
        for _ in range(200):
            page = d.pick(sorted(help_of[source]))
            other = help_of[target].get(page, {})
            pairs = [(t, other[k]) for k, t in help_of[source][page].items()
                     if len(t) > 30 and other.get(k, t) != t]
            if len(pairs) >= want:
                break
        pairs = pairs[:want]
        text = "\n\n".join(p[0] for p in pairs)
        reply = "\n\n".join(p[1] for p in pairs)
        ask = d.pick(PHRASES["translate"]).format(LANGUAGES[target])
    messages = opening(d) + [{"role": "user", "content": "%s\n\n%s" % (ask, text)}]
    if d.chance(.75):
        answer = {"role": "assistant", "content": reply}
        if thinking:
            answer["reasoning_content"] = ("From %s to %s. Keep the structure, names of menus "
                                           "stay as the "
                                           "program shows them." % (source, target))
        messages.append(answer)
    return messages, "%s>%s" % (source, target)


def document(d, page):
    """A passage of a manual with a question."""
    passages = page.passages(500, 6000)
    if not passages:
        return None
    text, ask = d.pick(passages), d.pick(PHRASES["passage"])
    body = "%s\n\n%s" % ((ask, text) if d.chance(.5) else (text, ask))
    return opening(d) + [{"role": "user", "content": body}]


def long_document(d, pieces, characters, thinking):
    """Whole pieces [(name, text)] up to so many characters, then a question about all of them."""
    start, parts, size = d.below(len(pieces)), [], 0
    for name, text in pieces[start:] + pieces[:start]:
        if size and size + len(text) > characters * 1.15 or NOTICE.search(text):
            continue
        parts.append("<document name=\"%s\">\n%s\n</document>" % (name, text[:characters]))
        size += len(parts[-1])
        if size >= characters * .85:
            break
    word = d.pick(sorted({w for w in parts[-1].split() if w.isalpha() and len(w) > 6}) or ["it"])
    ask = d.pick(PHRASES["long"]).format(word)
    body = "\n\n".join(parts)
    messages = opening(d) + [{"role": "user", "content": d.pick([ask + "\n\n" + body,
                                                                body + "\n\n" + ask])}]
    if d.chance(.3):
        # A first answer that holds on to the beginning, and a question about the end.
        answer = {"role": "assistant", "content": "\n".join(
            "%d. `%s`: %s" % (i + 1, p.split('"')[1], " ".join(p.split("\n", 1)[1].split())[:160])
            for i, p in enumerate(parts))}
        if thinking:
            answer["reasoning_content"] = (
                "There are %d documents; name each and how it begins." % len(parts))
        messages += [answer, {"role": "user", "content": "Now only the last document: what does "
                              "it add?"}]
    return messages
