# SPDX-License-Identifier: MIT
"""Records learning-rate multipliers of torch.optim.lr_scheduler. The format is in ../README.md."""
import math
import os
import sys
import warnings

import torch
from torch.optim import lr_scheduler as L

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import write  # noqa: E402

# kind: (PyTorch's class, its arguments from ours and the steps that remain, the same in closed form)
KINDS = dict(
    constant=("ConstantLR", lambda a, n: dict(factor=1.0, total_iters=0), lambda k, a, n: 1.0),
    step=("StepLR", lambda a, n: dict(step_size=a["size"], gamma=a["gamma"]),
          lambda k, a, n: a["gamma"] ** (k // a["size"])),
    exponential=("ExponentialLR", lambda a, n: dict(gamma=a["gamma"]), lambda k, a, n: a["gamma"] ** k),
    cosine=("CosineAnnealingLR", lambda a, n: dict(T_max=n, eta_min=0.0),
            lambda k, a, n: (1 + math.cos(math.pi * k / n)) / 2),
    linear=("LinearLR", lambda a, n: dict(start_factor=1.0, end_factor=a["end"], total_iters=n),
            lambda k, a, n: 1 + (a["end"] - 1) * k / n),
)
CASES = [
    ("constant", {}), ("step", dict(size=7, gamma=0.5)), ("step", dict(size=1, gamma=0.9)),
    ("exponential", dict(gamma=0.95)), ("exponential", dict(gamma=0.999)), ("cosine", {}),
    ("linear", dict(end=0.0)), ("linear", dict(end=0.1)),
]


def recorded(kind, args, total, warmup):
    """Multipliers of the steps 0 .. total-1 as PyTorch's schedulers give them at lr = 1."""
    cls, translate, _ = KINDS[kind]
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    kwargs = translate(args, total - warmup)
    main = lambda: getattr(L, cls)(opt, **kwargs)
    if warmup == 0:
        sched = main()
    else:       # (k + 1) / warmup, then `main` from its own step 0
        warm = L.LambdaLR(opt, lambda k: (k + 1) / warmup)
        sched = L.SequentialLR(opt, [warm, main()], milestones=[warmup])
    out = []
    for _ in range(total):
        out.append(opt.param_groups[0]["lr"])
        opt.step()
        sched.step()
    return cls, kwargs, out


def main():
    warnings.simplefilter("ignore", UserWarning)        # SequentialLR's own call of step(epoch)
    items = []
    for kind, args in CASES:
        for total, warmup in ((40, 0), (40, 8), (40, 1), (13, 5)):
            cls, kwargs, mul = recorded(kind, args, total, warmup)
            closed = KINDS[kind][2]
            for k, got in enumerate(mul):
                want = (k + 1) / warmup if k < warmup else closed(k - warmup, args, total - warmup)
                assert abs(got - want) < 1e-13, (kind, args, total, warmup, k, got, want)
            items.append(dict(name=kind, args=args, total=total, warmup=warmup,
                              torch=dict(**{"class": cls}, kwargs=kwargs), mul=mul))
    write(__file__, "schedules", {}, "cases", items)


if __name__ == "__main__":
    main()
