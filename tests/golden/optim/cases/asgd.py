# SPDX-License-Identifier: MIT
import torch

from core import EVERY, SPECIAL, WAVE, Plain, Torch, case

DEFINITION = ("eta = lr_t / (1 + lambd lr_t (t-1))^alpha; g = g + weight_decay w; w = (1 - lambd eta) w - eta g; "
              "ax += (w - ax) / max(1, t - 1 - t0); ax is evaluated")
DEFAULTS = dict(lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0)


def step(t, w, g, state, o, lr_mul, wd_mul):
    lr = o["lr"] * lr_mul
    eta = lr / (1 + o["lambd"] * lr * (t - 1)) ** o["alpha"]
    g = g + w * w.dtype.type(o["weight_decay"] * wd_mul)
    w -= w * w.dtype.type(o["lambd"] * eta) + w.dtype.type(eta) * g
    ax = state.setdefault("ax", w.copy())
    ax += (w - ax) * w.dtype.type(1 / max(1, t - 1 - o["t0"]))


class Wide(Torch):
    """PyTorch keeps eta and mu as tensors of the default type, in float even for weights in double: here in double."""

    def run(self, r, options):
        torch.set_default_dtype(torch.float64)
        try:
            return super().run(r, options)
        finally:
            torch.set_default_dtype(torch.float32)


REFERENCES = (
    Wide(lambda o: ("ASGD", o), {"ax": "ax"}),
    Plain(step, ("ax",), "Polyak and Juditsky 1992", evaluated=lambda w, state, o: state["ax"]),
)


def cases():
    yield case("every_step", dict(lr=0.1, lambd=0.1, t0=5.0, weight_decay=0.1), shown=EVERY)
    yield case("averaged", dict(lr=0.1, t0=3.0), only=("plain",), note="with the weights to evaluate with")
    yield case("wave", dict(lr=0.1, lambd=0.1, t0=3.0), lr_mul=WAVE, only=("plain",),
               note="the rate of this step; PyTorch's eta is made of the rate of the step before")
    yield case("lambd", dict(lr=0.1, lambd=0.5, alpha=0.5))
    yield case("alpha_0", dict(lr=0.1, lambd=0.1, alpha=0.0))
    yield case("l2", dict(lr=0.1, weight_decay=0.5, t0=0.0))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01, t0=4.0), g)
