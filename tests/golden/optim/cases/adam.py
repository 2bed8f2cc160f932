# SPDX-License-Identifier: MIT
import optax

from core import Optax, Torch, case

from . import _adam

DEFINITION = ("m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; "
              "w -= lr_t (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps); no decay")
DEFAULTS = _adam.DEFAULTS
REFERENCES = (
    Torch(lambda o: ("Adam", _adam.kwargs(o)), _adam.SLOTS),
    Optax(lambda o, lr, mask: optax.adam(lr, o["beta1"], o["beta2"], o["eps"]), _adam.moments,
          lambda o: f"optax.adam(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']})"),
)


def cases():
    yield from _adam.cases()
    yield case("small_gradients", dict(lr=0.001), "small")
    yield case("lr_1e4", dict(lr=1e4))
