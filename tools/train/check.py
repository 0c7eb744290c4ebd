"""check.py - an independent reader of an exported checkpoint, in numpy.

Shares no code with the model that was trained: it decodes the packed FP8 and FP4 weights itself
and computes the logits of a dialogue token by token in float32, straight from the definition,
with the cache's FP8/FP4 simulation. A fault in packing, in a name or in an axis cannot hide
behind being made twice the same way.

    python3 check.py MODEL [ORACLE.json]     compares with the logits that training wrote
    python3 check.py MODEL --vendor DIR      compares with logits.qat.f32 of a known checkpoint
    python3 check.py MODEL ORACLE.json --plain OUT.json
                                             the oracle's dialogues without the simulation: what
                                             can be compared to the last digits"""
import json
import os
import struct
import sys

import numpy as np

F32 = np.float32
SIMULATED = True


# ---- reading ------------------------------------------------------------------------------------

def e8m0(b):
    return np.exp2(b.astype(np.float64) - 127).astype(F32)


def e4m3(b):
    sign = np.where(b & 128, -1.0, 1.0)
    e, m = (b >> 3 & 15).astype(np.int32), (b & 7).astype(np.float64)
    v = np.where(e == 0, m * 2.0 ** -9, (1 + m / 8) * np.exp2(e - 7.0))
    return (sign * v).astype(F32)


E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6], F32)


class Weights:
    def __init__(self, folder):
        self.at = {}
        for f in sorted(os.listdir(folder)):
            if not f.endswith(".safetensors"):
                continue
            raw = open(os.path.join(folder, f), "rb").read()
            n, = struct.unpack("<Q", raw[:8])
            for name, h in json.loads(raw[8:8 + n]).items():
                if name != "__metadata__":
                    a, b = h["data_offsets"]
                    self.at[name] = (h["dtype"], h["shape"], raw[8 + n + a:8 + n + b])
        self.cache = {}

    def __contains__(self, name):
        return name in self.at

    def raw(self, name):
        dtype, shape, data = self.at[name]
        if dtype == "BF16":
            bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
            return bits.view(F32).reshape(shape)
        kind = {"F32": F32, "I64": np.int64, "I32": np.int32}.get(dtype, np.uint8)
        return np.frombuffer(data, kind).reshape(shape)

    def __call__(self, name):
        """A tensor's values; quantised ones decoded with their scales."""
        if name in self.cache:
            return self.cache[name]
        w, dtype = self.raw(name), self.at[name][0]
        scale = name[:-len("weight")] + "scale"
        if dtype == "F8_E4M3":
            s = e8m0(self.raw(scale)).repeat(128, 0).repeat(128, 1)
            w = e4m3(w) * s[:w.shape[0], :w.shape[1]]
        elif dtype == "I8":
            codes = np.stack((w & 15, w >> 4), -1).reshape(w.shape[0], -1)
            w = E2M1[codes] * e8m0(self.raw(scale)).repeat(32, 1)
        self.cache[name] = w
        return w


# ---- the pieces of the definition ---------------------------------------------------------------

def rms(x, w, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + F32(eps)) * w


def up_pow2(x):
    m, e = np.frexp(x.astype(F32))
    return np.exp2(np.where(m == 0.5, e - 1, e).astype(F32))


def nearest(x, grid):
    """Nearest of an ascending grid; of two equally near the one with the even index."""
    i = np.clip(np.searchsorted(grid, x), 1, len(grid) - 1)
    lo, hi = x - grid[i - 1], grid[i] - x
    take_hi = (hi < lo) | ((hi == lo) & (i % 2 == 0))
    return np.where(take_hi, grid[i], grid[i - 1])


POS8 = e4m3(np.arange(127, dtype=np.uint8))
POS4 = E2M1[:8]


def simulate(x, block, grid, least):
    if not SIMULATED:
        return x
    x = x.copy()
    for i in range(0, x.shape[-1], block):
        b = x[..., i:i + block]
        m = np.maximum(np.abs(b).max(-1, keepdims=True), F32(least))
        s = up_pow2(m * F32(1 / grid[-1]))
        x[..., i:i + block] = np.sign(b) * nearest(np.abs(b) / s, grid) * s
    return x


def to_bf16(x):
    if not SIMULATED:
        return x
    b = np.ascontiguousarray(x, F32).view(np.uint32)
    return ((b + 0x7FFF + (b >> 16 & 1)) & np.uint32(0xFFFF0000)).view(F32)


def walsh(x):
    n = x.shape[-1]
    h = np.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)], F32)
    return x @ h * F32(n ** -0.5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


class Rope:
    def __init__(self, c, compress):
        d = c["qk_rope_head_dim"]
        base = c["compress_rope_theta"] if compress else c["rope_theta"]
        f = [base ** (-2 * i / d) for i in range(d // 2)]
        if compress:
            y = c["rope_scaling"]
            corr = [d * np.log(y["original_max_position_embeddings"] / (b * 2 * np.pi)) /
                    (2 * np.log(base)) for b in (y["beta_fast"], y["beta_slow"])]
            low, high = max(int(np.floor(corr[0])), 0), min(int(np.ceil(corr[1])), d - 1)
            for i in range(d // 2):
                t = min(max((i - low) / max(high - low, 0.001), 0), 1)
                f[i] = f[i] / y["factor"] * t + f[i] * (1 - t)
        self.freq = np.array(f, F32)

    def __call__(self, x, pos, back=False):
        n = 2 * len(self.freq)
        a = F32(pos) * self.freq
        cos, sin = np.cos(a), np.sin(a) * (-1 if back else 1)
        even, odd = x[..., -n::2], x[..., -n + 1::2]
        out = x.copy()
        out[..., -n::2], out[..., -n + 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return out


class Compressor:
    """One row per `ratio` tokens; with ratio 4 pooled over two blocks through half the channels."""

    def __init__(self, c, W, prefix, ratio, rope, finish):
        self.c, self.W, self.p, self.ratio, self.rope = c, W, prefix, ratio, rope
        self.finish = finish
        self.a, self.s, self.rows = [], [], []

    def push(self, u, pos):
        W, p, r = self.W, self.p, self.ratio
        self.a.append(W(p + "wkv.weight") @ u)
        self.s.append(W(p + "wgate.weight") @ u + W(p + "ape")[pos % r])
        if (pos + 1) % r:
            return
        d = len(W(p + "norm.weight"))
        a, s = np.array(self.a[-r:]), np.array(self.s[-r:])
        if r == 4:
            a, s = a[:, d:], s[:, d:]
            if pos >= 2 * r - 1:
                a = np.concatenate((np.array(self.a[-2 * r:-r])[:, :d], a))
                s = np.concatenate((np.array(self.s[-2 * r:-r])[:, :d], s))
        z = (softmax(s, 0) * a).sum(0)
        z = rms(z, W(p + "norm.weight"), self.c["rms_norm_eps"])
        self.rows.append(self.finish(self.rope(z, pos + 1 - r)))


class Layer:
    def __init__(self, c, W, prefix, ratio, hashed):
        self.c, self.W, self.p, self.ratio, self.hashed = c, W, prefix, ratio, hashed
        self.rope = Rope(c, ratio != 0)
        self.ring = []
        if ratio:
            self.main = Compressor(c, W, prefix + "attn.compressor.", ratio, self.rope, self.store)
        if ratio == 4:
            self.index = Compressor(
                c, W, prefix + "attn.indexer.compressor.", 4, self.rope,
                lambda z: simulate(walsh(z), 32, POS4, 6 * 2.0 ** -126))

    def store(self, x):
        n = len(x) - self.c["qk_rope_head_dim"]
        return np.concatenate((simulate(x[:n], 64, POS8, 1e-4), to_bf16(x[n:])))

    def hc_pre(self, X, name):
        c, W, n = self.c, self.W, self.c["hc_mult"]
        v = X.reshape(-1)
        m = W(self.p + name + "_fn") @ v / np.sqrt(np.mean(v * v) + F32(c["rms_norm_eps"]))
        base, scale = W(self.p + name + "_base"), W(self.p + name + "_scale")
        pre = sigmoid(m[:n] * scale[0] + base[:n]) + F32(c["hc_eps"])
        post = 2 * sigmoid(m[n:2 * n] * scale[1] + base[n:2 * n])
        C = softmax((m[2 * n:] * scale[2] + base[2 * n:]).reshape(n, n), 1) + F32(c["hc_eps"])
        C = C / (C.sum(0) + F32(c["hc_eps"]))
        for _ in range(c["hc_sinkhorn_iters"] - 1):
            C = C / (C.sum(1, keepdims=True) + F32(c["hc_eps"]))
            C = C / (C.sum(0) + F32(c["hc_eps"]))
        return pre @ X, post, C

    def picked(self, u, qr, pos):
        c, W, p = self.c, self.W, self.p + "attn.indexer."
        n, k = c["index_n_heads"], c["index_topk"]
        rows = np.array(self.index.rows)
        if len(rows) <= k:
            return range(len(rows))
        q = self.rope((W(p + "wq_b.weight") @ qr).reshape(n, -1), pos)
        q = simulate(walsh(q), 32, POS4, 6 * 2.0 ** -126)
        w = W(p + "weights_proj.weight") @ u * F32((q.shape[1] * n) ** -0.5)
        score = w @ np.maximum(q @ rows.T, 0)
        return sorted(np.argsort(-score, kind="stable")[:k])

    def attend(self, u, pos):
        c, W, p = self.c, self.W, self.p + "attn."
        eps, H, G = c["rms_norm_eps"], c["num_attention_heads"], c["o_groups"]
        qr = rms(W(p + "wq_a.weight") @ u, W(p + "q_norm.weight"), eps)
        q = rms((W(p + "wq_b.weight") @ qr).reshape(H, -1), F32(1), eps)
        q = self.rope(q, pos)
        kv = rms(W(p + "wkv.weight") @ u, W(p + "kv_norm.weight"), eps)
        self.ring = (self.ring + [self.store(self.rope(kv, pos))])[-c["sliding_window"]:]
        rows = list(self.ring)
        if self.ratio:
            self.main.push(u, pos)
            pick = range(len(self.main.rows))
            if self.ratio == 4:
                self.index.push(u, pos)
                pick = self.picked(u, qr, pos)
            rows += [self.main.rows[b] for b in pick]
        K = np.array(rows)
        z = q @ K.T * F32(c["head_dim"] ** -0.5)
        z = np.concatenate((z, W(p + "attn_sink")[:, None]), 1)
        o = self.rope(softmax(z, 1)[:, :-1] @ K, pos, back=True)
        wo = W(p + "wo_a.weight").reshape(G, c["o_lora_rank"], -1)
        low = np.einsum("grc,gc->gr", wo, o.reshape(G, -1)).reshape(-1)
        return W(p + "wo_b.weight") @ low

    def expert(self, name, u, weight=1):
        W, limit = self.W, F32(self.c["swiglu_limit"])
        a = np.minimum(W(name + ".w1.weight") @ u, limit)
        b = np.clip(W(name + ".w3.weight") @ u, -limit, limit)
        return W(name + ".w2.weight") @ (weight * silu(a) * b)

    def experts(self, u, token):
        c, W, p = self.c, self.W, self.p + "ffn."
        score = np.sqrt(np.logaddexp(0, W(p + "gate.weight") @ u))
        if self.hashed:
            sel = W(p + "gate.tid2eid")[token]
        else:
            sel = np.argsort(-(score + W(p + "gate.bias")), kind="stable")
            sel = sel[:c["num_experts_per_tok"]]
        w = score[sel] / score[sel].sum() * F32(c["routed_scaling_factor"])
        y = self.expert(p + "shared_experts", u)
        return y + sum(self.expert(p + "experts.%d" % e, u, g) for e, g in zip(sel, w))

    def step(self, X, token, pos):
        eps = self.c["rms_norm_eps"]
        for name, norm in (("hc_attn", "attn_norm.weight"), ("hc_ffn", "ffn_norm.weight")):
            x, post, C = self.hc_pre(X, name)
            u = rms(x, self.W(self.p + norm), eps)
            y = self.attend(u, pos) if name == "hc_attn" else self.experts(u, token)
            X = post[:, None] * y + C.T @ X
        return X


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            c = self.c = json.load(f)
        W = self.W = Weights(folder)
        self.layers = [Layer(c, W, "layers.%d." % i, c["compress_ratios"][i],
                             i < c["num_hash_layers"]) for i in range(c["num_hidden_layers"])]
        self.draft = Layer(c, W, "mtp.0.", 0, False) if "mtp.0.enorm.weight" in W else None
        self.pos = 0

    def head(self, X, prefix=""):
        c, W = self.c, self.W
        v = X.reshape(-1)
        m = W(prefix + "hc_head_fn") @ v / np.sqrt(np.mean(v * v) + F32(c["rms_norm_eps"]))
        pre = sigmoid(m * W(prefix + "hc_head_scale")[0] + W(prefix + "hc_head_base"))
        x = rms((pre + F32(c["hc_eps"])) @ X, W(prefix + "norm.weight"), c["rms_norm_eps"])
        return W("head.weight") @ x

    def step(self, token):
        """-> logits, streams"""
        X = np.repeat(self.W("embed.weight")[token][None], self.c["hc_mult"], 0)
        for layer in self.layers:
            X = layer.step(X, token, self.pos)
        self.pos += 1
        return self.head(X), X

    def draft_step(self, X, after):
        """Logits of the token after next, from the streams at pos - 1 and the next token."""
        W, eps = self.W, self.c["rms_norm_eps"]
        e = W("mtp.0.e_proj.weight") @ rms(W("embed.weight")[after], W("mtp.0.enorm.weight"), eps)
        X = rms(X, W("mtp.0.hnorm.weight"), eps) @ W("mtp.0.h_proj.weight").T + e
        return self.head(self.draft.step(X, after, self.pos - 1), "mtp.0.")


def log_softmax(z):
    z = z.astype(np.float64)
    z = z - z.max()
    return z - np.log(np.exp(z).sum())


def vendor(folder, ref):
    with open(os.path.join(ref, "tokens.json")) as f:
        ids = json.load(f)
    ids = ids if isinstance(ids, list) else ids.get("tokens") or ids["ids"]
    want = np.fromfile(os.path.join(ref, "logits.qat.f32"), F32).reshape(len(ids), -1)
    plain = np.fromfile(os.path.join(ref, "logits.plain.f32"), F32).reshape(len(ids), -1)
    m, kl, far, worst = Model(folder), [], [], []
    for i, t in enumerate(ids):
        got, w, p = (log_softmax(z) for z in (m.step(t)[0], want[i], plain[i]))
        kl.append((np.exp(w) * (w - got)).sum())
        far.append((np.exp(w) * (w - p)).sum())
        worst.append(np.abs(got - w).max())
    print("KL %.2e (without simulation %.2e), median of the largest difference %.1e" % (
        np.mean(kl), np.mean(far), np.median(worst)))
    return np.mean(kl) <= 0.1 * np.mean(far)


def oracle(folder, path, limit):
    with open(path) as f:
        cases = json.load(f)
    good, shown = True, 0
    for case in cases[:limit]:
        m, ids, nll, err, draft = Model(folder), case["ids"], [], [], []
        for i, t in enumerate(ids[:case.get("check", 400)]):
            z, X = m.step(t)
            lp = log_softmax(z)
            nll.append(-lp[ids[i + 1]] if i + 1 < len(ids) else 0)
            if i % case["top_every"] == 0:
                err += [abs(lp[k] - v) for k, v in case["top"][i // case["top_every"]]]
            if m.draft and i + 1 < len(ids) and case.get("draft"):
                got = m.draft_step(X, ids[i + 1])
                if i < len(case["draft"]):
                    draft.append(int(got.argmax()) == case["draft"][i])
        ref = case["nll"][:len(nll)]
        diff = np.abs(np.array(nll[:len(ref)]) - ref)
        same = float(np.mean(draft)) if draft else 1.0
        ok = np.median(diff) < 2e-3 and np.mean(diff) < 0.05 and same > 0.97
        good &= bool(ok)
        shown += 1
        print("%-14s %4d tokens: nll %.4f (written %.4f), difference median %.1e mean %.1e, "
              "top %.1e, draft same %.3f %s" % (
                  case["kind"], len(nll), np.mean(nll[:len(ref)]), np.mean(ref), np.median(diff),
                  np.mean(diff), np.median(err), same, "" if ok else "DIFFERS"))
    return good and shown > 0


def plain(folder, path, out):
    """The same dialogues without the simulation: mean nll, and the 8 likeliest at every so many."""
    global SIMULATED
    SIMULATED = False
    with open(path) as f:
        cases = json.load(f)
    for case in cases:
        m, ids, nll, top = Model(folder), case["ids"], [], []
        for i, t in enumerate(ids):
            lp = log_softmax(m.step(t)[0])
            if i + 1 < len(ids):
                nll.append(-lp[ids[i + 1]])
            if i % case["top_every"] == 0:
                best = np.argsort(-lp, kind="stable")[:8]
                top.append([[int(k), round(float(lp[k]), 6)] for k in best])
        case["simulated_nll"] = case["mean_nll"]
        case["mean_nll"], case["top"] = float(np.mean(nll)), top
        for key in ("nll", "draft"):
            case.pop(key, None)
        print("%-14s %4d tokens: nll %.6f" % (case["kind"], len(ids), case["mean_nll"]))
    with open(out, "w") as f:
        json.dump(cases, f, ensure_ascii=False)
    return True


def main():
    folder = sys.argv[1]
    if "--vendor" in sys.argv:
        ok = vendor(folder, sys.argv[3])
    elif "--plain" in sys.argv:
        ok = plain(folder, sys.argv[2], sys.argv[4])
    else:
        path = sys.argv[2] if len(sys.argv) > 2 else os.path.join(folder, "oracle.json")
        ok = oracle(folder, path, 99)
    print("same" if ok else "DIFFERENT")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
