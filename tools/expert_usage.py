#!/usr/bin/env python3
"""expert_usage.py - what traces of `dstar trace` say about the use of experts.

One trace for each topic, named after its file. Tables go to standard output, a plot to --svg.
Usage is the share of an expert in all uses in a layer; pooled usage is the mean over topics.
Written for the standard library alone, so that it runs wherever the program does.
"""
import argparse
import array
import gzip
import math
import os
import random
import struct
import sys
from xml.sax.saxutils import escape


def read_trace(path):
    """[layer][token] -> tuple of experts."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        data = f.read()
    if len(data) < 16:
        raise ValueError(f"{path}: {len(data)} bytes, expected a header of 16")
    n_tok, n_layer, n_used, zero = struct.unpack_from("<4I", data)
    want = 16 + 2 * n_tok * n_layer * n_used
    if zero != 0 or len(data) != want or n_tok < 2 or n_layer * n_used == 0:
        raise ValueError(f"{path}: {len(data)} bytes, {n_tok} tokens, {n_layer} layers, {n_used} "
                         f"used, last field {zero}: expected {want} bytes and 0")
    ids = array.array("H", data[16:])
    if sys.byteorder == "big":
        ids.byteswap()
    row = n_layer * n_used
    return [[tuple(ids[t * row + l * n_used:t * row + (l + 1) * n_used]) for t in range(n_tok)]
            for l in range(n_layer)]


# ---- one layer -----------------------------------------------------------------------------------

def usage(tokens, n_expert):
    count = [0] * n_expert
    for used in tokens:
        for e in used:
            count[e] += 1
    total = sum(count)
    return [c / total for c in count]


def divergence(p, q):
    """Kullback-Leibler, nats."""
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


def normed(weights):
    total = sum(weights)
    return [w / total for w in weights]


def fit(p, family):
    """The x in 0..20 for which normed(family(x)) is the most likely source of p; and its
    divergence. That likelihood has one maximum: both families are exponential."""
    low, high = 0.0, 20.0
    for _ in range(100):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if divergence(p, normed(family(a))) < divergence(p, normed(family(b))):
            high = b
        else:
            low = a
    return low, divergence(p, normed(family(low)))


def fits(p):
    """How far p, by rank, is from uniform, power law and geometric, each with its best x."""
    p = sorted(p, reverse=True)
    n = len(p)
    power, d_power = fit(p, lambda x: [r ** -x for r in range(1, n + 1)])
    rate, d_rate = fit(p, lambda x: [math.exp(-x * r) for r in range(n)])
    return {"uniform": divergence(p, [1 / n] * n), "exponent": power, "power": d_power,
            "ratio": math.exp(-rate), "geometric": d_rate}


def top_share(p, fraction):
    """Of the most used experts; part of one where the fraction does not hit a whole number."""
    want, share = len(p) * fraction, 0
    for x in sorted(p, reverse=True):
        share += x * max(0, min(1, want))
        want -= 1
    return share


def used_again(tokens):
    """Probability that an expert used by a token is used by the next one."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(tokens, tokens[1:]))
    return hits / (len(tokens[0]) * (len(tokens) - 1))


def chance_again(tokens, n_expert):
    """The same if tokens came in random order: of two tokens drawn anew."""
    n_used, n = len(tokens[0]), len(tokens)
    count = [round(x * n_used * n) for x in usage(tokens, n_expert)]
    return sum(c * (c - 1) for c in count) / (n_used * n * (n - 1))


def lru_hits(tokens, size):
    """Share of uses found among the `size` experts that were used last, by the tokens before."""
    held, hits = [], 0
    for used in tokens:
        hits += sum(e in held for e in used)
        held = [e for e in held if e not in used] + list(used)
        held = held[-size:]
    return hits / (len(tokens) * len(tokens[0]))


def shuffled(tokens):
    tokens = list(tokens)
    random.Random(0).shuffle(tokens)
    return tokens


def variation(p, q):
    """Total variation distance: 0 the same, 1 disjoint."""
    return sum(abs(a - b) for a, b in zip(p, q)) / 2


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# ---- all layers ----------------------------------------------------------------------------------

def analyse(traces, n_expert):
    """traces: {topic: trace}. A list of one dict for each layer."""
    out = []
    for l in range(len(next(iter(traces.values())))):
        topics = [t[l] for t in traces.values()]
        by_topic = [usage(t, n_expert) for t in topics]
        halves = [(usage(t[:len(t) // 2], n_expert), usage(t[len(t) // 2:], n_expert))
                  for t in topics]
        pooled = [mean(x) for x in zip(*by_topic)]
        quarter, half = n_expert // 4, n_expert // 2
        order = [shuffled(t) for t in topics]
        out.append({
            "by_topic": by_topic, "pooled": pooled, "fits": fits(pooled),
            "topic_fits": [fits(p) for p in by_topic],
            "top": top_share(pooled, 0.25), "topic_top": mean(top_share(p, 0.25)
                                                              for p in by_topic),
            "again": mean(used_again(t) for t in topics),
            "again_chance": mean(chance_again(t, n_expert) for t in topics),
            "lru": [mean(lru_hits(t, n) for t in topics) for n in (quarter, half)],
            "lru_chance": [mean(lru_hits(t, n) for t in order) for n in (quarter, half)],
            "between": mean([0] if len(topics) < 2 else
                            [variation(a, b) for i, a in enumerate(by_topic)
                             for b in by_topic[:i]]),
            "within": mean(variation(a, b) for a, b in halves),
        })
    return out


def explained(f, name):
    """Of the distance from uniform, the share that the fit takes away."""
    return 1 - f[name] / f["uniform"] if f["uniform"] > 0 else 0


def fit_line(name, fs):
    return (f"{name:14}{mean(f['uniform'] for f in fs):9.3f}"
            f"{mean(f['exponent'] for f in fs):10.2f}"
            f"{mean(explained(f, 'power') for f in fs):9.0%}"
            f"{mean(f['ratio'] for f in fs):8.3f}"
            f"{mean(explained(f, 'geometric') for f in fs):11.0%}")


def report(traces, layers, n_hashed):
    print("tokens: " + ", ".join(f"{t} {len(x[0])}" for t, x in traces.items()))
    print("\nBy rank, all topics together: nats from uniform; best fits and the share of that "
          "distance\nwhich they explain. Share of the top quarter: together, and mean of topics."
          "\n\nlayer         uniform  exponent    power   ratio  geometric    top  of topic")
    for l, x in enumerate(layers):
        name = f"{l} (hash)" if l < n_hashed else str(l)
        print(f"{fit_line(name, [x['fits']])}{x['top']:7.1%}{x['topic_top']:10.1%}")
    print("\nBy rank within a topic, mean of the layers with a learned router:\n\n"
          "topic         uniform  exponent    power   ratio  geometric")
    for i, topic in enumerate(traces):
        print(fit_line(topic, [x["topic_fits"][i] for x in layers[n_hashed:]]))
    print("\nFrom one token to the next, and least recently used kept, mean of topics; in brackets "
          "with\nthe tokens in random order. Total variation between topics, and between halves of "
          "one.\n\nlayer         used again    LRU of 25 %     LRU of 50 %    between  halves")
    for l, x in enumerate(layers):
        name = f"{l} (hash)" if l < n_hashed else str(l)
        lru = "".join(f"{a:9.1%} ({b:.1%})" for a, b in zip(x["lru"], x["lru_chance"]))
        print(f"{name:11}{x['again']:7.1%} ({x['again_chance']:.1%}){lru}"
              f"{x['between']:10.3f}{x['within']:8.3f}")
    names = list(traces)
    print("\nTotal variation between topics, mean of the layers with a learned router:\n")
    print(" " * 14 + "".join(f"{n[:12]:>14}" for n in names))
    for i, a in enumerate(names):
        row = [mean(variation(x["by_topic"][i], x["by_topic"][j]) for x in layers[n_hashed:])
               for j in range(len(names))]
        print(f"{a:14}" + "".join(f"{v:14.3f}" for v in row))


# ---- the plot ------------------------------------------------------------------------------------

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#e08030"]


class Panel:
    """A coordinate system with its frame, ticks and legend, as SVG text."""

    def __init__(self, at, title, x, y, log=False):
        self.left, self.top, self.width, self.height = at[0] + 52, at[1] + 30, 300, 220
        self.x, self.y, self.log, self.out, self.n_key = x, y, log, [], 0
        self.text(self.left, at[1] + 20, title, "start", "bold")
        self.out.append(f'<rect x="{self.left}" y="{self.top}" width="{self.width}" '
                        f'height="{self.height}" fill="none" stroke="#999"/>')

    def part(self, v, ends):
        f = math.log if self.log else float
        return (f(v) - f(ends[0])) / (f(ends[1]) - f(ends[0]))

    def place(self, x, y):
        return (self.left + self.width * self.part(x, self.x),
                self.top + self.height * (1 - self.part(y, self.y)))

    def text(self, x, y, what, anchor="middle", weight="normal"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
                        f'font-weight="{weight}">{escape(what)}</text>')

    def ticks(self, xs, ys, label_x, show_y):
        for v in xs:
            x, _ = self.place(v, self.y[0])
            self.text(x, self.top + self.height + 15, f"{v:g}")
        for v in ys:
            _, y = self.place(self.x[0], v)
            self.text(self.left - 5, y + 4, show_y(v), "end")
            self.out.append(f'<line x1="{self.left}" x2="{self.left + self.width}" y1="{y:.1f}" '
                            f'y2="{y:.1f}" stroke="#ddd"/>')
        self.text(self.left + self.width / 2, self.top + self.height + 30, label_x)

    def line(self, points, colour, name=None, dash="", dots=False):
        at = [self.place(x, y) for x, y in points if self.y[0] <= y <= self.y[1]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        self.out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                        f'stroke-width="1.6" stroke-dasharray="{dash}"/>')
        for x, y in at if dots else []:
            self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>')
        if name:
            y = self.top + 14 + 15 * self.n_key
            x = self.left + self.width + 10
            self.out.append(f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" '
                            f'stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dash}"/>')
            self.text(x + 27, y, name, "start")
            self.n_key += 1


def rank_panel(at, title, curves, n_expert, low):
    p = Panel(at, title, (1, n_expert), (low, 0.3), log=True)
    p.ticks([r for r in (1, 2, 5, 10, 20, 50, 100, 200) if r <= n_expert],
            [v for v in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3) if v >= low],
            "rank of the expert", lambda v: f"{v:.1%}")
    for i, (name, values, dash) in enumerate(curves):
        ranked = sorted(values, reverse=True)
        p.line([(r + 1, v) for r, v in enumerate(ranked) if v > 0], COLOURS[i % 8], name, dash)
    p.line([(1, 1 / n_expert), (n_expert, 1 / n_expert)], "#000", "uniform", "2 3")
    first = 1 / sum(1 / r for r in range(1, n_expert + 1))
    p.line([(r, first / r) for r in range(1, n_expert + 1)], "#000", "1 / rank", "7 3")
    return p.out


def layer_panel(at, title, lines, n_layer, most):
    p = Panel(at, title, (0, max(1, n_layer - 1)), (0, most))
    step = max(1, n_layer // 10)
    p.ticks(range(0, n_layer, step), [most * i / 5 for i in range(6)], "layer",
            lambda v: f"{v:.0%}")
    for name, values, colour, dash in lines:
        p.line(list(enumerate(values)), colour, name, dash, dots=True)
    return p.out


def plot(traces, layers, n_hashed):
    n_expert, n = len(layers[0]["pooled"]), len(layers)
    low = 0.003 if n_expert < 100 else 0.0003
    learned = layers[n_hashed:]
    by_layer = [(f"layer {l}" + (" (hash)" if l < n_hashed else ""), x["pooled"],
                 "4 2" if l < n_hashed else "") for l, x in list(enumerate(layers))[:8]]
    by_topic = [(t, [mean(v) for v in zip(*(sorted(x["by_topic"][i], reverse=True)
                                            for x in learned))], "")
                for i, t in enumerate(traces)]
    out = rank_panel((0, 0), "Usage by rank, all topics", by_layer, n_expert, low)
    out += rank_panel((480, 0), "Usage by rank within a topic, mean of learned layers", by_topic,
                      n_expert, low)
    both = [("LRU of 50 %", [x["lru"][1] for x in layers], COLOURS[0], ""),
            ("random order", [x["lru_chance"][1] for x in layers], COLOURS[0], "3 3"),
            ("LRU of 25 %", [x["lru"][0] for x in layers], COLOURS[1], ""),
            ("random order", [x["lru_chance"][0] for x in layers], COLOURS[1], "3 3"),
            ("next token", [x["again"] for x in layers], COLOURS[2], ""),
            ("random order", [x["again_chance"] for x in layers], COLOURS[2], "3 3")]
    out += layer_panel((0, 310), "Used again", both, n, 1)
    out += layer_panel((480, 310), "Difference in usage (total variation)",
                       [("topics", [x["between"] for x in layers], COLOURS[5], ""),
                        ("halves of one", [x["within"] for x in layers], COLOURS[5], "3 3")],
                       n, 0.5)
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="960" height="610" '
            'viewBox="0 0 960 610" font-family="sans-serif" font-size="11">\n'
            '<rect width="960" height="610" fill="#fff"/>\n' + "\n".join(out) + "\n</svg>\n")


# ---- checks --------------------------------------------------------------------------------------

def self_test():
    """What can be said beforehand of traces that are made for it."""
    f = fits(normed([r ** -0.7 for r in range(1, 27)]))
    assert abs(f["exponent"] - 0.7) < 1e-6 and f["power"] < 1e-12 < f["geometric"], f
    f = fits(normed([0.9 ** r for r in range(26)]))
    assert abs(f["ratio"] - 0.9) < 1e-6 and f["geometric"] < 1e-12 < f["power"], f
    assert abs(fits([1 / 8] * 8)["uniform"]) < 1e-12
    assert abs(top_share([0.1] * 10, 0.25) - 0.25) < 1e-12
    assert abs(top_share([0, 0.7, 0.2, 0.1, 0, 0], 0.25) - 0.8) < 1e-12
    turn = [(0, 1), (2, 3)] * 50
    assert used_again(turn) == 0 and used_again([(0, 1)] * 9) == 1
    assert abs(chance_again(turn, 4) - 49 / 99) < 1e-12
    assert lru_hits(turn, 2) == 0 and lru_hits(turn, 4) == 0.98
    assert lru_hits([(0, 1), (0, 2), (1, 3)], 3) == 2 / 6
    assert variation([1, 0], [0, 1]) == 1 and variation([0.5, 0.5], [0.5, 0.5]) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("trace", nargs="*", help="one for each topic; .gz is unpacked")
    parser.add_argument("--experts", type=int, default=26, help="in a layer (default: pebble's)")
    parser.add_argument("--hashed", type=int, default=2, help="first layers, routed by token id")
    parser.add_argument("--svg", help="plot to write")
    parser.add_argument("--self-test", action="store_true")
    o = parser.parse_args()
    if o.self_test:
        self_test()
        return
    if not o.trace:
        parser.error("expected traces")
    try:
        traces = {os.path.basename(p).split(".")[0]: read_trace(p) for p in o.trace}
    except (OSError, ValueError) as e:
        sys.exit(f"expert_usage.py: {e}")
    shapes = {(len(t), len(t[0][0])) for t in traces.values()}
    most = max(e for t in traces.values() for layer in t for used in layer for e in used)
    if len(shapes) != 1 or most >= o.experts or o.hashed >= min(shapes)[0]:
        sys.exit(f"expert_usage.py: found layers and experts used {sorted(shapes)}, expert {most}; "
                 f"expected one shape, experts below {o.experts}, more layers than {o.hashed}")
    layers = analyse(traces, o.experts)
    report(traces, layers, o.hashed)
    if o.svg:
        with open(o.svg, "w", encoding="utf-8") as f:
            f.write(plot(traces, layers, o.hashed))


if __name__ == "__main__":
    main()
