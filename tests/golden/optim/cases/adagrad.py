# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("g = g + weight_decay w; sum += g^2 (from initial_accumulator_value); "
              "w -= lr_t / (1 + (t-1) lr_decay) g / (sqrt(sum) + eps)")
DEFAULTS = dict(lr=0.01, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10)
REFERENCES = (Torch(lambda o: ("Adagrad", o), {"sum": "sum"}),)


def cases():
    yield case("defaults", {})
    yield case("every_step", dict(lr=0.1, weight_decay=0.1), shown=EVERY)
    yield case("eps_1e-3", dict(lr=0.01, eps=1e-3))
    yield case("eps_small_gradients", dict(lr=0.01, eps=1e-8), "small")
    yield case("lr_decay", dict(lr=0.1, lr_decay=0.1))
    yield case("lr_decay_wave", dict(lr=0.1, lr_decay=0.01), lr_mul=WAVE)
    yield case("initial", dict(lr=0.1, initial_accumulator_value=0.5))
    yield case("l2", dict(lr=0.01, weight_decay=0.1))
    yield case("all", dict(lr=0.01, lr_decay=0.01, weight_decay=0.1, initial_accumulator_value=0.1, eps=1e-3))
    yield case("lr_1e-8", dict(lr=1e-8))
    yield case("lr_10", dict(lr=10.0))
    yield case("lr_1e4", dict(lr=1e4))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
