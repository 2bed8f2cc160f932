# SPDX-License-Identifier: MIT
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Torch, case

DEFINITION = ("g = g + weight_decay w; m = b1 m + (1-b1) g; u = max(b2 u, |g| + eps); "
              "w -= lr_t / (1 - b1^t) m / u")
DEFAULTS = dict(lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)


def kwargs(o):
    return dict(lr=o["lr"], betas=[o["beta1"], o["beta2"]], eps=o["eps"], weight_decay=o["weight_decay"])


REFERENCES = (
    Torch(lambda o: ("Adamax", kwargs(o)), {"exp_avg": "m", "exp_inf": "u"}),
    Optax(lambda o, lr, mask: optax.chain(optax.add_decayed_weights(o["weight_decay"], mask),
                                          optax.adamax(lr, o["beta1"], o["beta2"], o["eps"])),
          lambda s: {},
          lambda o: f"optax.chain(optax.add_decayed_weights({o['weight_decay']}, mask), "
                    f"optax.adamax(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}))"),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.01), lr_mul=WAVE)
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5))
    yield case("beta1_0", dict(lr=0.01, beta1=0.0))
    yield case("eps_1e-3", dict(lr=0.01, eps=1e-3))
    yield case("eps_small_gradients", dict(lr=0.01), "small")
    yield case("l2_wave", dict(lr=0.01, weight_decay=0.5), lr_mul=WAVE)
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
