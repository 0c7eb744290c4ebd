"""test_train.py - what training rests on, on a CPU in a minute: python3 test_train.py

The tokenizer reads back what it wrote, held-out and training tasks do not meet, a document computes
the same alone and packed among others, the sorted experts equal the dense ones, the gradient of the
hyper-connections is right, rounding hits the vendor's golden values."""
import random
import re

import torch

import batches
import config
import layers
import model
import quantise
import skills
import tokenizer
import world

C = config.TINY


def test_rounding():
    x = torch.tensor([3, -1.2345, .01, .7, 100, -7.3])
    y = quantise.fp8_sim(x)
    assert torch.allclose(y, torch.tensor([3, -1.25, .009765625, .6875, 96, -7.5])), y
    x = torch.tensor([3, -1.2345, .01, .7, 5, -.25, .75, 2.5] + [0.] * 24)
    y = quantise.fp4_sim(x)[:8]
    assert torch.equal(y, torch.tensor([3, -1, 0, .5, 4, 0, 1, 2])), y


def test_tokenizer():
    tok, rng = tokenizer.Tokenizer(), random.Random(5)
    for _ in range(300):
        t = skills.sample(rng, 500).text()
        assert tok.decode(tok.encode(t)) == t
    digits = [t for t in tok.id if re.search("[0-9]", t) and t not in tok.special]
    assert all(len(t) == 1 for t in digits), digits
    assert len(tok) == config.PEBBLE["vocab_size"]


def test_held_out():
    rng, asked = random.Random(6), {}
    for held in (False, True):
        asked[held] = set()
        for _ in range(3000):
            asked[held].add(skills.arithmetic(rng, held)[0])
            asked[held].add(skills.words(rng, held)[0])
            asked[held].add(skills.define(rng, held)[0])
    assert not asked[False] & asked[True]
    assert 0.02 < sum(world.is_held(str(i)) for i in range(4000)) / 4000 < 0.11


def run(P, token, doc, n_row):
    r = model.Runner(C, torch.float32)
    ctx = model.context(C, doc, n_row, False)
    X, index, _ = r.streams(r.weights(P), token, ctx)
    return X, index


def test_packing():
    """Without rounding, which flips at other positions, a document cannot tell where it is."""
    sim, layers.sim = layers.sim, lambda x, f: x
    P, rng, tok = model.create(C), random.Random(7), tokenizer.Tokenizer()
    b = batches.pack(2, 1024, batches.maker(rng, tok, 1024, 1024), [])
    token, doc = torch.from_numpy(b.token).long(), torch.from_numpy(b.doc)
    X, _ = run(P, token, doc, 2)
    checked = 0
    for d in doc.unique().tolist():
        at = (doc == d).nonzero().flatten()
        if d < 0 or len(at) < 20:
            continue
        n = -len(at) % 128
        alone = torch.cat((token[at], torch.full((n,), 2)))
        Y, _ = run(P, alone, torch.cat((doc[at], torch.full((n,), -1, dtype=torch.int32))), 1)
        diff = (X[at] - Y[:len(at)]).abs().max(-1).values.max(-1).values
        assert float(diff.median()) < 1e-4, (d, len(at), float(diff.median()))
        checked += 1
    layers.sim = sim
    assert checked > 5


def grouped(x, w, offs):
    out, a = [], 0
    for e, b in enumerate(offs.tolist()):
        out.append(x[a:b] @ w[e])
        a = b
    return torch.cat(out)


def test_experts():
    P = model.create(C)
    w = model.part(model.Runner(C, torch.float32).weights(P), "layers.2.")
    u, token = torch.randn(200, C["hidden_size"]), torch.randint(0, 2304, (200,))
    old, torch._grouped_mm = getattr(torch, "_grouped_mm", None), grouped
    grads, outs = [], []
    for path in ("dense", "sorted"):
        x = u.clone().requires_grad_()
        y, count = layers.moe(C, x, w, token, False, path)
        y.square().sum().backward()
        grads.append(x.grad)
        outs.append(y)
    torch._grouped_mm = old
    assert int(count.sum()) == 200 * C["num_experts_per_tok"]
    assert torch.allclose(outs[0], outs[1], atol=1e-4)
    assert torch.allclose(grads[0], grads[1], atol=1e-4)


def test_bfloat16():
    """The types that the GPU computes in: same loss, to their accuracy."""
    P, tok = model.prepare(model.create(C), "cpu"), tokenizer.Tokenizer()
    b = batches.pack(1, 1024, batches.maker(random.Random(8), tok, 1024, 1024), [])
    t = [torch.from_numpy(x) for x in (b.token, b.doc, b.weight)]
    t[0], losses = t[0].long(), []
    for dtype in (torch.float32, torch.bfloat16):
        r = model.Runner(C, dtype, save_memory=dtype == torch.bfloat16)
        W = r.weights(P)
        out = r.losses(W, t, 1, False)
        losses.append(float(out["main"] + out["draft"]))
        (out["main"] + out["draft"] + out["index"]).backward()
    assert abs(losses[0] - losses[1]) < 0.02 * losses[0], losses
    missing = [n for n, p in P.items() if p.requires_grad and p.grad is None]
    assert not missing, missing
    idle = [n for n, p in P.items() if p.requires_grad and float(p.grad.abs().max()) == 0]
    assert not idle, idle


def test_sinkhorn():
    m = (torch.randn(50, 4, 4, dtype=torch.float64) * 1.5).requires_grad_()
    g = torch.randn(50, 4, 4, dtype=torch.float64)
    layers.Sinkhorn.apply(m, 20, 1e-6).mul(g).sum().backward()
    fast, m.grad = m.grad, None
    c = torch.softmax(m, -1) + 1e-6
    c = c / (c.sum(-2, keepdim=True) + 1e-6)
    for _ in range(19):
        c = c / (c.sum(-1, keepdim=True) + 1e-6)
        c = c / (c.sum(-2, keepdim=True) + 1e-6)
    (c * g).sum().backward()
    away = (fast - m.grad).norm() / m.grad.norm()
    assert away < 2e-2, away


def test_post():
    X, y = torch.randn(30, 4, 16), torch.randn(30, 16)
    post, C4 = torch.rand(30, 4), torch.rand(30, 4, 4)
    a, b = (layers.hc_post(X, y, post, C4, f) for f in (False, True))
    assert torch.allclose(a, b, atol=1e-5)


def main():
    for name, f in sorted(globals().items()):
        if name.startswith("test_"):
            f()
            print("ok", name)


if __name__ == "__main__":
    main()
