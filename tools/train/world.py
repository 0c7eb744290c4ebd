"""world.py - what all generators share: the lexicon, the encyclopedias, and the held-out rule.

An encyclopedia is an ordered list of entries: one per topic (hundreds of entries, more than 8,000
tokens) and one per kind (birds, fish, tools). The held-out rule decides by a checksum of whatever
identifies a task (its numbers, its words, its phrasing); training never draws a task for which it
says yes, a held-out set only such, so the two are disjoint by construction."""
import collections
import os
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
PLURAL = {"fish": "fish", "furniture": "furniture", "dish": "dishes", "grass": "grasses",
          "musical_instrument": "musical instruments", "wood": "wood"}
HELD_SHARE = 16


def is_held(key):
    return zlib.crc32(key.encode()) % HELD_SHARE == 0


class World:
    def __init__(self, folder=os.path.join(HERE, "data")):
        with open(os.path.join(folder, "lexicon.txt")) as f:
            self.words = f.read().split()
        self.books = {}     # "birds" -> [(name, gloss)], in order
        self.gloss = {}
        kinds = collections.defaultdict(list)
        with open(os.path.join(folder, "entries.tsv")) as f:
            for line in f:
                topic, name, gloss, of = line.rstrip("\n").split("\t")
                self.books.setdefault(topic, []).append((name, gloss))
                self.gloss[name] = gloss
                for k in of.split():
                    kinds[k].append((name, gloss))
        self.topics = list(self.books)
        for k, entries in kinds.items():
            if len(entries) >= 16:
                self.books[PLURAL.get(k, k + "s")] = entries
        self.names = sorted(self.gloss)
        self.titles = list(self.books)

    def entry(self, book, i):
        return "%d. %s: %s.\n" % (i + 1, *self.books[book][i])

    def book(self, book, first=0, end=None):
        return "".join(self.entry(book, i)
                       for i in range(first, len(self.books[book]) if end is None else end))

    def sentence(self, rng):
        """Running text to hide something in."""
        name = rng.choice(self.names)
        return "%s: %s." % (name, self.gloss[name])


WORLD = World()
