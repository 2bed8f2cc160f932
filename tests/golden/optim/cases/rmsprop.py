# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("g = g + weight_decay w; square_avg = alpha square_avg + (1-alpha) g^2; centered: grad_avg likewise of g, "
              "its square is subtracted; u = g / (sqrt(...) + eps); momentum: buf = momentum buf + u, u = buf; w -= lr_t u")
DEFAULTS = dict(lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False)
REFERENCES = (Torch(lambda o: ("RMSprop", o), {"square_avg": "square_avg", "grad_avg": "grad_avg",
                                               "momentum_buffer": "momentum_buffer"}),)


def cases():
    yield case("defaults", {})
    yield case("every_step", dict(lr=0.001, momentum=0.9, weight_decay=0.1), shown=EVERY)
    yield case("alpha_0.9", dict(lr=0.001, alpha=0.9))
    yield case("alpha_0", dict(lr=0.001, alpha=0.0))
    yield case("alpha_near_one", dict(lr=0.001, alpha=0.999999))
    yield case("eps_1e-3", dict(lr=0.001, eps=1e-3))
    yield case("eps_small_gradients", dict(lr=0.001), "small")
    yield case("centered", dict(lr=0.001, centered=True))
    yield case("momentum", dict(lr=0.001, momentum=0.9))
    yield case("momentum_wave", dict(lr=0.001, momentum=0.9), lr_mul=WAVE)
    yield case("centered_momentum_l2", dict(lr=0.001, alpha=0.9, centered=True, momentum=0.9, weight_decay=0.1))
    yield case("l2", dict(lr=0.001, weight_decay=0.1))
    yield case("lr_1e-8", dict(lr=1e-8))
    yield case("lr_10", dict(lr=10.0))
    yield case("lr_1e4", dict(lr=1e4))
    for g in SPECIAL:
        yield case(g, dict(lr=0.001), g)
