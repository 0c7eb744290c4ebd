"""train.py - trains pebble, measures it, and exports it.

    python3 train.py --minutes 9 --span 0 0.5 --out DIR     first half of the plan
    python3 train.py --minutes 9 --span 0.5 1 --out DIR     second half, from where the first ended
    python3 train.py --probe --out DIR                      speeds and a minute of training
    python3 train.py --smoke                                everything on a tiny model, on a CPU

The plan is a fraction of wall-clock time: learning rate, lengths and selection depend on nothing
else, so that a run of any length ends annealed. State (masters, optimizer) is kept in --state and
taken up again from there; without it --resume takes an exported checkpoint, whose weights become
the masters, and warms the optimizer up. Compilation and grouped products are tried, compared with
the plain version, and dropped if they fail: the run goes on slower instead of not at all."""
import argparse
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch

import batches
import check
import config
import evaluate
import export
import model
from optim import Optimizer

DRAFT_SHARE, INDEX_SHARE, BIAS_STEP = 0.2, 0.5, 1e-3
START = time.time()


def log(*a):
    print("%6.1f" % (time.time() - START), *a, flush=True)


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=float, default=9)
    p.add_argument("--span", type=float, nargs=2, default=(0.0, 1.0))
    p.add_argument("--out", default="/tmp/pebble")
    p.add_argument("--state", default="/tmp/pebble-state.pt")
    p.add_argument("--resume", help="an exported checkpoint")
    p.add_argument("--tokens", type=int, default=32768, help="per step")
    p.add_argument("--short", type=int, default=1024)
    p.add_argument("--long", type=int, default=8192)
    p.add_argument("--workers", type=int, default=10)
    p.add_argument("--plain", action="store_true", help="no compilation")
    p.add_argument("--path", choices=("auto", "sorted", "dense"), default="auto")
    p.add_argument("--lr", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--probe", action="store_true")
    p.add_argument("--smoke", action="store_true")
    return p.parse_args()


def rate(progress, since):
    """Learning rate: warm-up over the first hundredth and 60 steps, then flat, then linear."""
    warm = min(1.0, (progress + 1e-4) / 0.01, (since + 1) / 60)
    return warm * min(1.0, max(0.01, (1 - progress) / 0.5))


class Trainer:
    def __init__(self, a, c, device):
        self.a, self.c, self.device = a, c, device
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.n_step = self.since = 0
        self.P = self.begin()
        self.opt = Optimizer(self.P)
        self.take_up()
        total, routed = model.n_parameters(self.P)
        log("parameters %.2f M, routed experts %.1f %%" % (total / 1e6, 100 * routed / total))

    def begin(self):
        if self.a.resume and not (self.a.span[0] and os.path.exists(self.a.state)):
            P, c = export.read(self.a.resume)
            log("from the checkpoint", self.a.resume)
        else:
            P = model.create(self.c, self.a.seed)
        return model.prepare(P, self.device)

    def take_up(self):
        if self.a.span[0] == 0 or not os.path.exists(self.a.state):
            return
        s = torch.load(self.a.state, map_location=self.device)
        with torch.no_grad():
            for n, p in self.P.items():
                p.copy_(s["P"][n])
        self.opt.load(s["opt"])
        self.n_step, self.since = s["step"], 1000
        log("from the state at step", self.n_step)

    def save_state(self):
        s = {"P": {n: p.detach() for n, p in self.P.items()}, "opt": self.opt.state(),
             "step": self.n_step}
        torch.save(s, self.a.state + ".new")
        os.replace(self.a.state + ".new", self.a.state)

    def to_device(self, b):
        t = [torch.from_numpy(x) for x in (b.token, b.doc, b.weight, b.skill)]
        if self.device == "cuda":
            t = [x.pin_memory().to("cuda", non_blocking=True) for x in t]
        return t[0].long(), t[1], t[2], t[3].long()

    def backward(self, run, b, dense):
        token, doc, weight, skill = self.to_device(b)
        out = run.losses(run.weights(self.P), (token, doc, weight), b.n_row, dense)
        loss = out["main"] + INDEX_SHARE * out["index"]
        if "draft" in out:
            loss = loss + DRAFT_SHARE * out["draft"]
        loss.backward()
        return out, (weight, skill)

    def balance(self, counts, lr):
        with torch.no_grad():
            for prefix, n in counts.items():
                bias = self.P.get(prefix + "ffn.gate.bias")
                if bias is not None:
                    n = n.float()
                    bias += BIAS_STEP * min(1.0, lr + 0.05) * torch.sign(n.mean() - n)

    def step(self, run, b, progress):
        lr = rate(progress, self.since)
        out, extra = self.backward(run, b, progress < 0.15)
        self.opt.step(lr * self.a.lr)
        self.balance(out["counts"], lr)
        self.n_step += 1
        self.since += 1
        return out, extra


class Meter:
    """Means since the last report, kept on the device until asked."""

    def __init__(self, device):
        n = len(batches.SKILLS) + 1
        self.sum, self.n = torch.zeros(n, device=device), torch.zeros(n, device=device)
        self.loss = torch.zeros(3, device=device)
        self.spread = torch.zeros((), device=device)
        self.steps, self.tokens, self.time = 0, 0, time.time()

    @torch.no_grad()
    def add(self, out, extra):
        weight, skill = extra
        goal = torch.roll(weight, -1) > 0.1
        k = torch.where(goal, skill.clamp(max=len(batches.SKILLS) - 1),
                        torch.full_like(skill, len(batches.SKILLS)))
        self.sum.index_add_(0, k, out["main_nll"].detach().float())
        self.n.index_add_(0, k, torch.ones_like(out["main_nll"]))
        zero = self.loss.new_zeros(())
        self.loss += torch.stack([out[x].detach() if x in out else zero
                                  for x in ("main", "draft", "index")])
        last = list(out["counts"].values())[-1].float()
        self.spread += last.max() / last.mean()
        self.steps += 1
        self.tokens += weight.shape[0]

    def report(self):
        per = (self.sum / self.n.clamp(min=1)).tolist()[:-1]
        main, draft, index = (self.loss / self.steps).tolist()
        text = "loss %.3f draft %.3f index %.3f load %.2f  %.0f k tokens/s |" % (
            main, draft, index, self.spread.item() / self.steps,
            self.tokens / (time.time() - self.time) / 1000)
        return main, text + "".join(" %s %.3f" % x for x in zip(batches.SKILLS, per))


def agree(trainer, fast, plain, b):
    """Do two runners give the same loss and gradients, to bfloat16's accuracy?"""
    seen = []
    for run in (fast, plain):
        out, _ = trainer.backward(run, b, False)
        loss = float(out["main"] + out["draft"] + out["index"])
        grads = {n: p.grad.flatten()[:200000].float() for n, p in trainer.P.items()
                 if p.grad is not None and p.dim() >= 2}
        for p in trainer.P.values():
            p.grad = None
        seen.append((loss, grads))
    (la, ga), (lb, gb) = seen
    cos = {n: float((ga[n] * gb[n]).sum() / (ga[n].norm() * gb[n].norm() + 1e-20)) for n in ga
           if float(gb[n].norm()) > 0}
    worst = sorted(cos.items(), key=lambda x: x[1])[:3]
    mean = sum(cos.values()) / len(cos)
    log("loss %.4f against %.4f, gradients' cosine: mean %.4f, worst %s" % (
        la, lb, mean, " ".join("%s %.3f" % x for x in worst)))
    return abs(la - lb) < 0.01 * abs(lb) and mean > 0.9


def choose(trainer, samples):
    """The fastest runner that works and computes the same."""
    a, c = trainer.a, trainer.c
    plain = model.Runner(c, trainer.dtype, "dense", False, save_memory=trainer.device == "cuda")
    if trainer.device != "cuda":
        return plain
    paths = ("sorted", "dense") if a.path == "auto" else (a.path,)
    tries = [(p, True) for p in paths if not a.plain] + [(p, False) for p in paths]
    for path, compiled in tries:
        try:
            torch._dynamo.reset() if compiled else None
            run = model.Runner(c, trainer.dtype, path, compiled)
            log("trying", path, "compiled" if compiled else "plain")
            if all(agree(trainer, run, plain, b) for b in samples):
                return run
        except Exception:
            log("failed:", traceback.format_exc()[-1500:])
        torch.cuda.empty_cache()
    return plain


def speed(trainer, run, samples, n=12):
    for b in samples:
        for i in range(n + 3):
            if i == 3:
                torch.cuda.synchronize()
                t = time.time()
            trainer.step(run, b, 0.5)
        torch.cuda.synchronize()
        t = (time.time() - t) / n
        log("rows of %d: %.1f ms a step, %.0f k tokens/s, %.1f GB at most" % (
            b.token.shape[0] // b.n_row, 1000 * t, b.token.shape[0] / t / 1000,
            torch.cuda.max_memory_allocated() / 1e9))


def profile(trainer, run, b):
    from torch.profiler import ProfilerActivity, profile as record
    with record(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
        trainer.step(run, b, 0.5)
        torch.cuda.synchronize()
    table = p.key_averages().table(sort_by="self_cuda_time_total", row_limit=24,
                                   max_name_column_width=60)
    for line in table.splitlines():
        cells = line.split("  ")
        words = [x.strip() for x in cells if x.strip()]
        if len(words) > 6:
            log(words[0], "|", " ".join(words[-6:]))
        elif "ime total" in line:
            log(line)


def probe(trainer, samples):
    """Times the ways to run, which also fills the compiler's cache for the runs to come."""
    plain = model.Runner(trainer.c, trainer.dtype, "dense", False, save_memory=True)
    for path in ("sorted", "dense"):
        run = model.Runner(trainer.c, trainer.dtype, path, True)
        try:
            log("==", path, "compiled")
            [agree(trainer, run, plain, b) for b in samples]
            speed(trainer, run, samples)
            if path == "sorted":
                profile(trainer, run, samples[0])
        except Exception:
            log("failed:", traceback.format_exc()[-2500:])
        torch.cuda.empty_cache()


def loop(trainer, run, source, end, span):
    """Trains until the clock says end."""
    begin, said, saved, asked = time.time(), time.time(), time.time(), time.time()
    small = evaluate.Held(trainer.a.tokens, trainer.a.short, trainer.a.long, 0.3)
    meter = Meter(trainer.device)
    while time.time() < end:
        progress = span[0] + (span[1] - span[0]) * (time.time() - begin) / (end - begin)
        source.progress.value = progress
        meter.add(*trainer.step(run, source.next(), min(progress, 1.0)))
        now = time.time()
        if now - said > 20:
            loss, text = meter.report()
            log("step %d at %.3f" % (trainer.n_step, progress), text)
            if loss != loss:
                raise SystemExit("the loss is no number any more; state is of the last minutes")
            meter, said = Meter(trainer.device), now
        if now - asked > 90:
            log("exact:", *show(small.run(run, trainer.P, trainer.device)))
            asked = meter.time = time.time()
        if now - saved > 200:
            trainer.save_state()
            saved = time.time()
    trainer.save_state()


def show(result):
    share, draft = result
    return [" ".join("%s %.0f" % x for x in share.items()), "| draft", draft]


def finish(trainer, run):
    a = trainer.a
    held = evaluate.Held(a.tokens, a.short, a.long, 0.02 if a.smoke else 1.0)
    log("held-out, exact %:", *show(held.run(run, trainer.P, trainer.device)))
    log("encyclopedias:", evaluate.books(run, trainer.P, trainer.device, a.tokens, a.long,
                                         4 if a.smoke else 40))
    P = {n: p.detach().cpu() for n, p in trainer.P.items()}
    export.write(P, trainer.c, a.out)
    again, _ = export.read(a.out)
    device = trainer.device
    torch.backends.cuda.matmul.allow_tf32 = False
    log("oracle, mean nll:", export.oracle(again, trainer.c, os.path.join(a.out, "oracle.json"),
                                           device))
    sizes = {f: os.path.getsize(os.path.join(a.out, f)) for f in sorted(os.listdir(a.out))}
    log("exported %.2f MB" % (sum(sizes.values()) / 1e6), sizes)


def smoke(a):
    """A tiny model through all of it: steps, state, export, the independent check."""
    a.tokens, a.short, a.long, a.workers, a.lr = 1024, 512, 1024, 1, 4.0
    a.out, a.state, c = "/tmp/pebble-smoke", "/tmp/pebble-smoke.pt", config.TINY
    if os.path.exists(a.state):
        os.remove(a.state)
    source = batches.Source(batches.Plan(a.tokens, a.short, a.long), a.workers, a.seed)
    trainer = Trainer(a, c, "cpu")
    run = choose(trainer, [])
    losses = []
    for i in range(24):
        source.progress.value = i / 24
        out, _ = trainer.step(run, source.next(), i / 24)
        losses.append(float(out["main"]))
        if i % 4 == 0:
            log("step %d: main %.3f draft %.3f index %.3f" % (
                i, losses[-1], float(out["draft"]), float(out["index"])))
    source.close()
    trainer.save_state()
    a.span = (0.5, 1.0)
    other = Trainer(a, c, "cpu")
    assert all(torch.equal(other.P[n], trainer.P[n]) for n in trainer.P), "state differs"
    finish(trainer, run)
    assert min(losses[-4:]) < 0.9 * losses[0], "the loss does not fall"
    assert check.oracle(a.out, os.path.join(a.out, "oracle.json"), 18), "export differs"
    log("smoke test passed")


def allow_compilation():
    """One graph per length and kind, none for sizes in general."""
    import torch._dynamo as dynamo
    dynamo.config.automatic_dynamic_shapes = False
    for key in ("recompile_limit", "cache_size_limit"):
        if hasattr(dynamo.config, key):
            setattr(dynamo.config, key, 64)


def main():
    a = arguments()
    os.makedirs(a.out, exist_ok=True)
    if a.smoke:
        return smoke(a)
    plan = batches.Plan(a.tokens, a.short, a.long)
    # The processes are forked before the device is touched.
    source = batches.Source(plan, a.workers, a.seed + int(1000 * a.span[0]), a.span[0])
    samples = evaluate.sampled(a.tokens, a.short, a.long)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    if device == "cuda":
        allow_compilation()
    trainer = Trainer(a, config.PEBBLE, device)
    if a.probe:
        probe(trainer, samples)
        trainer = Trainer(a, config.PEBBLE, device)
    run = choose(trainer, samples)
    log("runs", run.path, "compiled" if run.fused else "plain")
    loop(trainer, run, source, START + 60 * a.minutes - 35, a.span)
    source.close()
    finish(trainer, run)


if __name__ == "__main__":
    main()
