# SPDX-License-Identifier: MIT
import numpy as np
import optax

from core import WAVE, Optax, Plain, Torch, case

from . import _adam

DEFINITION = ("adam's step, and beside it w -= s w of the w before it; decay=coupled: s = lr_t weight_decay; "
              "decay=independent: s = s_t weight_decay, s_t the schedule's multiplier; decay=corrected: s = lr_t^2 / lr weight_decay; "
              "cautious: only where m w >= 0")
DEFAULTS = dict(_adam.DEFAULTS, weight_decay=1e-2, decay="coupled", cautious=False)


def kwargs(o):
    kw = _adam.kwargs(o)
    if o["decay"] == "independent":   # w -= s_t lambda w: the coupled rule with lambda / lr
        kw["weight_decay"] = o["weight_decay"] / o["lr"]
    return kw


def step(t, w, g, state, o, lr_mul, wd_mul):
    real, b1, b2 = w.dtype.type, o["beta1"], o["beta2"]
    m = state["m"] = real(b1) * state.get("m", 0 * w) + real(1 - b1) * g
    v = state["v"] = real(b2) * state.get("v", 0 * w) + real(1 - b2) * g * g
    if o["amsgrad"]:
        v = state["vmax"] = np.maximum(state.get("vmax", 0 * w), v)
    u = m / real(1 - b1 ** t) / (np.sqrt(v / real(1 - b2 ** t)) + real(o["eps"]))
    s = {"coupled": o["lr"] * lr_mul, "independent": lr_mul, "corrected": (o["lr"] * lr_mul) ** 2 / o["lr"]}[o["decay"]]
    s *= o["weight_decay"] * wd_mul
    decays = u * w >= 0 if o["cautious"] else np.ones_like(w, bool)
    w -= real(o["lr"] * lr_mul) * u + np.where(decays, real(s) * w, 0)


REFERENCES = (
    Torch(lambda o: ("AdamW", kwargs(o)), _adam.SLOTS),
    Optax(lambda o, lr, mask: optax.adamw(lr, o["beta1"], o["beta2"], o["eps"], weight_decay=kwargs(o)["weight_decay"],
                                          mask=mask), _adam.moments,
          lambda o: f"optax.adamw(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}, "
                    f"weight_decay={kwargs(o)['weight_decay']}, mask=mask)"),
    Plain(step, ("m", "v", "vmax"), "Loshchilov and Hutter, arXiv:1711.05101; corrected: Defazio, arXiv:2506.02285, and timm's corrected "
                            "weight decay; cautious: Chen et al., arXiv:2510.12402, Algorithm 1"),
)


def cases():
    yield from _adam.cases(weight_decay=0.1)
    yield case("decay_1e-6_small_gradients", dict(lr=0.001, weight_decay=1e-6), "small")
    yield case("decay_10", dict(lr=0.001, weight_decay=10.0))
    yield case("decay_0", dict(lr=0.001, weight_decay=0.0))
    yield case("lr_1e4", dict(lr=1e4, weight_decay=1e-5))
    yield case("decay_wave", dict(lr=0.01, weight_decay=0.5), wd_mul=WAVE, only=("torch",))
    independent = dict(lr=2.0**-10, weight_decay=2.0**-7, decay="independent")
    yield case("independent", independent)
    yield case("independent_wave", independent, lr_mul=WAVE)
    yield case("independent_zeros_wave", independent, "zeros", lr_mul=WAVE)
    for name, options in (("corrected", dict(decay="corrected")), ("cautious", dict(cautious=True)),
                          ("cautious_independent", dict(decay="independent", cautious=True))):
        yield case(name, dict(lr=0.05, weight_decay=0.5, **options), only=("plain",))
        yield case(name + "_wave", dict(lr=0.05, weight_decay=0.5, **options), lr_mul=WAVE, only=("plain",))
