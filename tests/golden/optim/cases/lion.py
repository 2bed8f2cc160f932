# SPDX-License-Identifier: MIT
import optax

from core import EVERY, SPECIAL, WAVE, Optax, case

DEFINITION = "u = sign(b1 m + (1-b1) g); w -= lr_t (u + weight_decay w); m = b2 m + (1-b2) g"
DEFAULTS = dict(lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=1e-3)
REFERENCES = (
    Optax(lambda o, lr, mask: optax.lion(lr, o["beta1"], o["beta2"], weight_decay=o["weight_decay"], mask=mask),
          lambda s: {"m": s[0].mu},
          lambda o: f"optax.lion(lr, b1={o['beta1']}, b2={o['beta2']}, weight_decay={o['weight_decay']}, mask=mask)"),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.01), lr_mul=WAVE)
    yield case("beta1_0.5", dict(lr=0.01, beta1=0.5))
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5))
    yield case("beta1_0", dict(lr=0.01, beta1=0.0))
    yield case("decay_wave", dict(lr=0.01, weight_decay=1.0), lr_mul=WAVE)
    yield case("small_gradients", dict(lr=0.01), "small")
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
