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
    cosine_restarts=("CosineAnnealingWarmRestarts",
                     lambda a, n: dict(T_0=a["T_0"], T_mult=a["T_mult"], eta_min=a["end"]),
                     lambda k, a, n: restarts(k, a)),
    one_cycle=("OneCycleLR",
               lambda a, n: dict(max_lr=1.0, total_steps=n, pct_start=a["pct_start"], anneal_strategy=a["anneal"],
                                 cycle_momentum=False, div_factor=a["div_factor"],
                                 final_div_factor=a["final_div_factor"]),
               lambda k, a, n: one_cycle(k, a, n)),
    polynomial=("PolynomialLR", lambda a, n: dict(total_iters=a["total"] or n, power=a["power"]),
                lambda k, a, n: max(0.0, 1 - k / (a["total"] or n)) ** a["power"]),
    wsd=("SequentialLR", lambda a, n: dict(stable=n - fall(a, n), decay=fall(a, n), shape=a["shape"], end=a["end"]),
         lambda k, a, n: wsd(k, a, n)),
)


def restarts(k, a):
    length = a["T_0"]
    while k >= length:
        k, length = k - length, length * a["T_mult"]
    return a["end"] + (1 - a["end"]) * (1 + math.cos(math.pi * k / length)) / 2


def one_cycle(k, a, n):
    def between(frm, to, x):
        return frm + (to - frm) * x if a["anneal"] == "linear" else to + (frm - to) / 2 * (1 + math.cos(math.pi * x))
    first, top = 1 / a["div_factor"], a["pct_start"] * n - 1
    if k <= top:
        return between(first, 1, k / top)
    return between(1, first / a["final_div_factor"], (k - top) / (n - 1 - top))


def fall(a, n):
    return math.floor(a["decay"] * n + 0.5)


SHAPES = dict(linear=lambda x: 1 - x, cosine=lambda x: (1 + math.cos(math.pi * x)) / 2, sqrt=lambda x: 1 - math.sqrt(x))


def wsd(k, a, n):
    m = fall(a, n)
    return 1.0 if k < n - m else a["end"] + (1 - a["end"]) * SHAPES[a["shape"]]((k - (n - m)) / m)


def wsd_torch(opt, stable, decay, shape, end):
    """PyTorch has no such scheduler; it has the parts (LambdaLR for 1 - sqrt)."""
    tail = (L.LinearLR(opt, 1.0, end, decay) if shape == "linear" else
            L.CosineAnnealingLR(opt, decay, end) if shape == "cosine" else
            L.LambdaLR(opt, lambda j: end + (1 - end) * (1 - math.sqrt(min(j, decay) / decay))))
    return L.SequentialLR(opt, [L.ConstantLR(opt, 1.0, 0), tail], [stable])


CASES = [
    ("constant", {}), ("step", dict(size=7, gamma=0.5)), ("step", dict(size=1, gamma=0.9)),
    ("exponential", dict(gamma=0.95)), ("exponential", dict(gamma=0.999)), ("cosine", {}),
    ("linear", dict(end=0.0)), ("linear", dict(end=0.1)),
    ("cosine_restarts", dict(T_0=7, T_mult=1, end=0.0)), ("cosine_restarts", dict(T_0=5, T_mult=2, end=0.1)),
    ("cosine_restarts", dict(T_0=1, T_mult=3, end=0.0)), ("cosine_restarts", dict(T_0=100, T_mult=2, end=0.0)),
    ("one_cycle", dict(pct_start=0.3, div_factor=25.0, final_div_factor=1e4, anneal="cos")),
    ("one_cycle", dict(pct_start=0.3, div_factor=25.0, final_div_factor=1e4, anneal="linear")),
    ("one_cycle", dict(pct_start=0.45, div_factor=10.0, final_div_factor=100.0, anneal="cos")),
    ("one_cycle", dict(pct_start=0.0, div_factor=4.0, final_div_factor=1.0, anneal="linear")),
    ("one_cycle", dict(pct_start=1.0, div_factor=4.0, final_div_factor=2.0, anneal="cos")),
    ("polynomial", dict(power=1.0, total=0)), ("polynomial", dict(power=2.0, total=0)),
    ("polynomial", dict(power=0.5, total=10)), ("polynomial", dict(power=1.7, total=1000)),
    ("wsd", dict(decay=0.2, shape="linear", end=0.0)), ("wsd", dict(decay=0.25, shape="cosine", end=0.1)),
    ("wsd", dict(decay=0.5, shape="sqrt", end=0.0)), ("wsd", dict(decay=0.33, shape="sqrt", end=0.2)),
    ("wsd", dict(decay=1.0, shape="cosine", end=0.0)),
]

# (lr, factor, patience, threshold, threshold_mode, cooldown, min), losses
PLATEAU = [
    dict(factor=0.5, patience=2, threshold=1e-4, threshold_mode="rel", cooldown=0, min=0.0),
    dict(factor=0.1, patience=0, threshold=0.02, threshold_mode="rel", cooldown=3, min=1e-3),
    dict(factor=0.3, patience=1, threshold=0.05, threshold_mode="abs", cooldown=1, min=0.05),
    dict(factor=0.7, patience=3, threshold=0.0, threshold_mode="abs", cooldown=2, min=0.0),
    dict(factor=0.5, patience=0, threshold=1e-4, threshold_mode="rel", cooldown=0, min=0.2),
]


def losses():
    """Falls, stands still, rises, is not a number, falls again; some steps of exactly the threshold's size."""
    out = [2.0, 1.5, 1.2, 1.15, 1.15, 1.14995, 1.149, 1.2, 1.3, float("nan"), 1.1, 1.05, 1.0, 1.0, 1.0, 0.98, 0.95, 0.95]
    return out + [0.9 + 0.05 * math.sin(1.3 * i) - 0.002 * i for i in range(30)]


def plateau(a):
    """The multiplier after each loss, as PyTorch's ReduceLROnPlateau gives it at lr = 1 with eps = 0."""
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    kwargs = dict(mode="min", factor=a["factor"], patience=a["patience"], threshold=a["threshold"],
                  threshold_mode=a["threshold_mode"], cooldown=a["cooldown"], min_lr=a["min"], eps=0.0)
    sched, mul = L.ReduceLROnPlateau(opt, **kwargs), []
    for loss in losses():
        sched.step(loss)
        mul.append(opt.param_groups[0]["lr"])
    assert len(set(mul)) > 2, a
    return dict(name="plateau", args=a, torch={"class": "ReduceLROnPlateau", "kwargs": kwargs},
                loss=[None if math.isnan(x) else x for x in losses()], mul=mul)



def recorded(kind, args, total, warmup):
    """Multipliers of the steps 0 .. total-1 as PyTorch's schedulers give them at lr = 1."""
    cls, translate, _ = KINDS[kind]
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    kwargs = translate(args, total - warmup)
    main = lambda: wsd_torch(opt, **kwargs) if kind == "wsd" else getattr(L, cls)(opt, **kwargs)
    if warmup == 0:
        sched = main()
    elif kind in ("one_cycle", "wsd"):      # these set the rate when they are made, or hold others: the ramp by hand
        ramp = [(k + 1) / warmup for k in range(warmup)]
        return cls, kwargs, ramp + recorded(kind, args, total - warmup, 0)[2]
    else:       # (k + 1) / warmup, then `main` from its own step 0
        warm = L.LambdaLR(opt, lambda k: (k + 1) / warmup)
        sched = L.SequentialLR(opt, [warm, main()], milestones=[warmup])
    out = []
    for k in range(total):
        out.append(opt.param_groups[0]["lr"])
        if k + 1 < total:       # beyond, OneCycleLR divides by 0 with pct_start=1
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
    write(__file__, "plateau", {}, "cases", [plateau(a) for a in PLATEAU])


if __name__ == "__main__":
    main()
