# SPDX-License-Identifier: MIT
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Torch, case

DEFINITION = ("g = g + weight_decay w, or with decoupled_weight_decay w -= lr_t weight_decay w first; m = b1 m + (1-b1) g; "
              "v = b2 v + (1-b2) g^2; R = 2 / (1-b2) - 1; rho = R - 2 t b2^t / (1 - b2^t); rho > 5: r = sqrt((rho-4) (rho-2) R "
              "/ ((R-4) (R-2) rho)), w -= lr_t / (1 - b1^t) r sqrt(1 - b2^t) m / (sqrt(v) + eps); else w -= lr_t / (1 - b1^t) m")
DEFAULTS = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False)


def kwargs(o):
    return dict(lr=o["lr"], betas=[o["beta1"], o["beta2"]], eps=o["eps"], weight_decay=o["weight_decay"],
                decoupled_weight_decay=o["decoupled_weight_decay"])


REFERENCES = (
    Torch(lambda o: ("RAdam", kwargs(o)), {"exp_avg": "m", "exp_avg_sq": "v"}),
    Optax(lambda o, lr, mask: optax.radam(lr, o["beta1"], o["beta2"], o["eps"]), lambda s: {},
          lambda o: f"optax.radam(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']})",
          differs="optax adds eps to the root after the bias correction of v, and has no decay here"),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY, only=("torch",))
    yield case("wave", dict(lr=0.01), lr_mul=WAVE)
    yield case("beta1_0", dict(lr=0.01, beta1=0.0), only=("torch",))
    yield case("beta2_0.9", dict(lr=0.01, beta2=0.9), only=("torch",))
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5), only=("torch",), note="rho never exceeds 5")
    yield case("eps_1e-3", dict(lr=0.01, eps=1e-3))
    yield case("eps_small_gradients", dict(lr=0.01), "small")
    yield case("decoupled", dict(lr=0.01, weight_decay=0.5, decoupled_weight_decay=True), only=("torch",))
    yield case("decoupled_wave", dict(lr=0.01, weight_decay=0.5, decoupled_weight_decay=True), lr_mul=WAVE,
               only=("torch",))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g, only=("torch",))
