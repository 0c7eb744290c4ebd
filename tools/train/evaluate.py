"""evaluate.py - exactness on the held-out sets during training.

A greedy answer is exact if and only if every token of it is the likeliest one given the prompt and
the answer so far; so one forward pass over packed dialogues decides hundreds of them, with nothing
generated. Reasoning counts as part of the answer here, which is stricter than the final table. The
draft block's acceptance is how often its guess is the main model's choice, inside answers.

    python3 evaluate.py MODEL [SHARE]    the same for an exported checkpoint, in float32"""
import random
import sys

import torch

import batches
import heldout
import skills
from tokenizer import Tokenizer
from world import WORLD


class Held:
    """Packed once; `share` takes that part of each set."""

    def __init__(self, n_token, short, long, share=1.0):
        tok, by_row = Tokenizer(), {}
        for name, (n, _, S) in heldout.SETS.items():
            S = short if S <= 1024 else long
            for d in heldout.draw(name, max(4, int(n * share))):
                doc = batches.Document(tok, d)
                if len(doc.ids) <= S:
                    doc.skill = name
                    by_row.setdefault(S, []).append(doc)
        self.batches = []
        for S, docs in by_row.items():
            # Long ones take a row each; short ones are laid out in the order of the sets.
            docs.sort(key=lambda d: -len(d.ids))
            while docs:
                self.batches.append((S, *self.fill(n_token // S, S, docs)))

    @staticmethod
    def fill(n_row, S, docs):
        token = torch.full((n_row * S,), 2, dtype=torch.int64)
        doc = torch.full((n_row * S,), -1, dtype=torch.int32)
        spans, n = [], 0
        for r in range(n_row):
            pos, left = 0, []
            for d in docs:
                if len(d.ids) > S - pos:
                    left.append(d)
                    continue
                a = r * S + pos
                token[a:a + len(d.ids)] = torch.tensor(d.ids)
                doc[a:a + len(d.ids)] = n
                n += 1
                spans.append((d.skill, [(a + s, a + e) for s, e in d.spans]))
                pos += len(d.ids) + -len(d.ids) % 128
            docs[:] = left
        return n_row, token, doc, spans

    def run(self, runner, P, device):
        """-> {set: share exact}, draft acceptance. With gradients on, though none is taken: without
        them a compiled runner would compile everything once more."""
        W = runner.weights(P)
        good, seen, hit, guesses = {}, {}, 0, 0
        for S, n_row, token, doc, spans in self.batches:
            t, d = token.to(device), doc.to(device)
            out = runner.losses(W, (t, d, torch.ones_like(t, dtype=torch.float32)), n_row, False)
            best = out["main_best"]
            ok = (best == torch.roll(t, -1)).cpu()
            if "draft_best" in out:
                same = (out["draft_best"] == torch.roll(best, -1)).cpu()
            for name, parts in spans:
                exact = all(bool(ok[a - 1:b - 1].all()) for a, b in parts)
                good[name] = good.get(name, 0) + exact
                seen[name] = seen.get(name, 0) + 1
                if "draft_best" in out:
                    for a, b in parts:
                        hit += int(same[a - 1:b - 2].sum())
                        guesses += max(0, b - 1 - a)
            del out  # the graph of one pass, not of two
        share = {k: round(100 * good[k] / seen[k], 1) for k in heldout.SETS if k in seen}
        return share, round(100 * hit / max(1, guesses), 1)


def sampled(n_token, short, long, seed=5):
    """A batch of training data, for the smoke test and for measuring."""
    rng, tok = random.Random(seed), Tokenizer()
    return [batches.pack(n_token // S, S, batches.maker(rng, tok, S, S), [])
            for S in (short, long)]


def repeated(ids, n=8):
    """Share of n-grams that occurred before."""
    grams = [tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Book:
    """A greedy text whose draft is the true one: each pass keeps what the model would have said
    itself, replaces the first token that it would not, and looks for the place to go on from."""

    def __init__(self, tok, topic, S):
        d = skills.dialogue(random.Random(1), "encyclopedia",
                            [("Write the encyclopedia of %s." % topic,
                              WORLD.book(topic), None)], False)
        doc = batches.Document(tok, d)
        self.first, self.true, self.S = doc.spans[0][0], doc.ids, S
        self.ids, self.sure, self.wrong = doc.ids[:S], self.first, 0

    def take(self, best):
        """best: the model's choice after each token. -> finished?"""
        i = self.sure
        while i < len(self.ids) and self.ids[i] == best[i - 1]:
            i += 1
        if i < len(self.ids):
            self.wrong += 1
            self.ids[i] = best[i - 1]
            i += 1
            tail = self.ids[i - 5:i]
            at = [k for k in range(5, len(self.true)) if self.true[k - 5:k] == tail]
            if at:
                self.ids = (self.ids[:i] + self.true[at[0]:])[:self.S]
            if self.ids[i - 1] == 1:
                self.ids = self.ids[:i]
        self.sure = i
        return i >= len(self.ids)


def books(runner, P, device, n_token, S, n_pass=60):
    """Greedy encyclopedias of up to S tokens -> text, how far decided, repeated 8-grams."""
    tok, W = Tokenizer(), runner.weights(P)
    some, rows = [Book(tok, t, S) for t in WORLD.topics], n_token // S
    done = [False] * len(some)
    for _ in range(n_pass):
        for a in range(0, len(some), rows):
            token = torch.full((rows, S), 2, dtype=torch.int64)
            doc = torch.full((rows, S), -1, dtype=torch.int32)
            for r, b in enumerate(some[a:a + rows]):
                token[r, :len(b.ids)], doc[r, :len(b.ids)] = torch.tensor(b.ids), r
            t, d = token.flatten().to(device), doc.flatten().to(device)
            out = runner.losses(W, (t, d, torch.ones_like(t, dtype=torch.float32)), rows, False)
            best = out["main_best"].reshape(rows, S).tolist()
            del out
            for r, b in enumerate(some[a:a + rows]):
                done[a + r] = done[a + r] or b.take(best[r])
        if all(done):
            break
    return [{"topic": t, "tokens": b.sure - b.first, "wrong": b.wrong,
             "repeated": round(100 * repeated(b.ids[b.first:b.sure]), 2)}
            for t, b in zip(WORLD.topics, some)]


def main():
    import export
    import model
    P, c = export.read(sys.argv[1])
    run = model.Runner(c, torch.float32)
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with torch.no_grad():
        print(*Held(8192, 1024, 8192, share).run(run, P, "cpu"))
        print(books(run, P, "cpu", 8192, 8192, 8))


if __name__ == "__main__":
    main()
