# SPDX-License-Identifier: MIT
import numpy as np
from optax import contrib

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = ("l = lr_t min(1, t / warmup_steps); q = t^r max(l so far)^weight_lr_power; c = q / (sum of q so far); v = b2 v + (1-b2) g^2; u = g / (sqrt(v / (1-b2^t)) + eps) + weight_decay y; "
              "y += c (z - y) - l (1 - b1 (1-c)) u; z -= l u; evaluated: y + (1 - 1/b1) (z - y)")
DEFAULTS = dict(lr=2.5e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0)


def step(t, y, g, state, o, lr_mul, wd_mul):
    real = y.dtype.type
    z = state.setdefault("z", y.copy())
    lr = o["lr"] * lr_mul * min(1.0, t / max(1, o["warmup_steps"]))
    state["most"] = max(state.get("most", 0.0), lr)
    q = t ** o["r"] * state["most"] ** o["weight_lr_power"]
    state["sum"] = state.get("sum", 0.0) + q
    c = q / state["sum"]
    state["v"] = real(o["beta2"]) * state.get("v", 0 * y) + real(1 - o["beta2"]) * g * g
    u = g / (np.sqrt(state["v"] / real(1 - o["beta2"] ** t)) + real(o["eps"]))
    u = u + real(o["weight_decay"] * wd_mul) * y
    y += real(c) * (z - y) - real(lr * (1 - o["beta1"] * (1 - c))) * u
    z -= real(lr) * u


REFERENCES = (
    Plain(step, ("z", "v"), "Defazio et al., arXiv:2405.15682, in the form of its authors' program",
          evaluated=lambda y, state, o: y + (1 - 1 / o["beta1"]) * (state["z"] - y)),
    Optax(lambda o, lr, mask: contrib.schedule_free_adamw(o["lr"], None, o["beta1"], o["beta2"], o["eps"], 0.0, o["weight_lr_power"]),
          lambda s: {"z": s.z}, lambda o: f"optax.contrib.schedule_free_adamw(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}, "
                    f"weight_lr_power={o['weight_lr_power']})",
          evaluated=lambda s, w: contrib.schedule_free_eval_params(s, w)),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY, only=("plain",))
    yield case("plain", dict(lr=0.01))
    yield case("wave", dict(lr=0.01, weight_decay=0.1), lr_mul=WAVE, only=("plain",))
    yield case("warmup", dict(lr=0.01, warmup_steps=8, weight_decay=0.1), only=("plain",))
    yield case("r_1", dict(lr=0.01, r=1.0, warmup_steps=4), only=("plain",))
    yield case("power_0", dict(lr=0.01, weight_lr_power=0.0))
    yield case("power_1_warmup", dict(lr=0.01, weight_lr_power=1.0, warmup_steps=5), only=("plain",))
    yield case("beta1_0.5", dict(lr=0.01, beta1=0.5))
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5))
    yield case("eps_small_gradients", dict(lr=0.01), "small")
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
