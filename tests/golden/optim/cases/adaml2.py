# SPDX-License-Identifier: MIT
import optax

from core import Optax, Torch, case

from . import _adam

DEFINITION = "adam with g + weight_decay w in the place of g, in both moments"
DEFAULTS = dict(_adam.DEFAULTS, weight_decay=1e-4)
REFERENCES = (
    Torch(lambda o: ("Adam", _adam.kwargs(o)), _adam.SLOTS),
    Optax(lambda o, lr, mask: optax.chain(optax.add_decayed_weights(o["weight_decay"], mask),
                                          optax.scale_by_adam(o["beta1"], o["beta2"], o["eps"]),
                                          optax.scale_by_learning_rate(lr)), _adam.moments,
          lambda o: f"optax.chain(add_decayed_weights({o['weight_decay']}, mask), "
                    f"scale_by_adam({o['beta1']}, {o['beta2']}, {o['eps']}), scale_by_learning_rate(lr))"),
)


def cases():
    yield from _adam.cases(weight_decay=0.1)
    yield case("decay_1e-6_small_gradients", dict(lr=0.001, weight_decay=1e-6), "small")
    yield case("decay_10", dict(lr=0.001, weight_decay=10.0))
    yield case("decay_0", dict(lr=0.001, weight_decay=0.0))
