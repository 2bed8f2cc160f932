# SPDX-License-Identifier: MIT
"""What the two schedule-free families share: the averages, and most of the cases. beta: the name of their option."""
from core import EVERY, SPECIAL, WAVE, Plain, case

RATE = "l = lr_t min(1, t / warmup_steps); q = t^r max(l so far)^weight_lr_power; c = q / (sum of q so far); "
DEFAULTS = dict(weight_decay=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0)


def average(beta):
    return f"y += c (z - y) - l (1 - {beta} (1-c)) u; z -= l u; evaluated: y + (1 - 1/{beta}) (z - y)"


def plain(beta, slots, direction):
    """direction(t, g, state, o): u without its decay."""

    def step(t, y, g, state, o, lr_mul, wd_mul):
        real = y.dtype.type
        z = state.setdefault("z", y.copy())
        lr = o["lr"] * lr_mul * min(1.0, t / max(1, o["warmup_steps"]))
        state["most"] = max(state.get("most", 0.0), lr)
        q = t ** o["r"] * state["most"] ** o["weight_lr_power"]
        state["sum"] = state.get("sum", 0.0) + q
        c = q / state["sum"]
        u = direction(t, g, state, o)
        u = u + real(o["weight_decay"] * wd_mul) * y
        y += real(c) * (z - y) - real(lr * (1 - o[beta] * (1 - c))) * u
        z -= real(lr) * u

    return Plain(step, slots, "Defazio et al., arXiv:2405.15682, in the form of its authors' program",
                 evaluated=lambda y, state, o: y + (1 - 1 / o[beta]) * (state["z"] - y))


def cases(lr, *more):
    """more: (name, options, gradients) after the common ones. optax has no decay, and another warm-up."""
    own = dict(only=("plain",))
    yield case("every_step", dict(lr=lr, weight_decay=0.1), shown=EVERY, **own)
    yield case("plain", dict(lr=lr))
    yield case("wave", dict(lr=lr, weight_decay=0.1), lr_mul=WAVE, **own)
    yield case("warmup", dict(lr=lr, warmup_steps=8, weight_decay=0.1), **own)
    yield case("r_1", dict(lr=lr, r=1.0, warmup_steps=4), **own)
    yield case("power_0", dict(lr=lr, weight_lr_power=0.0))
    yield case("power_1_warmup", dict(lr=lr, weight_lr_power=1.0, warmup_steps=5), **own)
    for name, options, gradients in more:
        yield case(name, dict(lr=lr, **options), gradients)
    for g in SPECIAL:
        yield case(g, dict(lr=lr), g)
