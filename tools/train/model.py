"""model.py - parameters by the vendor's names, their quantised values, and the forward pass.

Parameters are float32 masters in a flat dict. weights() gives what the exported checkpoint would
hold: FP4 experts, FP8 dense weights, bfloat16 for the rest that the vendor keeps so, with gradients
passed straight through; training never sees anything else. The experts of a layer are stacked
("ffn.experts.w13" [E, 2I, D], "ffn.experts.w2" [E, D, I]); export takes them apart."""
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import layers
from quantise import fp4_weight, fp8_weight

FP8_NAMES = ("attn.wq_a", "attn.wq_b", "attn.wkv", "attn.wo_a", "attn.wo_b", "attn.indexer.wq_b",
             "ffn.shared_experts.w1", "ffn.shared_experts.w2", "ffn.shared_experts.w3",
             "e_proj", "h_proj")
STATE = ("ffn.gate.bias", "ffn.gate.tid2eid")  # no gradients


def is_fp8(name):
    return name.endswith(tuple(n + ".weight" for n in FP8_NAMES))


def is_expert(name):
    return ".ffn.experts." in name


def is_f32(name):
    return "hc_" in name or name.endswith((".ape", "attn_sink", "gate.bias"))


def is_index(name):
    return ".indexer." in name


def blocks(c):
    """[(prefix, ratio, hashed)] of the layers and the draft block."""
    ratio = c["compress_ratios"]
    out = [("layers.%d." % i, ratio[i], i < c["num_hash_layers"])
           for i in range(c["num_hidden_layers"])]
    return out + [("mtp.%d." % i, 0, False) for i in range(c["num_nextn_predict_layers"])]


def attention_shapes(c, ratio):
    D, d, H, Q = c["hidden_size"], c["head_dim"], c["num_attention_heads"], c["q_lora_rank"]
    G, R = c["o_groups"], c["o_lora_rank"]
    s = {"wq_a.weight": (Q, D), "q_norm.weight": (Q,), "wq_b.weight": (H * d, Q),
         "wkv.weight": (d, D), "kv_norm.weight": (d,), "attn_sink": (H,),
         "wo_a.weight": (G * R, H * d // G), "wo_b.weight": (D, G * R)}
    if ratio:
        wide = 2 * d if ratio == 4 else d
        s.update({"compressor.wkv.weight": (wide, D), "compressor.wgate.weight": (wide, D),
                  "compressor.ape": (ratio, wide), "compressor.norm.weight": (d,)})
    if ratio == 4:
        n, k = c["index_n_heads"], c["index_head_dim"]
        s.update({"indexer.wq_b.weight": (n * k, Q), "indexer.weights_proj.weight": (n, D),
                  "indexer.compressor.wkv.weight": (2 * k, D),
                  "indexer.compressor.wgate.weight": (2 * k, D),
                  "indexer.compressor.ape": (4, 2 * k), "indexer.compressor.norm.weight": (k,)})
    return {"attn." + k: v for k, v in s.items()}


def head_shapes(c, prefix=""):
    n, D = c["hc_mult"], c["hidden_size"]
    return {prefix + "hc_head_fn": (n, n * D), prefix + "hc_head_base": (n,),
            prefix + "hc_head_scale": (1,), prefix + "norm.weight": (D,)}


def shapes(c):
    """name -> shape of every trained tensor and of the routers' biases."""
    D, I, E, n = (c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"],
                  c["hc_mult"])
    mix = 2 * n + n * n
    out = {"embed.weight": (c["vocab_size"], D), "head.weight": (c["vocab_size"], D),
           **head_shapes(c)}
    for prefix, ratio, hashed in blocks(c):
        s = {"attn_norm.weight": (D,), "ffn_norm.weight": (D,), **attention_shapes(c, ratio)}
        for h in ("hc_attn", "hc_ffn"):
            s.update({h + "_fn": (mix, n * D), h + "_base": (mix,), h + "_scale": (3,)})
        s["ffn.gate.weight"] = (E, D)
        if not hashed:
            s["ffn.gate.bias"] = (E,)
        s.update({"ffn.experts.w13": (E, 2 * I, D), "ffn.experts.w2": (E, D, I)})
        s.update({"ffn.shared_experts.w1.weight": (I, D), "ffn.shared_experts.w3.weight": (I, D),
                  "ffn.shared_experts.w2.weight": (D, I)})
        if prefix.startswith("mtp"):
            s.update({"e_proj.weight": (D, D), "h_proj.weight": (D, D), "enorm.weight": (D,),
                      "hnorm.weight": (D,), **head_shapes(c)})
        out.update({prefix + k: v for k, v in s.items()})
    return out


def hc_start(name, shape, c, depth, g):
    """Streams start as equal copies; each sublayer reads mostly one and keeps the others."""
    n = c["hc_mult"]
    if name.endswith("_fn"):
        return torch.randn(shape, generator=g) * 0.01
    if name.endswith("_scale"):
        return torch.full(shape, 0.5)
    base = torch.randn(shape, generator=g) * 0.1
    base[:n] -= 1.0
    base[depth % n] += 2.0
    if shape[0] > n:
        base[2 * n:] += 4 * torch.eye(n).flatten()
    return base


def start(name, shape, c, depth, g):
    if "hc_" in name:
        return hc_start(name, shape, c, depth, g)
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(("ape", "attn_sink", "gate.bias")):
        return torch.zeros(shape)
    if name == "embed.weight":
        return torch.randn(shape, generator=g) * 0.5
    if name == "head.weight":
        return torch.randn(shape, generator=g) * 0.01
    w = torch.randn(shape, generator=g) * shape[-1] ** -0.5
    if name.endswith(("w2", "w2.weight", "wo_b.weight")):
        w *= (2 * c["num_hidden_layers"]) ** -0.5
    return w


def create(c, seed=1):
    g = torch.Generator().manual_seed(seed)
    P = {}
    order = [b[0] for b in blocks(c)]
    for name, shape in shapes(c).items():
        depth = next((i for i, b in enumerate(order) if name.startswith(b)), len(order))
        depth = 2 * depth + ("hc_ffn" in name)
        P[name] = start(name, shape, c, depth, g)
    E, k = c["n_routed_experts"], c["num_experts_per_tok"]
    for prefix, _, hashed in blocks(c):
        if hashed:
            P[prefix + "ffn.gate.tid2eid"] = torch.stack(
                [torch.randperm(E, generator=g)[:k] for _ in range(c["vocab_size"])])
    return P


def prepare(P, device):
    """To the device, with gradients where something is learned."""
    for name in P:
        P[name] = P[name].to(device)
        if not name.endswith(STATE):
            P[name].requires_grad_(True)
    return P


def n_parameters(P):
    """(all, routed experts); tid2eid is a table of numbers, not of parameters."""
    n = {k: v.numel() for k, v in P.items() if not k.endswith("tid2eid")}
    return sum(n.values()), sum(v for k, v in n.items() if is_expert(k))


class Round(torch.autograd.Function):
    """f(w) in dtype; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx, w, f, dtype):
        return f(w)[0].to(dtype)

    @staticmethod
    def backward(ctx, g):
        return g.float(), None, None


def weights(P, dtype, fp8=fp8_weight, fp4=fp4_weight):
    """name -> the value that counts. Matrices in dtype, the rest in float32."""
    W, groups = {}, {}
    for name, p in P.items():
        if is_fp8(name):
            groups.setdefault(("fp8", p.shape), []).append(name)
        elif is_expert(name):
            groups.setdefault(("fp4", p.shape), []).append(name)
        elif name.endswith(STATE) or is_f32(name) and not name.endswith("_fn"):
            W[name] = p
        else:
            # hc *_fn is stored as float32, but with the bits of bfloat16 only.
            small = p.dim() == 1 or name.endswith("ffn.gate.weight")
            W[name] = p.to(torch.bfloat16).to(torch.float32 if small else dtype)
    for (kind, _), names in groups.items():
        stack = Round.apply(torch.stack([P[n] for n in names]), fp8 if kind == "fp8" else fp4,
                            dtype)
        W.update(zip(names, stack.unbind(0)))
    return W


def part(W, prefix):
    return {k[len(prefix):]: v for k, v in W.items() if k.startswith(prefix)}


def context(c, doc, n_row, dense):
    """doc [T]: document of each token; dense: no selection of blocks."""
    dev = doc.device
    pos = torch.arange(doc.shape[0] // n_row, device=dev, dtype=torch.float32).repeat(n_row)
    ctx = {"doc": doc, "n_row": n_row, "dense": torch.tensor(bool(dense), device=dev)}
    for key, compress in (("", False), ("_c", True)):
        angle = pos[:, None] * layers.frequencies(c, compress).to(dev)
        ctx["cos" + key], ctx["sin" + key] = torch.cos(angle), torch.sin(angle)
    return ctx


class Runner:
    """The forward pass, with its pieces compiled or not."""

    def __init__(self, c, dtype, path="dense", compiled=False, save_memory=False):
        self.c, self.dtype, self.path, self.fused = c, dtype, path, compiled
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.attend, self.experts = (self.frugal(wrap(f), save_memory) for f in (
            layers.attention_sublayer, layers.expert_sublayer))
        self.read_out, self.draft_in = wrap(read_out), wrap(draft_in)
        self.fp8, self.fp4 = fp8_weight, wrap(fp4_weight)

    @staticmethod
    def frugal(f, on):
        """f, computed again for its gradients instead of kept, if on."""
        if not on:
            return f
        return lambda *a: checkpoint(f, *a, use_reentrant=False)

    def weights(self, P):
        return weights(P, self.dtype, self.fp8, self.fp4)

    def layer(self, X, w, token, ctx, ratio, hashed):
        """-> X, indexer loss, tokens per expert"""
        if ratio != 4:  # only these look at rows; the others are compiled once for all lengths
            ctx = dict(ctx, n_row=1)
        attn = {k: v for k, v in w.items() if k.startswith(("attn", "hc_attn"))}
        ffn = {k: v for k, v in w.items() if k.startswith(("ffn", "hc_ffn"))}
        X, loss = self.attend(self.c, X, attn, ctx, ratio, self.fused)
        X, count = self.experts(self.c, X, ffn, token, hashed, self.path, self.fused)
        return X, loss, count

    def streams(self, W, token, ctx):
        """-> (X after the last layer, indexer loss, counts by layer)"""
        X = F.embedding(token, W["embed.weight"]).unsqueeze(1).repeat(1, self.c["hc_mult"], 1)
        total, counts = 0.0, {}
        for prefix, ratio, hashed in blocks(self.c):
            if prefix.startswith("mtp"):
                break
            X, loss, counts[prefix] = self.layer(X, part(W, prefix), token, ctx, ratio, hashed)
            total = total + loss
        return X, total, counts

    def draft(self, W, X, token, ctx):
        """The draft block at every position: token t+1's embedding with the streams of t."""
        w = part(W, "mtp.0.")
        nxt = torch.roll(token, -1)
        X = self.draft_in(self.c, X, F.embedding(nxt, W["embed.weight"]), w)
        X, _, count = self.layer(X, w, nxt, ctx, 0, False)
        return X, count

    def losses(self, W, batch, n_row, dense):
        """batch: token, doc, weight [T]. -> dict of sums, and what was guessed."""
        token, doc, weight = batch
        ctx = context(self.c, doc, n_row, dense)
        X, index, counts = self.streams(W, token, ctx)
        out = {"index": index / token.shape[0], "counts": counts}
        for name, far in (("main", 1), ("draft", 2)):
            w = W
            if far == 2:
                if not self.c["num_nextn_predict_layers"]:
                    break
                X, counts["mtp.0."] = self.draft(W, X, token, ctx)
                w = {**part(W, "mtp.0."), "head.weight": W["head.weight"]}
            goal = torch.roll(token, -far)
            share = torch.roll(weight, -far) * (torch.roll(doc, -far) == doc)
            share[-far:] = 0
            head = {k: w[k] for k in ("hc_head_fn", "hc_head_base", "hc_head_scale",
                                      "norm.weight", "head.weight")}
            nll, best = self.read_out(self.c, X, head, goal)
            out[name], out[name + "_nll"] = (nll * share).sum() / (share.sum() + 1e-6), nll
            out[name + "_best"] = best
        return out


def draft_in(c, X, e, w):
    e = layers.rms(e, w["enorm.weight"], c["rms_norm_eps"]) @ w["e_proj.weight"].t()
    h = layers.rms(X, w["hnorm.weight"], c["rms_norm_eps"]) @ w["h_proj.weight"].t()
    return h + e.unsqueeze(1)


def logits(c, X, w):
    x = layers.rms(layers.hc_head(c, X, w), w["norm.weight"], c["rms_norm_eps"])
    return (x @ w["head.weight"].t()).float()


def read_out(c, X, w, goal):
    """-> negative log likelihood of goal, best guess, per token"""
    z = logits(c, X, w)
    return F.cross_entropy(z, goal, reduction="none"), z.detach().argmax(-1)
