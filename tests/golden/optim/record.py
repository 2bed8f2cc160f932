# SPDX-License-Identifier: MIT
"""Records 50 steps of PyTorch's optimizers, one file a family. The format is in ../README.md."""
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import flat, setup, tensor, uniform, write  # noqa: E402

STEPS, SHOWN = 50, (1, 2, 3, 10, 50)
TENSORS = [
    dict(name="weight", shape=[3, 5], decay=True, seed=101, scale=1.0, grad_seed=201),
    dict(name="bias", shape=[7], decay=False, seed=102, scale=1.0, grad_seed=202),
]
SLOTS = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "vmax", "momentum_buffer": "momentum_buffer",
         "square_avg": "square_avg", "grad_avg": "grad_avg", "sum": "sum"}

RANDOM = dict(kind="random", scale=1.0)
SMALL = dict(kind="random", scale=2.0**-24)      # of the size of eps
LARGE = dict(kind="random", scale=1024.0)
TINY = dict(kind="constant", scale=1e-8)
ZEROS = dict(kind="zeros", scale=0.0)
SPIKE = dict(kind="spike", scale=1e4, at=1)      # then silence
LATE = dict(kind="spike", scale=1e4, at=40)      # after a silence
SIGNS = dict(kind="alternating", scale=0.5)
SPECIAL = dict(random=RANDOM, tiny=TINY, zeros=ZEROS, spike=SPIKE, late_spike=LATE, signs=SIGNS)
# Rate multipliers that go up and down and are exact in binary: (7t mod 11 + 1) / 8, t from 1.
WAVE = [((7 * t) % 11 + 1) / 8 for t in range(1, STEPS + 1)]


def gradients(grad, t):
    """Array of shape (STEPS, elements) for tensor `t`."""
    n = torch.Size(t["shape"]).numel()
    if grad["kind"] == "random":
        return uniform((STEPS, n), t["grad_seed"], grad["scale"])
    g = uniform((STEPS, n), 0, 0.0)
    for s in range(STEPS):
        for i in range(n):
            if grad["kind"] == "constant" or (grad["kind"] == "spike" and s + 1 == grad["at"]):
                g[s, i] = grad["scale"]
            elif grad["kind"] == "alternating":
                g[s, i] = grad["scale"] if (s + 1 + i) % 2 == 0 else -grad["scale"]
    return g


def translate(family, options):
    """tern's options -> PyTorch's class and keyword arguments."""
    kw = {k: v for k, v in options.items() if k not in ("beta1", "beta2", "decay")}
    if family.startswith("adam"):
        kw["betas"] = [options.get("beta1", 0.9), options.get("beta2", 0.999)]
        kw.setdefault("weight_decay", 0.0)
        if options.get("decay") == "independent":   # w -= s_t lambda w: the coupled rule with lambda / lr
            kw["weight_decay"] = options["weight_decay"] / options["lr"]
    cls = {"sgd": "SGD", "adagrad": "Adagrad", "rmsprop": "RMSprop", "adamw": "AdamW"}.get(family, "Adam")
    return cls, kw


def spec(family, options):
    word = lambda v: ("on" if v else "off") if isinstance(v, bool) else str(v)
    return family + ":" + ",".join(f"{k}={word(v)}" for k, v in options.items())


def run(cls, kwargs, grad, mul, dtype=torch.float64, nudge=0.0):
    """The 50 steps; `nudge` changes gradients by that relative amount, to see how sensitive a case is."""
    w = [tensor(uniform(t["shape"], t["seed"], t["scale"]), dtype, True) for t in TENSORS]
    g = [torch.tensor(gradients(grad, t), dtype=torch.float64) for t in TENSORS]
    g = [(x * (1 + nudge * (-1.0) ** torch.arange(x.numel()).reshape(x.shape))).to(dtype) for x in g]
    groups = [dict(params=[p], **({} if t["decay"] else {"weight_decay": 0.0})) for p, t in zip(w, TENSORS)]
    opt = getattr(torch.optim, cls)(groups, **kwargs, foreach=False)
    weights = {t["name"]: {} for t in TENSORS}
    for s in range(STEPS):
        for group in opt.param_groups:
            group["lr"] = kwargs["lr"] * (mul[s] if mul else 1.0)
        for p, x in zip(w, g):
            p.grad = x[s].reshape(p.shape)
        opt.step()
        if s + 1 in SHOWN:
            for p, t in zip(w, TENSORS):
                weights[t["name"]][str(s + 1)] = flat(p)
    state = {t["name"]: {SLOTS[k]: flat(v) for k, v in opt.state[p].items() if k in SLOTS and v is not None}
             for p, t in zip(w, TENSORS)}
    return weights, state


def distance(a, b):
    """Largest |a - b| / max|b| over the recorded arrays."""
    worst = 0.0
    for one, two in zip(a, b):
        for name in two:
            for key, want in two[name].items():
                top = max(map(abs, want))
                diff = max(abs(x - y) for x, y in zip(one[name][key], want))
                assert top or not diff, "what is zero in one must be zero in both"
                worst = max(worst, diff / top if top else 0.0)
    return worst


def two_digits(x):
    return float(f"{x:.0e}")


def record(family, name, options, grad=RANDOM, mul=None, tol=1e-12):
    cls, kw = translate(family, options)
    want = run(cls, kw, grad, mul)
    bend = distance(run(cls, kw, grad, mul, nudge=2.0**-52), want)
    single = distance(run(cls, kw, grad, mul, torch.float32), want)
    return dict(name=name, spec=spec(family, options), torch=dict(**{"class": cls}, kwargs=kw), grad=grad,
                lr_mul=mul, tol=max(tol, two_digits(16 * bend)), tol_float=max(2e-5, two_digits(4 * single)),
                weights=want[0], state=want[1])


def sgd():
    yield "plain", dict(lr=0.1)
    yield "plain_1e-8", dict(lr=1e-8)
    yield "plain_1e4", dict(lr=1e4)
    yield "plain_wave", dict(lr=0.1), RANDOM, WAVE
    yield "l2", dict(lr=0.1, weight_decay=0.01)
    yield "l2_wave", dict(lr=0.1, weight_decay=0.25), RANDOM, WAVE
    yield "l2_zeros", dict(lr=0.1, weight_decay=0.01), ZEROS
    yield "momentum_l2", dict(lr=0.01, momentum=0.9, weight_decay=0.1)
    yield "momentum_l2_lr10", dict(lr=10.0, momentum=0.9, weight_decay=0.001)
    yield "momentum_near_one", dict(lr=0.01, momentum=0.999999)
    yield "momentum_wave", dict(lr=0.01, momentum=0.9), RANDOM, WAVE
    yield "dampening", dict(lr=0.01, momentum=0.9, dampening=0.9)
    yield "dampening_half_l2", dict(lr=0.01, momentum=0.5, dampening=0.5, weight_decay=0.1)
    yield "nesterov", dict(lr=0.01, momentum=0.9, nesterov=True)
    yield "nesterov_l2_wave", dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1), RANDOM, WAVE
    for g in SPECIAL:
        yield "momentum_" + g, dict(lr=0.01, momentum=0.9), SPECIAL[g]


def adagrad():
    yield "eps_1e-3", dict(lr=0.01, eps=1e-3)
    yield "eps_small_gradients", dict(lr=0.01, eps=1e-8), SMALL
    yield "lr_decay", dict(lr=0.1, lr_decay=0.1)
    yield "lr_decay_wave", dict(lr=0.1, lr_decay=0.01), RANDOM, WAVE
    yield "initial", dict(lr=0.1, initial_accumulator_value=0.5)
    yield "l2", dict(lr=0.01, weight_decay=0.1)
    yield "all", dict(lr=0.01, lr_decay=0.01, weight_decay=0.1, initial_accumulator_value=0.1, eps=1e-3)
    yield "lr_1e-8", dict(lr=1e-8)
    yield "lr_10", dict(lr=10.0)
    yield "lr_1e4", dict(lr=1e4)
    for g in SPECIAL:
        yield g, dict(lr=0.01), SPECIAL[g]


def rmsprop():
    yield "alpha_0.9", dict(lr=0.001, alpha=0.9)
    yield "alpha_0", dict(lr=0.001, alpha=0.0)
    yield "alpha_near_one", dict(lr=0.001, alpha=0.999999)
    yield "eps_1e-3", dict(lr=0.001, eps=1e-3)
    yield "eps_small_gradients", dict(lr=0.001), SMALL
    yield "centered", dict(lr=0.001, centered=True)
    yield "momentum", dict(lr=0.001, momentum=0.9)
    yield "momentum_wave", dict(lr=0.001, momentum=0.9), RANDOM, WAVE
    yield "centered_momentum_l2", dict(lr=0.001, alpha=0.9, centered=True, momentum=0.9, weight_decay=0.1)
    yield "l2", dict(lr=0.001, weight_decay=0.1)
    yield "lr_1e-8", dict(lr=1e-8)
    yield "lr_10", dict(lr=10.0)
    yield "lr_1e4", dict(lr=1e4)
    for g in SPECIAL:
        yield g, dict(lr=0.001), SPECIAL[g]


def adam_family(**extra):
    """Options that adam, adaml2 and adamw share; `extra` is the decay."""
    yield "lr_1e-8", dict(lr=1e-8, **extra)
    yield "lr_10", dict(lr=10.0, **extra)
    yield "wave", dict(lr=0.001, **extra), RANDOM, WAVE
    yield "eps_1e-3", dict(lr=0.001, eps=1e-3, **extra)
    yield "beta1_0", dict(lr=0.001, beta1=0.0, **extra)
    yield "beta2_0", dict(lr=0.001, beta2=0.0, **extra)
    # 1 - beta^t loses six digits here, so the last bit of the power decides about the tenth of the result.
    yield "beta1_near_one", dict(lr=0.001, beta1=0.999999, **extra), RANDOM, None, 1e-9
    yield "beta2_near_one", dict(lr=0.001, beta2=0.999999, **extra), RANDOM, None, 1e-9
    yield "large_gradients", dict(lr=0.001, **extra), LARGE
    yield "amsgrad", dict(lr=0.001, amsgrad=True, **extra)
    yield "amsgrad_beta2_0.5_wave", dict(lr=0.01, beta2=0.5, amsgrad=True, **extra), RANDOM, WAVE
    yield "amsgrad_spike", dict(lr=0.01, beta2=0.9, amsgrad=True, **extra), SPIKE
    for g in SPECIAL:
        yield g, dict(lr=0.001, **extra), SPECIAL[g]


def adam():
    yield from adam_family()
    yield "small_gradients", dict(lr=0.001), SMALL
    yield "lr_1e4", dict(lr=1e4)


def adaml2():
    yield from adam_family(weight_decay=0.1)
    yield "decay_1e-6_small_gradients", dict(lr=0.001, weight_decay=1e-6), SMALL
    yield "decay_10", dict(lr=0.001, weight_decay=10.0)
    yield "decay_0", dict(lr=0.001, weight_decay=0.0)


def adamw():
    yield from adam_family(weight_decay=0.1)
    yield "decay_1e-6_small_gradients", dict(lr=0.001, weight_decay=1e-6), SMALL
    yield "decay_10", dict(lr=0.001, weight_decay=10.0)
    yield "decay_0", dict(lr=0.001, weight_decay=0.0)
    yield "lr_1e4", dict(lr=1e4, weight_decay=1e-5)
    independent = dict(lr=2.0**-10, weight_decay=2.0**-7, decay="independent")
    yield "independent", independent
    yield "independent_wave", independent, RANDOM, WAVE
    yield "independent_zeros_wave", independent, ZEROS, WAVE


def main():
    setup()
    tensors = [dict(t, init=uniform(t["shape"], t["seed"], t["scale"]).reshape(-1).tolist()) for t in TENSORS]
    head = dict(steps=STEPS, shown=SHOWN, tensors=tensors)
    for family in (sgd, adagrad, rmsprop, adam, adaml2, adamw):
        cases = [record(family.__name__, *case) for case in family()]
        write(__file__, family.__name__, head, "cases", cases)
        for c in cases:
            if c["tol"] > 1e-12 or c["tol_float"] > 2e-5:
                print(f"   {c['name']}: tol {c['tol']}, tol_float {c['tol_float']}", file=sys.stderr)


if __name__ == "__main__":
    main()
