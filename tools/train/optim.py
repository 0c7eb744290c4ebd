"""optim.py - Muon for matrices, AdamW for the rest.

Muon replaces a matrix's momentum by the nearest orthogonal matrix (five Newton-Schulz steps), which
takes a small model to a given loss in a fraction of AdamW's tokens. All matrices of one shape,
experts included, go through one batched product. Embedding, head, routers, norms and
hyper-connections are AdamW's."""
import torch

ADAM_NAMES = ("embed.weight", "head.weight", "ffn.gate.weight", "weights_proj.weight", ".ape")


def for_muon(name, p):
    return p.dim() >= 2 and not name.endswith(ADAM_NAMES) and "hc_" not in name


def orthogonal(g):
    """[n, rows, cols] -> matrices with the same singular vectors and singular values near 1."""
    x = g.to(torch.bfloat16) if g.is_cuda else g.float()
    flip = x.shape[-2] > x.shape[-1]
    x = x.transpose(1, 2) if flip else x
    x = x / (x.float().square().sum((-2, -1), keepdim=True).sqrt() + 1e-7).to(x.dtype)
    for _ in range(5):
        a = torch.bmm(x, x.transpose(1, 2))
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return x.transpose(1, 2) if flip else x


class Optimizer:
    """One learning rate for each kind, scaled by `lr` of step()."""

    MUON_LR = 0.02
    # By the end of the name. A hyper-connection reads a thousand values at once: small steps.
    ADAM_LR = (("embed.weight", 4e-3), ("head.weight", 2e-3), ("_fn", 3e-4),
               ("ffn.gate.weight", 1e-3), ("", 1.5e-3))

    def __init__(self, P):
        self.P = P
        self.names = [n for n, p in P.items() if p.requires_grad and for_muon(n, p)]
        self.momentum = {n: torch.zeros_like(P[n]) for n in self.names}
        groups = {}
        for n, p in P.items():
            if p.requires_grad and n not in self.momentum:
                lr = next(r for end, r in self.ADAM_LR if n.endswith(end))
                groups.setdefault((lr, p.dim() >= 2), []).append(p)
        cuda = next(iter(P.values())).is_cuda
        self.adam = torch.optim.AdamW(
            [{"params": ps, "base": lr, "lr": lr, "weight_decay": 0.01 if wide else 0.0}
             for (lr, wide), ps in groups.items()], betas=(0.9, 0.97), eps=1e-9,
            **({"fused": True} if cuda else {}))
        self.adam_params = [p for g in self.adam.param_groups for p in g["params"]]

    @torch.no_grad()
    def muon(self, lr, beta=0.95, decay=0.05):
        by_shape = {}
        for n in self.names:
            p, m = self.P[n], self.momentum[n]
            if p.grad is None:
                continue
            m.lerp_(p.grad, 1 - beta)
            # w1 and w3 lie on each other in one tensor, and are two matrices.
            size = (p.shape[-2] // 2 if n.endswith("w13") else p.shape[-2], p.shape[-1])
            g = p.grad.lerp(m, beta).reshape(-1, *size)
            by_shape.setdefault(size, []).append((p, g))
        for size, some in by_shape.items():
            u = orthogonal(torch.cat([g for _, g in some]))
            u = u.float() * (-lr * max(1, size[0] / size[1]) ** 0.5)
            parts = u.split([g.shape[0] for _, g in some])
            ps = [p for p, _ in some]
            torch._foreach_mul_(ps, 1 - lr * decay)
            torch._foreach_add_(ps, [x.reshape(p.shape) for x, p in zip(parts, ps)])

    def step(self, lr):
        torch.nn.utils.clip_grad_norm_(self.adam_params, 1.0)
        for g in self.adam.param_groups:
            g["lr"] = g["base"] * lr
        self.adam.step()
        self.muon(self.MUON_LR * lr)
        for p in self.P.values():
            p.grad = None

    def state(self):
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load(self, state):
        for n, m in state["momentum"].items():
            self.momentum[n].copy_(m)
        self.adam.load_state_dict(state["adam"])
