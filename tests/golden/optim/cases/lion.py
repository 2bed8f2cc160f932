# SPDX-License-Identifier: MIT
import numpy as np
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = "u = sign(b1 m + (1-b1) g); w -= lr_t (u + weight_decay w); m = b2 m + (1-b2) g"
DEFAULTS = dict(lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=1e-3)
def step(t, w, g, state, o, lr_mul, wd_mul):
    """Algorithm 2, line by line: update, weights, then the average that the next step begins with."""
    real = w.dtype.type
    m = state.setdefault("m", np.zeros_like(w))
    c = real(o["beta1"]) * m + real(1 - o["beta1"]) * g
    w -= real(o["lr"] * lr_mul) * (np.sign(c) + real(o["weight_decay"] * wd_mul) * w)
    m[...] = real(o["beta2"]) * m + real(1 - o["beta2"]) * g


REFERENCES = (
    Optax(lambda o, lr, mask: optax.lion(lr, o["beta1"], o["beta2"], weight_decay=o["weight_decay"], mask=mask),
          lambda s: {"m": s[0].mu},
          lambda o: f"optax.lion(lr, b1={o['beta1']}, b2={o['beta2']}, weight_decay={o['weight_decay']}, mask=mask)"),
    Plain(step, ("m",), "Chen et al., arXiv:2302.06675, Algorithm 2"),
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
