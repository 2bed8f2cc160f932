# SPDX-License-Identifier: MIT
import numpy as np
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = ("m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; u = m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay w; "
              "w -= lr_t |w| / |u| u, norms of the whole tensor, the ratio 1 where one of them is 0")
DEFAULTS = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0)
def step(t, w, g, state, o, lr_mul, wd_mul):
    """Algorithm 2 with phi(z) = z; the ratio is 1 where a norm is 0, which the paper leaves open."""
    real = w.dtype.type
    m, v = (state.setdefault(k, np.zeros_like(w)) for k in ("m", "v"))
    m += real(1 - o["beta1"]) * (g - m)
    v += real(1 - o["beta2"]) * (g * g - v)
    r = m / real(1 - o["beta1"] ** t) / (np.sqrt(v / real(1 - o["beta2"] ** t)) + real(o["eps"]))
    r = r + real(o["weight_decay"] * wd_mul) * w
    of_w, of_r = np.sqrt(np.sum(w * w)), np.sqrt(np.sum(r * r))
    w -= real(o["lr"] * lr_mul) * (of_w / of_r if of_w > 0 and of_r > 0 else real(1)) * r


REFERENCES = (
    Optax(lambda o, lr, mask: optax.lamb(lr, o["beta1"], o["beta2"], o["eps"], weight_decay=o["weight_decay"], mask=mask),
          lambda s: {"m": s[0].mu, "v": s[0].nu},
          lambda o: f"optax.lamb(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}, "
                    f"weight_decay={o['weight_decay']}, mask=mask)"),
    Plain(step, ("m", "v"), "You et al., arXiv:1904.00962, Algorithm 2"),
)


def cases():
    yield case("every_step", dict(lr=0.01, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.01, weight_decay=0.1), lr_mul=WAVE)
    yield case("beta1_0", dict(lr=0.01, beta1=0.0))
    yield case("beta2_0.5", dict(lr=0.01, beta2=0.5))
    yield case("eps_1e-3", dict(lr=0.01, eps=1e-3))
    yield case("small_gradients", dict(lr=0.01), "small")
    yield case("decay_10", dict(lr=0.01, weight_decay=10.0))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
