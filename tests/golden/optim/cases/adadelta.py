# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("g = g + weight_decay w; square_avg = rho square_avg + (1-rho) g^2; "
              "delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) g; "
              "acc_delta = rho acc_delta + (1-rho) delta^2; w -= lr_t delta")
DEFAULTS = dict(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0)
REFERENCES = (Torch(lambda o: ("Adadelta", o), {"square_avg": "square_avg", "acc_delta": "acc_delta"}),)


def cases():
    yield case("every_step", dict(lr=1.0, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=1.0), lr_mul=WAVE)
    yield case("rho_0", dict(rho=0.0))
    yield case("rho_0.5", dict(rho=0.5))
    yield case("eps_1e-3", dict(eps=1e-3))
    yield case("small_gradients", dict(lr=10.0), "small")
    yield case("l2_wave", dict(weight_decay=0.5), wd_mul=WAVE)
    for g in SPECIAL:
        yield case(g, dict(lr=0.5), g)
