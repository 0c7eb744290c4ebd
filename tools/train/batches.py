"""batches.py - packs dialogues into rows, in processes of their own.

A batch is a flat run of n_row rows: token ids, document numbers, loss weights and skills. Documents
of 128 tokens and more begin at multiples of 128 and the gaps before them are filled with short
ones, which begin at multiples of 4 (layers.py says why). What is trained when: rows are short
first; later a share of the batches has long rows, with long texts to recall from and whole
encyclopedias."""
import collections
import multiprocessing
import random

import numpy as np

import skills
from chat import ANSWER, PROMPT, REASON
from tokenizer import Tokenizer

SKILLS = list(skills.MIX)
PROMPT_WEIGHT, REASON_WEIGHT = 0.02, 0.7
Batch = collections.namedtuple("Batch", "n_row token doc weight skill spans")


class Document:
    """Ids of a dialogue with their loss weights; spans: [first, last + 1) of every answer."""

    def __init__(self, tok, d):
        self.ids, self.weight, self.spans = [], [], []
        self.skill = SKILLS.index(d.skill)
        factor = {PROMPT: PROMPT_WEIGHT, REASON: REASON_WEIGHT * d.weight, ANSWER: d.weight}
        for text, kind in d.segments():
            ids = tok.encode(text)
            if kind == ANSWER or kind == REASON:
                if not self.spans or self.spans[-1][1] != len(self.ids):
                    self.spans.append([len(self.ids), 0])
                self.spans[-1][1] = len(self.ids) + len(ids)
            self.ids += ids
            self.weight += [factor[kind]] * len(ids)

    def cut(self, n):
        self.ids, self.weight = self.ids[:n], self.weight[:n]
        self.spans = [s for s in self.spans if s[1] <= n]


def pack_row(S, make, pending):
    """[(position, document)] that fill S tokens. make(limit) draws one; pending: left over."""
    out, pos, tries = [], 0, 0
    while pos < S - 32 and tries < 40:
        gap = -pos % 128
        fit = [d for d in pending if len(d.ids) <= S - pos]
        if gap == 0 and fit:
            d = fit[0]
            pending.remove(d)
        else:
            d = make(gap or S - pos)
        if len(d.ids) >= 128 and gap:
            # Long documents wait for a boundary; when enough wait, the gap stays empty.
            pending.append(d)
            tries += 1
            if len(pending) > 3:
                pos += gap
            continue
        if len(d.ids) > S - pos:
            if len(d.ids) <= S and len(pending) < 8:
                pending.append(d)
            tries += 1
            continue
        out.append((pos, d))
        pos += len(d.ids) + -len(d.ids) % 4
        tries = 0
    return out


def pack(n_row, S, make, pending):
    T = n_row * S
    token, doc = np.full(T, 2, np.int16), np.full(T, -1, np.int32)
    weight, skill = np.zeros(T, np.float32), np.full(T, 255, np.uint8)
    spans, n = [], 0
    for r in range(n_row):
        for pos, d in pack_row(S, make, pending):
            a, b = r * S + pos, r * S + pos + len(d.ids)
            token[a:b], doc[a:b], weight[a:b], skill[a:b] = d.ids, n, d.weight, d.skill
            spans.append((d.skill, [(a + s, a + e) for s, e in d.spans]))
            n += 1
    return Batch(n_row, token, doc, weight, skill, spans)


def maker(rng, tok, S, limit, mix=None, held=False):
    """make() for pack(): the limit bounds free sizes; whole encyclopedias are cut at S."""
    mix = mix or (skills.LONG_MIX if S > 4000 else skills.MIX)

    def make(room):
        if room < 128:
            some = {"arithmetic": 4, "words": 4, "memory": 1, "talk": 0.3, "define": 1}
            skill = rng.choices(list(some), list(some.values()))[0]
            for _ in range(4):
                d = Document(tok, skills.one(rng, skill, held, room, rng.choice((1, 2, 3))))
                if len(d.ids) <= room:
                    return d
            return d
        while True:
            d = Document(tok, skills.sample(rng, min(limit, S - 8), mix, held))
            if len(d.ids) <= S:
                return d
            if SKILLS[d.skill] == "encyclopedia" and S > 7000:
                d.cut(S)
                return d
    return make


class Plan:
    """What a batch looks like at a given progress, 0 to 1."""

    def __init__(self, n_token, short, long):
        self.n_token, self.short, self.long = n_token, short, long

    def draw(self, rng, progress):
        """-> (row length, limit of free sizes)"""
        if progress < 0.08:
            return self.short, self.short * 3 // 8
        if progress < 0.35 or rng.random() < 0.6:
            return self.short, rng.choice((self.short // 2, self.short))
        return self.long, rng.choice((self.long // 4, self.long // 2, self.long))


def work(queue, plan, progress, seed):
    rng, tok, pending = random.Random(seed), Tokenizer(), {}
    while True:
        S, limit = plan.draw(rng, progress.value)
        b = pack(plan.n_token // S, S, maker(rng, tok, S, limit), pending.setdefault(S, []))
        queue.put((b.n_row, b.token, b.doc, b.weight, b.skill))


class Source:
    """Batches without end from n_process processes."""

    def __init__(self, plan, n_process, seed, progress=0.0):
        ctx = multiprocessing.get_context("fork")
        self.queue = ctx.Queue(maxsize=3 * n_process)
        self.progress = ctx.Value("d", progress)
        self.workers = [ctx.Process(target=work, daemon=True,
                                    args=(self.queue, plan, self.progress, seed * 1000 + i))
                        for i in range(n_process)]
        for w in self.workers:
            w.start()

    def next(self):
        return Batch(*self.queue.get(), None)

    def close(self):
        for w in self.workers:
            w.terminate()
