# SPDX-License-Identifier: MIT
import numpy as np
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = ("d = g - prev, 0 at step 1; prev = g; m = b1 m + (1-b1) g; v = b2 v + (1-b2) d; n = b3 n + (1-b3) (g + b2 d)^2; "
              "u = (m / (1-b1^t) + b2 v / (1-b2^t)) / (sqrt(n / (1-b3^t)) + eps); w = (w - lr_t u) / (1 + lr_t weight_decay), "
              "or with no_prox w = (1 - lr_t weight_decay) w - lr_t u")
DEFAULTS = dict(lr=1e-3, beta1=0.98, beta2=0.92, beta3=0.99, eps=1e-8, weight_decay=0.0, no_prox=False)


def step(t, w, g, state, o, lr_mul, wd_mul):
    real = w.dtype.type
    d = g - state.get("prev", g)
    mix = lambda name, beta, x: state.update({name: real(beta) * state.get(name, 0 * w) + real(1 - beta) * x})
    mix("m", o["beta1"], g)
    mix("v", o["beta2"], d)
    mix("n", o["beta3"], (g + real(o["beta2"]) * d) ** 2)
    state["prev"] = g.copy()
    hat = lambda name, beta: state[name] / real(1 - beta ** t)
    u = (hat("m", o["beta1"]) + real(o["beta2"]) * hat("v", o["beta2"])) / (np.sqrt(hat("n", o["beta3"])) + real(o["eps"]))
    lr, decay = o["lr"] * lr_mul, o["weight_decay"] * wd_mul
    if o["no_prox"]:
        w *= real(1 - lr * decay)
        w -= real(lr) * u
    else:
        w -= real(lr) * u
        w /= real(1 + lr * decay)


REFERENCES = (
    Plain(step, ("m", "v", "n", "prev"), "Xie et al., arXiv:2208.06677, Algorithm 1; betas are 1 minus the paper's"),
    Optax(lambda o, lr, mask: optax.adan(lr, o["beta1"], o["beta2"], o["beta3"], o["eps"], 0.0, o["weight_decay"],
                                         mask=mask),
          lambda s: {},
          lambda o: f"optax.adan(lr, b1={o['beta1']}, b2={o['beta2']}, b3={o['beta3']}, eps={o['eps']}, eps_root=0, "
                    f"weight_decay={o['weight_decay']}, mask=mask)",
          differs="optax weighs the change of the gradient by 1 - b2 where the paper and its authors' program have b2, once the "
                  "paper's betas are turned round; with beta2=0.5 they agree"),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY, only=("plain",))
    yield case("optax", dict(lr=0.01, weight_decay=0.1, no_prox=True), note="where optax differs")
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5, weight_decay=0.1, no_prox=True), note="where optax agrees")
    yield case("beta2_0.5_wave", dict(lr=0.01, beta2=0.5, weight_decay=0.1, no_prox=True), lr_mul=WAVE)
    yield case("wave", dict(lr=0.01, weight_decay=0.5), lr_mul=WAVE, only=("plain",))
    yield case("decay_wave", dict(lr=0.01, weight_decay=0.5), wd_mul=WAVE, only=("plain",))
    yield case("no_prox_decay_10", dict(lr=0.01, weight_decay=10.0, no_prox=True), only=("plain",))
    yield case("beta1_0", dict(lr=0.01, beta1=0.0), only=("plain",))
    yield case("beta3_0.5", dict(lr=0.01, beta3=0.5), only=("plain",))
    yield case("eps_small_gradients", dict(lr=0.01), "small", only=("plain",))
    for g in (s for s in SPECIAL if s != "tiny"):  # v is exactly 0 there, and the last bit of a gradient decides
        yield case(g, dict(lr=0.01, beta2=0.5, no_prox=True), g)
