# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), P_t = mu_1 ... mu_t; g = g + weight_decay w, or with "
              "decoupled_weight_decay w -= lr_t weight_decay w first; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; "
              "w -= lr_t ((1 - mu_t) / (1 - P_t) g + mu_(t+1) / (1 - P_(t+1)) m) / (sqrt(v / (1 - b2^t)) + eps)")
DEFAULTS = dict(lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
                decoupled_weight_decay=False)


def kwargs(o):
    return dict(lr=o["lr"], betas=[o["beta1"], o["beta2"]], eps=o["eps"], weight_decay=o["weight_decay"],
                momentum_decay=o["momentum_decay"], decoupled_weight_decay=o["decoupled_weight_decay"])


REFERENCES = (Torch(lambda o: ("NAdam", kwargs(o)), {"exp_avg": "m", "exp_avg_sq": "v"}),)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.01), lr_mul=WAVE)
    yield case("beta1_0.5", dict(lr=0.01, beta1=0.5))
    yield case("beta1_0", dict(lr=0.01, beta1=0.0))
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5))
    yield case("eps_small_gradients", dict(lr=0.01), "small")
    yield case("momentum_decay_0", dict(lr=0.01, momentum_decay=0.0))
    yield case("momentum_decay_1", dict(lr=0.01, momentum_decay=1.0))
    yield case("decoupled", dict(lr=0.01, weight_decay=0.5, decoupled_weight_decay=True))
    yield case("decoupled_wave", dict(lr=0.01, weight_decay=0.5, decoupled_weight_decay=True), lr_mul=WAVE)
    yield case("decay_wave", dict(lr=0.01, weight_decay=0.5, decoupled_weight_decay=True), wd_mul=WAVE)
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
