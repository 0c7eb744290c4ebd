"""Phrases, and choices that are the same on every machine: SHA-256 of a name and a counter.

Python's own generator may change between versions; a corpus whose hash is published must not. Every
prompt has dice of its own, named after it, so that a change of one kind leaves the others alone.
"""
import hashlib
import json
import os

# How things are asked for, in many languages.
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "phrases.json"),
          encoding="utf-8") as file:
    PHRASES = json.load(file)


class Dice:
    def __init__(self, *name):
        self.name = "/".join(str(part) for part in name).encode()
        self.count = 0

    def number(self):
        """64 random bits."""
        self.count += 1
        return int.from_bytes(hashlib.sha256(self.name + b"#%d" % self.count).digest()[:8], "big")

    def below(self, n):
        return self.number() % n

    def between(self, low, high):
        """A whole number, both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, share):
        return self.number() < share * 2**64

    def pick(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items):
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items
