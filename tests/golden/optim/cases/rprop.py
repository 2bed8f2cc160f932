# SPDX-License-Identifier: MIT
import numpy as np

from core import EVERY, SPECIAL, WAVE, Plain, Torch, case

DEFINITION = ("f = etaplus, etaminus, 1 where sign(g) sign(prev) is 1, -1, 0; step = min(max(f step, step_size_min), "
              "step_size_max), lr before the first; g = 0 where f is etaminus; w -= sign(g) step; prev = g; "
              "a schedule's multiplier scales the step, and not the step size")
DEFAULTS = dict(lr=1e-2, etaminus=0.5, etaplus=1.2, step_size_min=1e-6, step_size_max=50.0)


def step(t, w, g, state, o, lr_mul, wd_mul):
    size = state.setdefault("step_size", np.full_like(w, o["lr"]))
    prev = state.setdefault("prev", np.zeros_like(w))
    turn = np.sign(g) * np.sign(prev)
    size *= np.where(turn > 0, o["etaplus"], np.where(turn < 0, o["etaminus"], 1.0)).astype(w.dtype)
    np.clip(size, o["step_size_min"], o["step_size_max"], out=size)
    prev[...] = np.where(turn < 0, 0, g)
    w -= np.asarray(lr_mul, w.dtype) * np.sign(prev) * size


REFERENCES = (
    Torch(lambda o: ("Rprop", dict(lr=o["lr"], etas=[o["etaminus"], o["etaplus"]],
                                   step_sizes=[o["step_size_min"], o["step_size_max"]])),
          {"prev": "prev", "step_size": "step_size"}),
    Plain(step, ("prev", "step_size"), "Riedmiller and Braun, ICNN 1993"),
)


def cases():
    yield case("every_step", dict(lr=0.01), shown=EVERY)
    yield case("wave", dict(lr=0.01), lr_mul=WAVE, only=("plain",),
               note="a schedule; PyTorch reads lr at the first step alone")
    yield case("etas", dict(lr=0.01, etaminus=0.25, etaplus=2.0))
    yield case("limits", dict(lr=0.01, step_size_min=0.008, step_size_max=0.012))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
