"""layers.py - one layer of the network: hyper-connections, the three kinds of attention, experts.

Plain functions of tensors, so that one compiled graph serves all layers of a kind. A batch is one
flat run of T tokens, cut into rows of equal length; documents never cross rows, long ones (128
tokens and more) begin at multiples of 128, others at multiples of 4, so that blocks of the
compressors belong to one document and all that remains is masks by document number. Positions
count from the start of the row: rotations are relative, so a document cannot tell.
Attention is written out (logits, softmax, product): per query there are 256 window keys and
a few compressed rows, too little for the fused kernels to pay, and the indexer needs the
probabilities as its teacher.
Shapes: docs/model.md has the mathematics; X [T, 4, D], u [T, D]."""
import math

import torch
import torch.nn.functional as F

from quantise import fp4_sim, fp8_sim, ste

CHUNK = 128


def rms(x, w, eps):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps) * w).to(x.dtype)


def frequencies(c, compress):
    """Angle per position of each pair, float32."""
    d = c["qk_rope_head_dim"]
    base = c["compress_rope_theta"] if compress else c["rope_theta"]
    i = torch.arange(d // 2, dtype=torch.float64)
    f = base ** (-2 * i / d)
    if compress:
        y = c["rope_scaling"]

        def at(turns):
            return d * math.log(y["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (
                2 * math.log(base))
        low = max(math.floor(at(y["beta_fast"])), 0)
        high = min(math.ceil(at(y["beta_slow"])), d - 1)
        t = ((i - low) / max(high - low, 0.001)).clamp(0, 1)
        f = f / y["factor"] * t + f * (1 - t)
    return f.float()


def rotate(x, cos, sin):
    """The last 2 * cos.shape[-1] elements of x, adjacent pairs; -sin turns back."""
    n = 2 * cos.shape[-1]
    a, b = x[..., -n:].float().unflatten(-1, (-1, 2)).unbind(-1)
    r = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((x[..., :-n], r.to(x.dtype)), -1)


def sim(x, f):
    """x rounded by f, with the gradient of x."""
    x32 = x.float()
    return ste(x32, f(x32.detach())).to(x.dtype)


def hadamard(n, device, dtype):
    h = torch.ones(1, 1, device=device)
    while h.shape[0] < n:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)), 0)
    return (h * n ** -0.5).to(dtype)


# ---- hyper-connections --------------------------------------------------------------------------

class Sinkhorn(torch.autograd.Function):
    """m [T, n, n] -> nearly doubly stochastic C. The gradient is that of the fixed point, from a
    small linear system solved by alternation, instead of that of twenty unrolled iterations."""

    @staticmethod
    def forward(ctx, m, n_iter, eps):
        c = torch.softmax(m, -1) + eps
        c = c / (c.sum(-2, keepdim=True) + eps)
        for _ in range(n_iter - 1):
            c = c / (c.sum(-1, keepdim=True) + eps)
            c = c / (c.sum(-2, keepdim=True) + eps)
        ctx.save_for_backward(c)
        return c

    @staticmethod
    def backward(ctx, g):
        c, = ctx.saved_tensors
        cg = c * g
        row, col = cg.sum(-1), cg.sum(-2)
        b = torch.zeros_like(col)
        for _ in range(8):
            a = row - (c * b.unsqueeze(-2)).sum(-1)
            b = col - (c * a.unsqueeze(-1)).sum(-2)
        return c * (g - a.unsqueeze(-1) - b.unsqueeze(-2)), None, None


def hc_mixes(c, X, fn, n_out):
    T = X.shape[0]
    v = X.reshape(T, -1)
    rs = torch.rsqrt(v.float().square().mean(-1, keepdim=True) + c["rms_norm_eps"])
    return (v @ fn.t()).float()[:, :n_out] * rs


def hc_pre(c, X, w, name):
    """-> x [T, D], post [T, 4], C [T, 4, 4]"""
    n = c["hc_mult"]
    m = hc_mixes(c, X, w[name + "_fn"], 2 * n + n * n)
    base, scale = w[name + "_base"], w[name + "_scale"]
    pre = torch.sigmoid(m[:, :n] * scale[0] + base[:n]) + c["hc_eps"]
    post = 2 * torch.sigmoid(m[:, n:2 * n] * scale[1] + base[n:2 * n])
    m = (m[:, 2 * n:] * scale[2] + base[2 * n:]).unflatten(-1, (n, n))
    C = Sinkhorn.apply(m, c["hc_sinkhorn_iters"], c["hc_eps"])
    return mix(pre, X), post, C


def mix(pre, X):
    return (pre.unsqueeze(-1) * X.float()).sum(1).to(X.dtype)


def hc_post(X, y, post, C, fused):
    """X'[k] = post[k] y + sum over j of C[j][k] X[j]"""
    if fused:
        old = (C.unsqueeze(-1) * X.float().unsqueeze(2)).sum(1)
        return (old + post.unsqueeze(-1) * y.float().unsqueeze(1)).to(X.dtype)
    old = torch.bmm(C.transpose(1, 2).to(X.dtype), X)
    return old + post.unsqueeze(-1).to(X.dtype) * y.unsqueeze(1)


def hc_head(c, X, w, prefix=""):
    m = hc_mixes(c, X, w[prefix + "hc_head_fn"], c["hc_mult"])
    return mix(torch.sigmoid(m * w[prefix + "hc_head_scale"][0] + w[prefix + "hc_head_base"])
               + c["hc_eps"], X)


# ---- compressors --------------------------------------------------------------------------------

def compress(c, u, w, prefix, ratio, ctx):
    """Rows [T / ratio, d] before rounding: pooled, normed, rotated to their first position."""
    d = w[prefix + "norm.weight"].shape[0]
    a = (u @ w[prefix + "wkv.weight"].t()).float().unflatten(0, (-1, ratio))
    s = (u @ w[prefix + "wgate.weight"].t()).float().unflatten(0, (-1, ratio))
    s = s + w[prefix + "ape"]
    if ratio == 4:
        first = ctx["doc"][::4]
        same = (first == torch.roll(first, 1)) & (torch.arange(
            first.shape[0], device=u.device) > 0)
        old_s = torch.roll(s[..., :d], 1, 0).masked_fill(~same[:, None, None], -1e30)
        old_a = torch.roll(a[..., :d], 1, 0)
        s, a = torch.cat((old_s, s[..., d:]), 1), torch.cat((old_a, a[..., d:]), 1)
    z = (torch.softmax(s, 1) * a).sum(1)
    z = rms(z, w[prefix + "norm.weight"], c["rms_norm_eps"])
    return rotate(z, ctx["cos_c"][::ratio], ctx["sin_c"][::ratio])


def stored(c, x):
    """A row as the cache keeps it: FP8 but for the rotary end."""
    n = x.shape[-1] - c["qk_rope_head_dim"]
    return torch.cat((sim(x[..., :n], fp8_sim), x[..., n:]), -1)


def index_scores(c, u, qr, w, ctx):
    """[rows, S, blocks] float32: how much each query wants each block of its row."""
    dt, dim = u.dtype, c["index_head_dim"]
    h = hadamard(dim, u.device, dt)
    R = ctx["n_row"]
    ik = compress(c, u, w, "attn.indexer.compressor.", 4, ctx).to(dt)
    ik = sim(ik @ h, fp4_sim).unflatten(0, (R, -1))
    iq = (qr @ w["attn.indexer.wq_b.weight"].t()).unflatten(-1, (-1, dim))
    iq = rotate(iq, ctx["cos_c"].unsqueeze(1), ctx["sin_c"].unsqueeze(1))
    iq = sim(iq @ h, fp4_sim)
    n = c["index_n_heads"]
    weight = (u @ w["attn.indexer.weights_proj.weight"].t()).float() * (dim * n) ** -0.5
    dots = F.relu(iq.reshape(R, -1, dim) @ ik.transpose(1, 2)).unflatten(1, (-1, n))
    return (dots * weight.unflatten(0, (R, -1)).unsqueeze(-1).to(dt)).float().sum(2)


# ---- attention ----------------------------------------------------------------------------------

def window_keys(kv):
    """[T, d] -> [T / 128, 256, d]: each chunk of 128 with the one before it."""
    k = kv.unflatten(0, (-1, CHUNK))
    return torch.cat((torch.roll(k, 1, 0), k), 1)


def window_mask(doc, window):
    """[T / 128, 128, 256]; a row's first chunk follows another row's last, hence another doc."""
    d = doc.unflatten(0, (-1, CHUNK))
    dk = torch.cat((torch.roll(d, 1, 0), d), 1)
    i = torch.arange(CHUNK, device=doc.device)
    j = torch.arange(2 * CHUNK, device=doc.device)
    back = i[:, None] + CHUNK - j[None, :]
    inside = (back >= 0) & (back < window)
    first = torch.arange(d.shape[0], device=doc.device)[:, None, None] == 0
    inside = inside & ~(first & (j < CHUNK))
    return inside & (d.unsqueeze(-1) == dk.unsqueeze(1))


def block_mask(doc, ratio, n_row):
    """[rows, S, S / ratio]: complete blocks of the query's own document."""
    d = doc.unflatten(0, (n_row, -1))
    S = d.shape[1]
    t = torch.arange(S, device=doc.device)
    b = torch.arange(S // ratio, device=doc.device)
    done = b < ((t + 1) // ratio)[:, None]
    return done & (d.unsqueeze(-1) == d[:, ::ratio].unsqueeze(1))


def query(c, u, w, cos, sin):
    qr = rms(u @ w["attn.wq_a.weight"].t(), w["attn.q_norm.weight"], c["rms_norm_eps"])
    q = (qr @ w["attn.wq_b.weight"].t()).unflatten(-1, (-1, c["head_dim"]))
    q = rms(q, 1.0, c["rms_norm_eps"])
    return qr, rotate(q, cos, sin)


def select(c, score, visible, dense):
    """The index_topk best visible blocks of every query; of several zeros the first."""
    k = min(c["index_topk"], score.shape[-1])
    order = torch.arange(score.shape[-1], device=score.device) * 1e-8
    score = (score.detach() - order).masked_fill(~visible, -1e30)
    least = torch.topk(score, k, -1).values[..., -1:]
    return visible & ((score >= least) | dense)


def attention(c, u, w, ratio, ctx):
    """-> output [T, D], the indexer's loss (sum over tokens, 0 without an indexer)"""
    H, d, scale = c["num_attention_heads"], c["head_dim"], c["head_dim"] ** -0.5
    T = u.shape[0]
    cos, sin = (ctx["cos_c"], ctx["sin_c"]) if ratio else (ctx["cos"], ctx["sin"])
    cosh, sinh = cos.unsqueeze(1), sin.unsqueeze(1)
    qr, q = query(c, u, w, cosh, sinh)
    kv = rms(u @ w["attn.wkv.weight"].t(), w["attn.kv_norm.weight"], c["rms_norm_eps"])
    keys = window_keys(stored(c, rotate(kv, cos, sin)))
    near = (q.reshape(-1, CHUNK * H, d) @ keys.transpose(1, 2)).unflatten(1, (CHUNK, H))
    near = near.float() * scale
    near = near.masked_fill(~window_mask(ctx["doc"], c["sliding_window"]).unsqueeze(2), -1e30)
    logits = [near.reshape(T, H, 2 * CHUNK)]
    if ratio:
        # The long ratio has few blocks: all rows at once, told apart by document.
        R = ctx["n_row"] if ratio == 4 else 1
        rows = stored(c, compress(c, u, w, "attn.compressor.", ratio, ctx).to(u.dtype))
        rows = rows.unflatten(0, (R, -1))
        far = (q.reshape(R, -1, d) @ rows.transpose(1, 2)).float() * scale
        seen = block_mask(ctx["doc"], ratio, R)
        far = far.unflatten(1, (-1, H)).masked_fill(~seen.unsqueeze(2), -1e30)
        logits.append(far.reshape(T, H, -1))
    sink = w["attn.attn_sink"].float().reshape(1, H, 1).expand(T, H, 1)
    p = torch.softmax(torch.cat(logits + [sink], -1), -1)
    loss = u.new_zeros((), dtype=torch.float32)
    if ratio == 4:
        score = index_scores(c, u.detach(), qr.detach(), w, ctx)
        teacher = p[..., 2 * CHUNK:-1].detach().sum(1).reshape(score.shape) / H
        logq = torch.log_softmax(score.masked_fill(~seen, -1e30), -1)
        loss = -(teacher * torch.where(seen, logq, torch.zeros_like(logq))).sum()
        # What is not chosen leaves the softmax, and the rest is brought to a sum of one again.
        dropped = ~select(c, score, seen, ctx["dense"]).reshape(T, 1, -1)
        far_p = p[..., 2 * CHUNK:-1].masked_fill(dropped, 0)
        total = p[..., :2 * CHUNK].sum(-1, keepdim=True) + far_p.sum(-1, keepdim=True)
        total = total + p[..., -1:]
        p = torch.cat((p[..., :2 * CHUNK], far_p, p[..., -1:]), -1) / total
    p = p.to(u.dtype)
    o = (p[..., :2 * CHUNK].reshape(-1, CHUNK * H, 2 * CHUNK) @ keys).reshape(T, H, d)
    if ratio:
        o = o + (p[..., 2 * CHUNK:-1].reshape(R, -1, rows.shape[1]) @ rows).reshape(T, H, d)
    return output(c, rotate(o, cosh, -sinh), w), loss


def output(c, o, w):
    G, R = c["o_groups"], c["o_lora_rank"]
    o = o.reshape(o.shape[0], G, -1).transpose(0, 1)
    low = torch.bmm(o, w["attn.wo_a.weight"].unflatten(0, (G, R)).transpose(1, 2))
    return low.transpose(0, 1).flatten(1) @ w["attn.wo_b.weight"].t()


# ---- experts ------------------------------------------------------------------------------------

def swiglu(h, limit):
    a, b = h.float().chunk(2, -1)
    return F.silu(a.clamp(max=limit)) * b.clamp(-limit, limit)


class Permute(torch.autograd.Function):
    """x[order], with a gather for the gradient too: the scatter of an index would use atomics."""

    @staticmethod
    def forward(ctx, x, order, back):
        ctx.save_for_backward(back)
        return x[order]

    @staticmethod
    def backward(ctx, g):
        back, = ctx.saved_tensors
        return g[back], None, None


def routed_sorted(c, u, sel, weight, count, w):
    """Tokens sorted by expert, then one grouped product per matrix."""
    n, flat = sel.shape[1], sel.reshape(-1)
    order = torch.argsort(flat, stable=True)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(
        order.shape[0], device=order.device))
    ends = count.cumsum(0).to(torch.int32)
    x = Permute.apply(u.unsqueeze(1).expand(-1, n, -1).flatten(0, 1), order, back)
    g = Permute.apply(weight.reshape(-1), order, back)
    h = torch._grouped_mm(x, w["ffn.experts.w13"].transpose(1, 2), offs=ends)
    h = (swiglu(h, c["swiglu_limit"]) * g.unsqueeze(-1)).to(u.dtype)
    y = torch._grouped_mm(h, w["ffn.experts.w2"].transpose(1, 2), offs=ends)
    return Permute.apply(y, back, order).unflatten(0, (-1, n)).float().sum(1).to(u.dtype)


def routed_dense(c, u, sel, weight, w):
    """Every expert on every token, weighted by zero where not chosen: two large products."""
    E = w["ffn.experts.w2"].shape[0]
    g = torch.zeros(u.shape[0], E, device=u.device).scatter(1, sel, weight)
    h = (u @ w["ffn.experts.w13"].flatten(0, 1).t()).unflatten(-1, (E, -1))
    h = (swiglu(h, c["swiglu_limit"]) * g.unsqueeze(-1)).to(u.dtype)
    return h.flatten(1) @ w["ffn.experts.w2"].transpose(1, 2).flatten(0, 1)


def moe(c, u, w, token, hashed, path):
    """-> output [T, D], tokens per expert [E]"""
    score = torch.sqrt(F.softplus(u.float() @ w["ffn.gate.weight"].t()))
    if hashed:
        sel = w["ffn.gate.tid2eid"][token]
    else:
        sel = torch.topk(score.detach() + w["ffn.gate.bias"], c["num_experts_per_tok"], -1,
                         sorted=False).indices
    weight = score.gather(1, sel)
    weight = weight / weight.sum(-1, keepdim=True) * c["routed_scaling_factor"]
    experts = torch.arange(score.shape[1], device=u.device)
    count = (sel.reshape(-1, 1) == experts).sum(0)
    if path == "sorted":
        y = routed_sorted(c, u, sel, weight, count, w)
    else:
        y = routed_dense(c, u, sel, weight, w)
    h = u @ torch.cat((w["ffn.shared_experts.w1.weight"], w["ffn.shared_experts.w3.weight"])).t()
    h = swiglu(h, c["swiglu_limit"]).to(u.dtype)
    return y + h @ w["ffn.shared_experts.w2.weight"].t(), count


# ---- a layer: two sublayers, so that each is compiled once per kind ------------------------------

def attention_sublayer(c, X, w, ctx, ratio, fused):
    """-> X [T, 4, D], the indexer's loss. w: the layer's weights by short name."""
    x, post, C = hc_pre(c, X, w, "hc_attn")
    u = rms(x, w["attn_norm.weight"], c["rms_norm_eps"])
    y, loss = attention(c, u, w, ratio, ctx)
    return hc_post(X, y, post, C, fused), loss


def expert_sublayer(c, X, w, token, hashed, path, fused):
    """-> X [T, 4, D], tokens per expert"""
    x, post, C = hc_pre(c, X, w, "hc_ffn")
    u = rms(x, w["ffn_norm.weight"], c["rms_norm_eps"])
    y, count = moe(c, u, w, token, hashed, path)
    return hc_post(X, y, post, C, fused), count
