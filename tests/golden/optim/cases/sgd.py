# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Plain, Torch, case

DEFINITION = ("decay=l2: g = g + weight_decay w. With momentum: buf = momentum buf + (1-dampening) g, the first g undamped; "
              "u = buf, nesterov: u = g + momentum buf; without: u = g. w -= lr_t u; "
              "decay=decoupled: w -= lr_t weight_decay w + lr_t u, w of before the step")
DEFAULTS = dict(lr=0.001, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, decay="l2")


def translate(o):
    return "SGD", {k: v for k, v in o.items() if k != "decay"}


def step(t, w, g, state, o, lr_mul, wd_mul):
    lr, wd = o["lr"] * lr_mul, o["weight_decay"] * wd_mul
    u = g + wd * w if o["decay"] == "l2" else g.copy()
    if o["momentum"]:
        buf = u.copy() if t == 1 else o["momentum"] * state["momentum_buffer"] + (1 - o["dampening"]) * u
        state["momentum_buffer"] = buf
        u = u + o["momentum"] * buf if o["nesterov"] else buf
    if o["decay"] == "decoupled":
        w -= lr * wd * w
    w -= lr * u


REFERENCES = (
    Torch(translate, {"momentum_buffer": "momentum_buffer"}),
    Plain(step, ("momentum_buffer",), "Loshchilov and Hutter, arXiv:1711.05101, Algorithm 1, coupled"),
)


def cases():
    yield case("defaults", {})
    yield case("every_step", dict(lr=0.1, momentum=0.9, weight_decay=0.01), shown=EVERY)
    yield case("plain", dict(lr=0.1))
    yield case("plain_1e-8", dict(lr=1e-8))
    yield case("plain_1e4", dict(lr=1e4))
    yield case("plain_wave", dict(lr=0.1), lr_mul=WAVE)
    yield case("l2", dict(lr=0.1, weight_decay=0.01))
    yield case("l2_wave", dict(lr=0.1, weight_decay=0.25), lr_mul=WAVE)
    yield case("l2_decay_wave", dict(lr=0.1, weight_decay=0.25), wd_mul=WAVE)
    yield case("l2_zeros", dict(lr=0.1, weight_decay=0.01), "zeros")
    yield case("momentum_l2", dict(lr=0.01, momentum=0.9, weight_decay=0.1))
    yield case("momentum_l2_lr10", dict(lr=10.0, momentum=0.9, weight_decay=0.001))
    yield case("momentum_near_one", dict(lr=0.01, momentum=0.999999))
    yield case("momentum_wave", dict(lr=0.01, momentum=0.9), lr_mul=WAVE)
    yield case("dampening", dict(lr=0.01, momentum=0.9, dampening=0.9))
    yield case("dampening_half_l2", dict(lr=0.01, momentum=0.5, dampening=0.5, weight_decay=0.1))
    yield case("nesterov", dict(lr=0.01, momentum=0.9, nesterov=True))
    yield case("nesterov_l2_wave", dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1), lr_mul=WAVE)
    yield case("decoupled", dict(lr=0.1, weight_decay=0.25, decay="decoupled"), only=("plain",))
    yield case("decoupled_momentum_wave", dict(lr=0.01, momentum=0.9, weight_decay=0.25, decay="decoupled"),
               lr_mul=WAVE, only=("plain",))
    for g in SPECIAL:
        yield case("momentum_" + g, dict(lr=0.01, momentum=0.9), g)
