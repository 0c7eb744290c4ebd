"""export.py - the vendor's checkpoint format, written and read.

Shards below 15 MiB (safetensors), model.safetensors.index.json, config.json and tokenizer.json; and
oracle.json, which states what the packed weights compute: for some dialogues the negative log
likelihood of every token, the eight likeliest at some positions, and the draft block's guesses, in
float32 with the cache's simulation. check.py compares; so can any engine."""
import json
import os
import random
import shutil

import numpy as np
import torch

import check
import config
import heldout
import model
from quantise import pack_e2m1, pack_e4m3
from tokenizer import DEFAULT, Tokenizer

SHARD_BYTES = 14_500_000


def raw(t):
    return t.contiguous().numpy().tobytes()


def entry(dtype, t, shape=None):
    return dtype, list(t.shape if shape is None else shape), raw(t)


def expert_entries(name, w):
    """The stacked experts of a layer as the vendor's single tensors."""
    base, kind = name.rsplit(".", 1)
    half = w.shape[1] // 2
    parts = [("w1", w[:, :half]), ("w3", w[:, half:])] if kind == "w13" else [("w2", w)]
    for short, stack in parts:
        codes, scales = pack_e2m1(stack)
        for e in range(w.shape[0]):
            key = "%s.%d.%s." % (base, e, short)
            yield key + "weight", entry("I8", codes[e])
            yield key + "scale", entry("F8_E8M0", scales[e])


def entries(P):
    for name, p in P.items():
        p = p.detach().cpu()
        if model.is_expert(name):
            yield from expert_entries(name, p.float())
        elif model.is_fp8(name):
            codes, scales = pack_e4m3(p.float())
            yield name, entry("F8_E4M3", codes)
            yield name[:-len("weight")] + "scale", entry("F8_E8M0", scales)
        elif name.endswith("tid2eid"):
            yield name, entry("I64", p.long())
        elif name.endswith("_fn"):
            yield name, entry("F32", p.to(torch.bfloat16).float())
        elif model.is_f32(name):
            yield name, entry("F32", p.float())
        else:
            yield name, entry("BF16", p.to(torch.bfloat16).view(torch.int16), p.shape)


def write(P, c, folder):
    os.makedirs(folder, exist_ok=True)
    shards, size = [[]], 0
    for name, (dtype, shape, data) in entries(P):
        if size + len(data) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, dtype, shape, data))
        size += len(data)
    where, total = {}, 0
    for i, shard in enumerate(shards):
        file = "model-%05d-of-%05d.safetensors" % (i + 1, len(shards))
        header, at = {}, 0
        for name, dtype, shape, data in shard:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
            where[name] = file
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        with open(os.path.join(folder, file), "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head)
            f.writelines(data for _, _, _, data in shard)
        total += at
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, f)
        f.write("\n")
    config.save(c, os.path.join(folder, "config.json"))
    shutil.copy(DEFAULT, os.path.join(folder, "tokenizer.json"))


def read(folder):
    """-> parameters as model.create() makes them (the values of the packed weights), config"""
    c = config.load(os.path.join(folder, "config.json"))
    W, P = check.Weights(folder), {}
    for name, shape in model.shapes(c).items():
        if model.is_expert(name):
            base, kind = name.rsplit(".", 1)
            names = [["%s.%d.%s.weight" % (base, e, k) for k in
                      (("w1", "w3") if kind == "w13" else ("w2",))] for e in range(shape[0])]
            value = np.stack([np.concatenate([W(n) for n in some]) for some in names])
        else:
            value = W(name)
        if tuple(value.shape) != tuple(shape):
            raise ValueError("%s: %s has shape %s, expected %s" % (
                folder, name, value.shape, shape))
        P[name] = torch.tensor(np.array(value, np.float32))
    for prefix, _, hashed in model.blocks(c):
        if hashed:
            name = prefix + "ffn.gate.tid2eid"
            P[name] = torch.tensor(np.array(W(name), np.int64))
    return P, c


@torch.no_grad()
def oracle(P, c, path, device="cpu", limit=1500):
    tok, rng, cases = Tokenizer(), random.Random(4242), []
    run = model.Runner(c, torch.float32)
    W = run.weights({k: v.detach().to(device) for k, v in P.items()})
    for kind in ("arithmetic", "define", "encyclopedia", "tools", "recall-64", "words"):
        for _ in range(3):
            text = heldout.SETS[kind][1](rng).text()
            ids = tok.encode(text)[:limit]
            n = len(ids)
            pad = -n % 128
            token = torch.tensor(ids + [2] * pad, device=device)
            doc = torch.tensor([0] * n + [-1] * pad, device=device, dtype=torch.int32)
            ctx = model.context(c, doc, 1, False)
            X, _, _ = run.streams(W, token, ctx)
            lp = torch.log_softmax(model.logits(c, X, W)[:n], -1)
            Y, _ = run.draft(W, X, token, ctx)
            w = {**model.part(W, "mtp.0."), "head.weight": W["head.weight"]}
            draft = model.logits(c, Y, w)[:n - 1].argmax(-1)
            every = max(1, n // 24)
            v, i = lp[::every].topk(8)
            nll = -lp[:-1].gather(1, token[1:n, None])[:, 0]
            cases.append({
                "kind": kind, "text": text if n < limit else tok.decode(ids), "ids": ids,
                "mean_nll": nll.mean().item(), "nll": [round(x, 5) for x in nll.tolist()],
                "draft": draft.tolist(), "top_every": every,
                "top": [[[a, round(b, 5)] for a, b in zip(*r)] for r in zip(i.tolist(),
                                                                          v.tolist())]})
    with open(path, "w") as f:
        json.dump(cases, f, ensure_ascii=False)
        f.write("\n")
    return {x["kind"]: round(x["mean_nll"], 3) for x in cases}
