# SPDX-License-Identifier: MIT
from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("b = 1 - t^beta2_decay; R = b R + (1-b) row means of g^2, C likewise of columns, V = R C / max(mean R, eps1) for "
              "the last two dimensions; one dimension: V = b V + (1-b) g^2; u = g / sqrt(max(V, eps1^2)); "
              "a = max(eps2, rms w) min(lr_t, 1/sqrt(t)); w = (1 - lr_t weight_decay) w - a / max(1, rms(u) / d) u")
DEFAULTS = dict(lr=1e-2, beta2_decay=-0.8, eps1=2.0**-23, eps2=1e-3, d=1.0, weight_decay=0.0)
TENSORS = [
    dict(name="weight", shape=[3, 5], decay=True, seed=101),
    dict(name="bias", shape=[7], decay=False, seed=102),
    dict(name="filters", shape=[2, 3, 2, 3], decay=True, seed=103),
]
REFERENCES = (
    Torch(lambda o: ("Adafactor", dict(lr=o["lr"], beta2_decay=o["beta2_decay"], eps=[o["eps1"], o["eps2"]], d=o["d"],
                                       weight_decay=o["weight_decay"])),
          {"row_var": "row_var", "col_var": "col_var", "variance": "variance"}),
)


def cases():
    eps = dict(eps1=2.0**-23)
    yield case("every_step", dict(lr=0.01, weight_decay=0.1, **eps), shown=EVERY)
    yield case("lr_1", dict(lr=1.0, **eps), note="1/sqrt(t) is the smaller from step 1 on")
    yield case("wave", dict(lr=0.1, weight_decay=0.1, **eps), lr_mul=WAVE)
    yield case("decay_wave", dict(lr=0.1, weight_decay=0.5, **eps), wd_mul=WAVE)
    yield case("beta2_decay_-0.5", dict(lr=0.01, beta2_decay=-0.5, **eps))
    yield case("eps1_0.1", dict(lr=0.01, eps1=0.1))
    yield case("eps2_10", dict(lr=0.01, eps2=10.0, **eps))
    yield case("d_2", dict(lr=0.01, d=2.0, **eps))
    yield case("small_gradients", dict(lr=0.01, **eps), "small")
    yield case("large_gradients", dict(lr=0.01, **eps), "large")
    for g in SPECIAL:
        yield case(g, dict(lr=0.01, **eps), g)
