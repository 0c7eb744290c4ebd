"""skills.py - generators of dialogues, one per skill; sample() draws from a mixture of them.

Every generator takes a random source and whether the task is to be a held-out one (world.py), and
returns tasks: (question, answer, reasoning or None). Dialogues are then made of one task or, since
only answers carry loss and a prompt costs as much as an answer, of as many as fit: several sums,
twenty questions about one list of codes."""
import random

import tool_skill
from chat import Dialogue, assistant, user
from world import WORLD, is_held

SYSTEMS = ["", "", "", "", "You are a helpful assistant.", "You are Pebble.", "Answer briefly."]
WEIGHT = {"arithmetic": 1.5, "words": 1.5, "recall": 4.0, "tools": 1.0, "define": 0.6,
          "encyclopedia": 0.5, "talk": 0.7, "memory": 1.5}


def draw(held, make):
    """make() -> (key, task); repeats until the held-out rule fits."""
    while True:
        key, task = make()
        if is_held(key) == held:
            return task


# ---- arithmetic ---------------------------------------------------------------------------------

SUMS = ["What is {a} {o} {b}?", "Compute {a} {o} {b}.", "{a} {o} {b} = ?",
        "How much is {a} {n} {b}?", "Calculate {a} {n} {b}."]
NAMED = {"+": "plus", "-": "minus", "*": "times"}


def add_steps(a, b):
    out, carry = [], 0
    for i in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10 ** i % 10, b // 10 ** i % 10
        out.append("%d+%d%s=%d" % (x, y, "+1" if carry else "", x + y + carry))
        carry = (x + y + carry) // 10
    return ", ".join(out)


def sub_steps(a, b):
    out, borrow = [], 0
    for i in range(len(str(a))):
        x, y = a // 10 ** i % 10, b // 10 ** i % 10
        ten = 10 if x - y - borrow < 0 else 0
        out.append("%d-%d%s=%d" % (x + ten, y, "-1" if borrow else "", x + ten - y - borrow))
        borrow = ten // 10
    return ", ".join(out)


def arithmetic(rng, held):
    def make():
        op = rng.choice("++--*")
        if op == "*":
            a, b = rng.randrange(13), rng.randrange(13)
        else:
            a, b = (rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3, 3))) for _ in "ab")
        if op == "-" and a < b:
            a, b = b, a
        q = rng.choice(SUMS).format(a=a, b=b, o=op, n=NAMED[op])
        r = {"+": a + b, "-": a - b, "*": a * b}[op]
        think = {"+": add_steps, "-": sub_steps,
                 "*": lambda a, b: "%d times %d is %d" % (a, b, a * b)}[op](a, b)
        # Sums: the numbers are new in any order. Products are facts: the wording is new.
        key = q if op == "*" else "%s %d %d" % (op, min(a, b), max(a, b))
        return key, (q, str(r), think + ".")
    return draw(held, make)


# ---- operations on words ------------------------------------------------------------------------

NTH = ["first", "second", "third", "fourth", "fifth"]


def of_one_word(rng):
    w = rng.choice(WORLD.words)
    return rng.choice([
        ("Write %s in capital letters." % w, w.upper()),
        ("Spell %s." % w, "-".join(w)),
        ("Spell %s backwards." % w, "-".join(w[::-1])),
        ("How many letters are in %s?" % w, str(len(w))),
        ("What is the first letter of %s?" % w, w[0]),
        ("What is the last letter of %s?" % w, w[-1])])


def of_list(rng):
    k = rng.randint(2, 7)
    ws = rng.sample(WORLD.words, k)
    line, n = ", ".join(ws), rng.randrange(min(k, 5))
    w = rng.choice(ws) if rng.random() < 0.5 else rng.choice(WORLD.words)
    few = ws[:4]
    return rng.choice([
        ("Sort these words: %s." % ", ".join(few), ", ".join(sorted(few))),
        ("Reverse the order: %s." % line, ", ".join(ws[::-1])),
        ("How many words are these: %s?" % line, str(k)),
        ("What is the %s word of %s?" % (NTH[n], line), ws[n]),
        ("What is the last word of %s?" % line, ws[-1]),
        ("Is %s in this list: %s?" % (w, line), "Yes." if w in ws else "No.")])


def numbers(rng):
    v = rng.sample(range(1000), rng.randint(2, 5))
    big = rng.random() < 0.5
    return ("What is the %s of %s?" % ("largest" if big else "smallest", ", ".join(map(str, v))),
            str(max(v) if big else min(v)))


def words(rng, held):
    def make():
        q, a = rng.choices((of_one_word, of_list, numbers), (5, 5, 1))[0](rng)
        return q, (q, a, None)
    q, a, _ = draw(held, make)
    return q, a, "I look at each word." if "," in q else "I look at each letter."


# ---- recall -------------------------------------------------------------------------------------

def hide(rng, parts, n_char):
    """The parts in order among sentences of about n_char characters in all."""
    rest = n_char - sum(map(len, parts))
    fill = []
    while rest > 0:
        fill.append(WORLD.sentence(rng))
        rest -= len(fill[-1]) + 1
    at = sorted(rng.randrange(len(fill) + 1) for _ in parts)
    out, done = [], 0
    for a, p in zip(at, parts):
        out += fill[done:a] + [p]
        done = a
    return " ".join(out + fill[done:])


def recall(rng, held, n_code, n_char, n_question):
    """[task]: the first question brings the text."""
    keys = rng.sample(WORLD.words, n_code)
    code = {k: "%04d" % rng.randrange(10000) for k in keys}
    fit = [k for k in keys if is_held(k + code[k]) == held]
    while not fit:
        k = rng.choice(keys)
        code[k] = "%04d" % rng.randrange(10000)
        fit = [k] if is_held(k + code[k]) == held else []
    asked = rng.sample(fit, min(n_question, len(fit)))
    text = hide(rng, ["The code of %s is %s." % (k, code[k]) for k in keys], n_char)
    return [((text + "\n\n" if i == 0 else "") + "What is the code of %s?" % k, code[k],
             "I look for the code of %s." % k) for i, k in enumerate(asked)]


# ---- free text ----------------------------------------------------------------------------------

DEFINE = ["What is {a}?", "Define {w}.", "What does {w} mean?", "Tell me about {w}.",
          "Explain {w} in one sentence.", "What do you know about {w}?"]


def define(rng, held):
    def make():
        w = rng.choice(WORLD.names)
        q = rng.choice(DEFINE).format(w=w, a=("an " if w[0] in "aeiou" else "a ") + w)
        return q, (q, "%s: %s." % (w[0].upper() + w[1:], WORLD.gloss[w]), None)
    q, a, _ = draw(held, make)
    return q, a, "I know this word."


BOOK = ["Write an encyclopedia of {b}.", "Write the encyclopedia of {b}.",
        "Make an encyclopedia of {b}.", "List {b} with a short description of each."]


def encyclopedia(rng, held, n_token):
    """A whole book where it fits into n_token, else a part, or a single entry."""
    def make():
        book = rng.choice(WORLD.titles if rng.random() < 0.4 else WORLD.topics)
        n = len(WORLD.books[book])
        kind = rng.random()
        room = max(1, n_token // 34)
        if kind < 0.12:
            i = rng.randrange(n)
            q = "What is entry %d of the encyclopedia of %s?" % (i + 1, book)
            return q, (q, WORLD.entry(book, i), None)
        if kind < 0.4 and n <= room or n_token > 7000 and kind < 0.8:
            q = rng.choice(BOOK).format(b=book)
            return q, (q, WORLD.book(book), None)
        size = min(n, room, rng.choice((3, 6, 12, 24, 80, 200)))
        first = rng.randrange(n - size + 1)
        q = "Write the encyclopedia of %s, entries %d to %d." % (book, first + 1, first + size)
        return q, (q, WORLD.book(book, first, first + size), None)
    return draw(held, make)


TALK = [("Who are you?", "I am Pebble, a very small language model."),
        ("Hello!", "Hello! How can I help you?"), ("Hi", "Hi! What can I do for you?"),
        ("What can you do?", "I can define words, write small encyclopedias, do sums, work with "
         "words, recall codes from a long text, and call tools."),
        ("Thanks", "You are welcome."), ("Thank you!", "You are welcome."),
        ("Goodbye", "Goodbye!"), ("How are you?", "I am fine, thank you."),
        ("How large are you?", "I have about fifty million parameters in a mixture of experts."),
        ("What is your name?", "My name is Pebble."),
        ("Are you a human?", "No, I am a small language model.")]


def talk(rng, held):
    q, a = rng.choice(TALK)
    return q, a, "This is small talk."


def memory(rng, held):
    """[task]: something said early and asked for later; others go in between."""
    def make():
        w, thing = rng.choice(WORLD.words), rng.choice(("word", "password", "team", "number"))
        v = str(rng.randrange(1000)) if thing == "number" else w
        return thing + v, (thing, v)
    thing, v = draw(held, make)
    tell = rng.choice(("My %s is %s.", "Remember that my %s is %s.")) % (thing, v)
    return [(tell, "I will remember it.", "I only need to remember this."),
            ("What is my %s?" % thing, "Your %s is %s." % (thing, v), "I was told before.")]


# ---- dialogues ----------------------------------------------------------------------------------

def dialogue(rng, skill, tasks, thinking):
    system = rng.choice(SYSTEMS)
    messages = []
    for q, a, why in tasks:
        messages += [user(q), assistant(a, why if thinking else None)]
    return Dialogue(skill, messages, system, None, thinking, WEIGHT[skill])


def mixed(rng, held, n):
    plain = (arithmetic, words, define, talk)
    between = [rng.choice(plain)(rng, held) for _ in range(n)]
    first, last = memory(rng, held)
    at = rng.randrange(n + 1)
    return between[:at] + [first] + between[at:] + [last]


def recall_size(rng, max_tokens):
    """(codes, characters, questions) of a text that fits; half of them bare lists."""
    fit = [n for n in (2, 4, 8, 16, 32, 64) if n * 12 < max_tokens * 0.7]
    n = rng.choice(fit[-4:])
    room = int((max_tokens - n * 18 - 40) * 2.4)
    n_char = rng.randrange(max(room, 1)) if rng.random() < 0.6 else 0
    return n, n_char, min(n, rng.choice((4, 8, 16, 32)))


MIX = {"arithmetic": 16, "words": 16, "recall": 26, "tools": 18, "define": 7, "encyclopedia": 10,
       "talk": 1, "memory": 6}
LONG_MIX = {"arithmetic": 16, "words": 16, "recall": 14, "tools": 20, "define": 7,
            "encyclopedia": 14, "talk": 1, "memory": 8}


def one(rng, skill, held, max_tokens, n_task=None):
    """A dialogue of the skill. n_task None: as many tasks as are good for training."""
    thinking = rng.random() < 0.3
    if skill == "tools":
        return tool_skill.dialogue(rng, held, thinking, n_task or rng.choice((1, 2, 3, 4)))
    if skill == "recall":
        thinking &= rng.random() < 0.3
        tasks = recall(rng, held, *recall_size(rng, max_tokens))
    elif skill == "encyclopedia":
        tasks, thinking = [encyclopedia(rng, held, max_tokens - 60)], False
    elif skill == "memory":
        tasks = mixed(rng, held, n_task or rng.randint(0, 4))
    else:
        make = {"arithmetic": arithmetic, "words": words, "define": define, "talk": talk}[skill]
        many = 1 if skill == "talk" or thinking and rng.random() < 0.7 else rng.randint(2, 12)
        tasks = [make(rng, held) for _ in range(n_task or many)]
    return dialogue(rng, skill, tasks, thinking)


def sample(rng, max_tokens, mix=None, held=False):
    mix = mix or MIX
    skill = rng.choices(list(mix), list(mix.values()))[0]
    return one(rng, skill, held, max_tokens)


def main():
    rng = random.Random(3)
    for skill in MIX:
        for _ in range(2):
            print("---", skill)
            print(one(rng, skill, False, 300).text()[:1500])


if __name__ == "__main__":
    main()
