# SPDX-License-Identifier: MIT
import optax

from core import WAVE, Optax, Torch, case

from . import _adam

DEFINITION = ("adam's step, and beside it w -= s w of the w before it; decay=coupled: s = lr_t weight_decay; "
              "decay=independent: s = s_t weight_decay, s_t the schedule's multiplier")
DEFAULTS = dict(_adam.DEFAULTS, weight_decay=1e-2, decay="coupled")


def kwargs(o):
    kw = _adam.kwargs(o)
    if o["decay"] == "independent":   # w -= s_t lambda w: the coupled rule with lambda / lr
        kw["weight_decay"] = o["weight_decay"] / o["lr"]
    return kw


REFERENCES = (
    Torch(lambda o: ("AdamW", kwargs(o)), _adam.SLOTS),
    Optax(lambda o, lr, mask: optax.adamw(lr, o["beta1"], o["beta2"], o["eps"], weight_decay=kwargs(o)["weight_decay"],
                                          mask=mask), _adam.moments,
          lambda o: f"optax.adamw(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}, "
                    f"weight_decay={kwargs(o)['weight_decay']}, mask=mask)"),
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
