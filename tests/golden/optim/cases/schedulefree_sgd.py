# SPDX-License-Identifier: MIT
from optax import contrib

from core import Optax

from . import _schedulefree as shared

DEFINITION = shared.RATE + "u = g + weight_decay y; " + shared.average("momentum")
DEFAULTS = dict(lr=1.0, momentum=0.9, **shared.DEFAULTS)
REFERENCES = (
    shared.plain("momentum", ("z",), lambda t, g, state, o: g),
    Optax(lambda o, lr, mask: contrib.schedule_free_sgd(o["lr"], None, o["momentum"], weight_lr_power=o["weight_lr_power"]),
          lambda s: {"z": s.z}, lambda o: f"optax.contrib.schedule_free_sgd(lr, b1={o['momentum']}, "
                    f"weight_lr_power={o['weight_lr_power']})",
          evaluated=lambda s, w: contrib.schedule_free_eval_params(s, w)),
)


def cases():
    yield from shared.cases(0.1, ("momentum_0.5", dict(momentum=0.5), "random"))
