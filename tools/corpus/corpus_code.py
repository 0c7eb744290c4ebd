"""Code: changes to review, pieces to explain, test, finish and port.

A reviewed change is a piece of a real file with one planted fault, shown as a unified diff, so that
the right answer is known; a fifth of the changes are harmless. Prompts end with the request, or go
on with the answer and a further question.
"""
import difflib
import re

from corpus_dice import PHRASES

FAULTS = [
    (r"(?<![<>=!-])<(?![<=>!-])(?= )", "<=", "the bound is now included, so the last step reads "
     "one "
     "element too far"),
    (r" <= ", " < ", "the bound is no longer included, so the last element is never handled"),
    (r" == ", " != ", "the condition is reversed, so the two branches have changed places"),
    (r" != ", " == ", "the condition is reversed: what was the exception is now the rule"),
    (r" && ", " || ", "one of the two conditions is now enough, and the second one was what made "
     "the "
     "first one safe"),
    (r" and ", " or ", "one of the two conditions is now enough; the second one guarded the first"),
    (r" \+ 1\b", "", "the offset of one is gone, so the result is short by one"),
    (r" - 1\b", " + 1", "the step goes in the wrong direction"),
    (r"\breturn (?=\w.*;$)", "return !", "the result is negated; every caller reads it the other "
     "way"),
    (r"\bnot ", "", "the negation is lost, so the check passes exactly when it should fail"),
    (r"\bif \(!", "if (", "the negation is lost, so the check passes exactly when it should fail"),
]
CLEANUP = re.compile(r"^\s+(free|close|unlock|release|defer|fclose|"
                     r"[a-z_.>-]*(unlock|free|close|Close|Unlock|release)\w*)\s*\(.*\)?;?\s*$")
NAME = re.compile(r"(?:def|func|fn|function|sub|class|struct|impl|proc|module)\s+(?:\([^)]*\)\s*)?"
                  r"([A-Za-z_][\w:]*)|^[A-Za-z_][\w *]*?\b([A-Za-z_]\w*)\s*\(", re.M)

KEYWORD = {"if", "for", "while", "switch", "return", "import", "var", "const", "type", "sizeof",
           "defined",
           "use", "else", "case", "default", "unless", "when", "foreach", "assert", "require"}

REVIEW, TASKS, FOLLOW = PHRASES["review"], PHRASES["code task"], PHRASES["code follow"]


def fence(language, text):
    ticks = "````" if "```" in text else "```"
    return "%s%s\n%s\n%s" % (ticks, language, text, ticks)


def owner(lines, at):
    """The name of the function around a line, as far as a pattern can tell."""
    for line in reversed(lines[:at + 1]):
        match = NAME.search(line) if line[:1].strip() or line.startswith("    def ") else None
        if match and (match[1] or match[2]) not in KEYWORD:
            return match[1] or match[2]
    return "this piece"


def plant(d, lines):
    """(changed lines, line number, what it breaks) or None."""
    places = []
    for i, line in enumerate(lines):
        if re.match(r"\s*(//|#|\*|/\*|--|%|\"\"\"|import|use |from )", line) or '"' in line:
            continue
        for pattern, new, why in FAULTS:
            if re.search(pattern, line):
                places.append((i, re.sub(pattern, lambda _: new, line, count=1), why))
        if CLEANUP.match(line):
            places.append((i, None,
                           "the resource taken above is no longer given back on this path"))
    if not places:
        return None
    i, line, why = d.pick(places)
    return lines[:i] + ([] if line is None else [line]) + lines[i + 1:], i, why


def harmless(d, lines):
    """A change of names only."""
    words = sorted(set(re.findall(r"\b[a-z][a-z_]{3,}\b", "\n".join(lines))))
    word = d.pick(words) if words else "value"
    new = word + d.pick(["_now", "_value", "_item", "_of_row"])
    return [re.sub(r"\b%s\b" % word, new, line) for line in lines], word, new


def diff(path, before, after, first):
    out = list(difflib.unified_diff(before, after, "a/" + path, "b/" + path, lineterm="", n=6))

    def moved(match):
        return "@@ -%d,%s +%d,%s @@" % (int(match[1]) + first, match[2], int(match[3]) + first,
                                       match[4])
    return "\n".join(re.sub(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", moved, line) for line in out)


def judgement(d, thinking, lines, at, why, changed):
    name = owner(lines, at)
    old, new = lines[at].strip(), changed.strip() if changed else ""
    reply = {"role": "assistant"}
    if thinking:
        reply["reasoning_content"] = "\n".join([
            "The hunk touches `%s`." % name,
            "Before: `%s`" % old, "After: `%s`" % new if new else "After: the line is gone.",
            "What follows? Here %s." % why,
            "Nothing else in the diff makes up for it: the lines around are context.",
            "So I should ask for a change and show the line as it was."])
    reply["content"] = ("**Do not merge this yet.** In `%s` %s.\n\n- was: `%s`\n- is: %s\n\n"
                        "Restore the old line, and add a test that %s." % (
                            name, why, old, "`%s`" % new if new else "removed",
                            d.pick(["reaches this branch",
                                    "uses the smallest and the largest input",
                                    "fails on the changed line", "runs the error path"])))
    return reply


def review(d, chunk_of, thinking):
    file, (begin, end) = chunk_of
    lines = file.lines[begin:end]
    planted = None if d.chance(.2) else plant(d, lines)
    if planted:
        after, at, why = planted
        changed = after[at] if len(after) == len(lines) else None
        answer = judgement(d, thinking, lines, at, why, changed)
    else:
        after, word, new = harmless(d, lines)
        answer = {"role": "assistant", "content": (
            "The patch only renames `%s` to `%s`. Every use in the piece is changed with it and no "
            "expression is different, so behaviour stays the same. Fine to merge if the name is "
                                                   "not "
            "part of an interface." % (word, new))}
        if thinking:
            answer["reasoning_content"] = (
                "Compare the lines pairwise: each pair differs in `%s` and `%s` alone. Is the name "
                "seen from outside? The hunk does not show it. No logic moved." % (word, new))
    ask = d.pick(REVIEW).format(path=file.path)
    text = fence("diff", diff(file.path, lines, after, begin))
    messages = [{"role": "user", "content": d.pick(["%s\n\n%s", "%s\n%s"]) % (ask, text)}]
    if d.chance(.6):
        messages.append(answer)
        if d.chance(.5):
            messages.append({"role": "user", "content": d.pick(FOLLOW)})
    return messages


def task(d, chunk_of, thinking):
    file, (begin, end) = chunk_of
    if d.chance(.3):  # finish what is begun: the author's own text is the answer
        cut = begin + (end - begin) * d.between(35, 65) // 100
        messages = [{"role": "user", "content": "Continue this piece of `%s`. Answer with code "
                     "only."
                     "\n\n%s" % (file.path, fence(file.language, file.text(begin, cut)))},
                    {"role": "assistant", "content": fence(file.language, file.text(cut, end))}]
        if thinking:
            messages[1]["reasoning_content"] = (
                "The piece is %s and stops inside `%s`. I go on with its names and its indentation."
                % (file.language, owner(file.lines, cut)))
        return messages
    other = d.pick(["Python", "Go", "Rust", "C", "TypeScript", "Java", "Kotlin", "C++", "Swift"])
    ask = d.pick(TASKS).format(path=file.path, language=file.language, other=other)
    code = fence(file.language, file.text(begin, end))
    return [{"role": "user", "content": "%s\n\n%s"
             % ((ask, code) if d.chance(.7) else (code, ask))}]


SYSTEM = ["You are a careful reviewer. Point at lines, be brief, and never invent code.",
          "You are an expert programmer who answers precisely.",
          "You review patches for an open-source project. Correctness first, then clarity.", None,
          None]


def dialogue(d, chunk_of, thinking):
    messages = (review if d.chance(.6) else task)(d, chunk_of, thinking)
    system = d.pick(SYSTEM)
    return ([{"role": "system", "content": system}] if system else []) + messages
