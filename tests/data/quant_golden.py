#!/usr/bin/env python3
"""Writes quant_golden.bin: random blocks of every packed type with their values.

A second, independent reading of the formats, in exact rational arithmetic; each value is
rounded to float32 once, at the end. Record: u32 type, n, bytes, scale bytes; then the bytes, the
scale bytes and n float32. Finite values only.
"""
import itertools
import random
import struct
from fractions import Fraction as F

XXS = open("tests/data/iq2_bitmaps.txt").read().split()[0]
XS = open("tests/data/iq2_bitmaps.txt").read().split()[1]
E2M1 = [F(v) / 2 for v in (0, 1, 2, 3, 4, 6, 8, 12)]


def grid(bitmap):
    bits = bytes.fromhex(bitmap)
    points = [p for p in itertools.product(range(3), repeat=8) if sum(p) % 2 == 0]
    points.sort(key=lambda p: sum(v * 4**i for i, v in enumerate(p)))
    kept = [p for i, p in enumerate(points) if i // 8 < len(bits) and bits[i // 8] >> i % 8 & 1]
    return [[(8, 25, 43)[v] for v in p] for p in kept]


def half(b):
    return F(struct.unpack("<e", bytes(b))[0])


def two(e):
    return F(2) ** (e - 127)


def e4m3(q):
    exp, man = q >> 3 & 15, q & 7
    mag = F(man, 8) * F(2) ** -6 if exp == 0 else (1 + F(man, 8)) * F(2) ** (exp - 7)
    return -mag if q & 128 else mag


def e2m1(q):
    return -E2M1[q & 7] if q & 8 else E2M1[q & 7]


def q4_0(b):
    d = half(b[0:2])
    low = [d * ((b[2 + j] & 15) - 8) for j in range(16)]
    return low + [d * ((b[2 + j] >> 4) - 8) for j in range(16)]


def q8_0(b):
    return [half(b[0:2]) * q for q in struct.unpack("32b", b[2:34])]


def q2_k(b):
    scales, qs, d, m = b[0:16], b[16:80], half(b[80:82]), half(b[82:84])
    out = []
    for h in range(2):
        for j in range(4):
            for l in range(32):
                s = scales[8 * h + 2 * j + l // 16]
                out.append(d * (s & 15) * (qs[32 * h + l] >> 2 * j & 3) - m * (s >> 4))
    return out


def q3_k(b):
    hm, qs, sc, d = b[0:32], b[32:96], b[96:108], half(b[108:110])
    low = [x & 15 for x in sc[0:8]] + [x >> 4 for x in sc[0:8]]
    scale = [low[s] + 16 * (sc[8 + s % 4] >> 2 * (s // 4) & 3) - 32 for s in range(16)]
    out = []
    for h in range(2):
        for j in range(4):
            for l in range(32):
                q = (qs[32 * h + l] >> 2 * j & 3) - (0 if hm[l] >> 4 * h + j & 1 else 4)
                out.append(d * scale[8 * h + 2 * j + l // 16] * q)
    return out


def k4_scales(b):
    sc = [b[s] & 63 for s in range(4)]
    sc += [(b[s + 4] & 15) + 16 * (b[s - 4] >> 6) for s in range(4, 8)]
    mn = [b[s + 4] & 63 for s in range(4)]
    mn += [(b[s + 4] >> 4) + 16 * (b[s] >> 6) for s in range(4, 8)]
    return sc, mn


def q4_k(b):
    d, m, qs = half(b[0:2]), half(b[2:4]), b[16:144]
    sc, mn = k4_scales(b[4:16])
    out = []
    for p in range(4):
        out += [d * sc[2 * p] * (qs[32 * p + l] & 15) - m * mn[2 * p] for l in range(32)]
        out += [d * sc[2 * p + 1] * (qs[32 * p + l] >> 4) - m * mn[2 * p + 1] for l in range(32)]
    return out


def q5_k(b):
    d, m, qh, qs = half(b[0:2]), half(b[2:4]), b[16:48], b[48:176]
    sc, mn = k4_scales(b[4:16])
    out = []
    for s in range(8):
        for l in range(32):
            nib = qs[32 * (s // 2) + l] >> 4 * (s & 1) & 15
            out.append(d * sc[s] * (nib + 16 * (qh[l] >> s & 1)) - m * mn[s])
    return out


def q6_k(b):
    ql, qh, d = b[0:128], b[128:192], half(b[208:210])
    sc = struct.unpack("16b", b[192:208])
    out = []
    for h in range(2):
        for t in range(4):
            for l in range(32):
                nib = ql[64 * h + 32 * (t & 1) + l] >> (4 if t >= 2 else 0) & 15
                high = qh[32 * h + l] >> 2 * t & 3
                out.append(d * sc[8 * h + 2 * t + l // 16] * (nib + 16 * high - 32))
    return out


def signed(entry, seven):
    signs = seven | (bin(seven).count("1") & 1) << 7
    return [-v if signs >> j & 1 else v for j, v in enumerate(entry)]


def iq2_xxs(b, table=grid(XXS)):
    d, out = half(b[0:2]), []
    for g in range(8):
        a0, a1 = struct.unpack("<II", b[2 + 8 * g:10 + 8 * g])
        s = d * (F(a1 >> 28) + F(1, 2)) / 4
        for l in range(4):
            out += [s * v for v in signed(table[a0 >> 8 * l & 255], a1 >> 7 * l & 127)]
    return out


def iq2_xs(b, table=grid(XS)):
    d, out = half(b[0:2]), []
    for l, code in enumerate(struct.unpack("<32H", b[2:66])):
        n = b[66 + l // 4] >> (4 if l % 4 >= 2 else 0) & 15
        out += [d * (F(n) + F(1, 2)) / 4 * v for v in signed(table[code & 511], code >> 9)]
    return out


def mxfp4(b):
    return [two(b[0]) * e2m1(q & 15) for q in b[1:17]] + [two(b[0]) * e2m1(q >> 4) for q in b[1:17]]


# type: block bytes, places of f16 fields, function
BLOCKS = {2: (18, [0], q4_0), 8: (34, [0], q8_0), 10: (84, [80, 82], q2_k), 11: (110, [108], q3_k),
          12: (144, [0, 2], q4_k), 13: (176, [0, 2], q5_k), 14: (210, [208], q6_k),
          16: (66, [0], iq2_xxs), 17: (74, [0], iq2_xs), 39: (17, [], mxfp4)}


def record(out, kind, data, scales, values):
    out.write(struct.pack("<4I", kind, len(values), len(data), len(scales)) + data + scales)
    out.write(b"".join(struct.pack("<f", float(v)) for v in values))


def main():
    rng = random.Random(20)
    with open("tests/data/quant_golden.bin", "wb") as out:
        for kind, (size, halves, fn) in BLOCKS.items():
            data, values = b"", []
            for _ in range(3):
                b = bytearray(rng.randbytes(size))
                for at in halves:
                    b[at:at + 2] = struct.pack("<e", rng.uniform(-0.1, 0.1))
                if kind == 39:
                    b[0] = rng.randrange(100, 140)
                data, values = data + bytes(b), values + fn(bytes(b))
            record(out, kind, data, b"", values)
        data = bytes(q if q & 127 != 127 else 0 for q in rng.randbytes(300))
        scales = bytes(rng.randrange(100, 140) for _ in range(3))
        values = [e4m3(q) * two(scales[i // 128]) for i, q in enumerate(data)]
        record(out, 1000, data, scales, values)
        data, scales = rng.randbytes(64), bytes(rng.randrange(100, 140) for _ in range(4))
        record(out, 1002, data, scales,
               [e2m1(data[i // 2] >> 4 * (i & 1)) * two(scales[i // 32]) for i in range(128)])


main()
