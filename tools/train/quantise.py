"""quantise.py - the number formats of the checkpoint and of the cache, for training and packing.

Rounding is by arithmetic and bit patterns, not by dtypes, so that it means the same on every
machine: E4M3 in blocks of 128 x 128 for dense weights, E2M1 per 32 for routed experts, both with
power-of-two scales; and the vendor's cache simulation (FP8 per 64, FP4 per 32, ties to even).
ste() lets the gradient pass as if nothing had been rounded."""
import torch

FP8_MAX, FP4_MAX = 448.0, 6.0


def ste(x, rounded):
    return x + (rounded - x).detach()


def pow2_ceil(x):
    """The smallest power of two >= x, for positive normal float32."""
    bits = x.contiguous().view(torch.int32)
    up = (bits & 0x7FFFFF) != 0
    return ((bits >> 23) + up.to(torch.int32) << 23).view(torch.float32)


def pow2_floor(x):
    return (x.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)


def round_e4m3(x):
    """float32 within +-448 to the nearest E4M3 value."""
    step = pow2_floor(x.abs().clamp(min=2.0 ** -6)) * 0.125
    return torch.round(x / step) * step


def round_e2m1(x):
    """float32 within +-6 to the nearest of 0, .5, 1, 1.5, 2, 3, 4, 6."""
    step = pow2_floor(x.abs().clamp(min=1.0)) * 0.5
    return torch.round(x / step) * step


def fp8_sim(x, block=64):
    """The cache's rounding along the last axis; the last block may be shorter."""
    out = []
    for i in range(0, x.shape[-1], block):
        b = x[..., i:i + block].float()
        m = b.abs().amax(-1, keepdim=True).clamp(min=1e-4)
        s = pow2_ceil(m * (1 / FP8_MAX))
        out.append(round_e4m3(b / s) * s)
    r = out[0] if len(out) == 1 else torch.cat(out, -1)
    return r.to(x.dtype)


def fp4_sim(x):
    b = x.float().unflatten(-1, (-1, 32))
    m = b.abs().amax(-1, keepdim=True).clamp(min=6 * 2.0 ** -126)
    s = pow2_ceil(m * (1 / FP4_MAX))
    return (round_e2m1(b / s) * s).flatten(-2).to(x.dtype)


def bf16(x):
    return x.to(torch.bfloat16).float()


def tiles(w):
    """[..., out, in] -> [..., out/128, 128, in/128, 128], padded with zeros."""
    o, i = w.shape[-2:]
    w = torch.nn.functional.pad(w, (0, -i % 128, 0, -o % 128))
    return w.unflatten(-2, (-1, 128)).unflatten(-1, (-1, 128))


def fp8_weight(w):
    """[..., out, in] -> (values on the grid, scales [..., out/128, in/128])"""
    o, i = w.shape[-2:]
    b = tiles(w.float())
    s = pow2_ceil(b.abs().amax((-3, -1), keepdim=True).clamp(min=2.0 ** -40) * (1 / FP8_MAX))
    q = (round_e4m3(b / s) * s).flatten(-4, -3).flatten(-2, -1)[..., :o, :i]
    return q, s[..., 0, :, 0]


def fp4_weight(w):
    """[..., out, in] -> (values on the grid, scales [..., out, in/32])"""
    b = w.float().unflatten(-1, (-1, 32))
    s = pow2_ceil(b.abs().amax(-1, keepdim=True).clamp(min=2.0 ** -40) * (1 / FP4_MAX))
    return (round_e2m1(b / s) * s).flatten(-2), s[..., 0]


# ---- packing ------------------------------------------------------------------------------------

def pack_scale(s):
    return (s.contiguous().view(torch.int32) >> 23).to(torch.uint8)


def pack_e4m3(w):
    """Dense weight -> (bytes [out, in], scale bytes)"""
    q, s = fp8_weight(w)
    o, i = w.shape
    x = q / s.repeat_interleave(128, 0)[:o].repeat_interleave(128, 1)[:, :i]
    a = x.abs()
    normal = a >= 2.0 ** -6
    bits = pow2_floor(a.clamp(min=2.0 ** -6))
    exponent = (bits.view(torch.int32) >> 23) - 127
    mantissa = torch.round((a / bits - 1) * 8).to(torch.int32)
    code = torch.where(normal, (exponent + 7) * 8 + mantissa,
                       torch.round(a * 512).to(torch.int32))
    return (code + 128 * (x < 0)).to(torch.uint8), pack_scale(s)


def pack_e2m1(w):
    """Expert weights [..., out, in] -> (bytes [..., out, in/2], scale bytes [..., out, in/32])"""
    q, s = fp4_weight(w)
    x = q / s.repeat_interleave(32, -1)
    grid = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])
    code = torch.bucketize(x.abs(), grid) + 8 * (x < 0)
    code = code.to(torch.uint8)
    return code[..., 0::2] | code[..., 1::2] << 4, pack_scale(s)
