# SPDX-License-Identifier: MIT
from optax import contrib

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = ("l = lr_t min(1, t / warmup_steps); q = t^r max(l so far)^weight_lr_power; c = q / (sum of q so far); u = g + weight_decay y; "
              "y += c (z - y) - l (1 - momentum (1-c)) u; z -= l u; evaluated: y + (1 - 1/momentum) (z - y)")
DEFAULTS = dict(lr=1.0, momentum=0.9, weight_decay=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0)


def step(t, y, g, state, o, lr_mul, wd_mul):
    real = y.dtype.type
    z = state.setdefault("z", y.copy())
    lr = o["lr"] * lr_mul * min(1.0, t / max(1, o["warmup_steps"]))
    state["most"] = max(state.get("most", 0.0), lr)
    q = t ** o["r"] * state["most"] ** o["weight_lr_power"]
    state["sum"] = state.get("sum", 0.0) + q
    c = q / state["sum"]
    u = g
    u = u + real(o["weight_decay"] * wd_mul) * y
    y += real(c) * (z - y) - real(lr * (1 - o["momentum"] * (1 - c))) * u
    z -= real(lr) * u


REFERENCES = (
    Plain(step, ("z",), "Defazio et al., arXiv:2405.15682, in the form of its authors' program",
          evaluated=lambda y, state, o: y + (1 - 1 / o["momentum"]) * (state["z"] - y)),
    Optax(lambda o, lr, mask: contrib.schedule_free_sgd(o["lr"], None, o["momentum"], weight_lr_power=o["weight_lr_power"]),
          lambda s: {"z": s.z}, lambda o: f"optax.contrib.schedule_free_sgd(lr, b1={o['momentum']}, "
                    f"weight_lr_power={o['weight_lr_power']})",
          evaluated=lambda s, w: contrib.schedule_free_eval_params(s, w)),
)


def cases():
    yield case("every_step", dict(lr=0.1, weight_decay=0.1), shown=EVERY, only=("plain",))
    yield case("plain", dict(lr=0.1))
    yield case("wave", dict(lr=0.1, weight_decay=0.1), lr_mul=WAVE, only=("plain",))
    yield case("warmup", dict(lr=0.1, warmup_steps=8, weight_decay=0.1), only=("plain",))
    yield case("r_1", dict(lr=0.1, r=1.0, warmup_steps=4), only=("plain",))
    yield case("power_0", dict(lr=0.1, weight_lr_power=0.0))
    yield case("power_1_warmup", dict(lr=0.1, weight_lr_power=1.0, warmup_steps=5), only=("plain",))
    yield case("momentum_0.5", dict(lr=0.1, momentum=0.5))
    for g in SPECIAL:
        yield case(g, dict(lr=0.1), g)
