# SPDX-License-Identifier: MIT
import numpy as np
from optax import contrib

from core import Optax

from . import _schedulefree as shared

DEFINITION = (shared.RATE + "v = b2 v + (1-b2) g^2; u = g / (sqrt(v / (1-b2^t)) + eps) + weight_decay y; "
              + shared.average("b1"))
DEFAULTS = dict(lr=2.5e-3, beta1=0.9, beta2=0.999, eps=1e-8, **shared.DEFAULTS)


def direction(t, g, state, o):
    real = g.dtype.type
    state["v"] = real(o["beta2"]) * state.get("v", 0 * g) + real(1 - o["beta2"]) * g * g
    return g / (np.sqrt(state["v"] / real(1 - o["beta2"] ** t)) + real(o["eps"]))


REFERENCES = (
    shared.plain("beta1", ("z", "v"), direction),
    Optax(lambda o, lr, mask: contrib.schedule_free_adamw(o["lr"], None, o["beta1"], o["beta2"], o["eps"], 0.0, o["weight_lr_power"]),
          lambda s: {"z": s.z}, lambda o: f"optax.contrib.schedule_free_adamw(lr, b1={o['beta1']}, b2={o['beta2']}, eps={o['eps']}, "
                    f"weight_lr_power={o['weight_lr_power']})",
          evaluated=lambda s, w: contrib.schedule_free_eval_params(s, w)),
)


def cases():
    yield from shared.cases(0.01, ("beta1_0.5", dict(beta1=0.5), "random"), ("beta2_0.5", dict(beta2=0.5), "random"),
                            ("eps_small_gradients", {}, "small"))
