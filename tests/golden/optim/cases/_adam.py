# SPDX-License-Identifier: MIT
"""What adam, adaml2 and adamw share."""
from core import EVERY, SPECIAL, WAVE, case

DEFAULTS = dict(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False)
SLOTS = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "vmax"}


def kwargs(o):
    return dict(lr=o["lr"], betas=[o["beta1"], o["beta2"]], eps=o["eps"], weight_decay=o.get("weight_decay", 0.0),
                amsgrad=o["amsgrad"])


def moments(state):
    """m and v of optax's scale_by_adam, wherever it stands in the chain."""
    found = [s for s in state if hasattr(s, "nu")][0]
    return dict(m=found.mu, v=found.nu)


def cases(**extra):
    """extra: the decay."""
    opt = lambda **kw: dict(kw, **extra)
    yield case("defaults", {})
    yield case("every_step", opt(lr=0.01), shown=EVERY)
    yield case("lr_1e-8", opt(lr=1e-8))
    yield case("lr_10", opt(lr=10.0))
    yield case("wave", opt(lr=0.001), lr_mul=WAVE)
    yield case("eps_1e-3", opt(lr=0.001, eps=1e-3))
    yield case("beta1_0", opt(lr=0.001, beta1=0.0))
    yield case("beta2_0", opt(lr=0.001, beta2=0.0))
    # 1 - beta^t loses six digits here, so the last bit of the power decides about the tenth of the result.
    yield case("beta1_near_one", opt(lr=0.001, beta1=0.999999), tol=1e-9)
    yield case("beta2_near_one", opt(lr=0.001, beta2=0.999999), tol=1e-9)
    yield case("large_gradients", opt(lr=0.001), "large")
    yield case("amsgrad", opt(lr=0.001, amsgrad=True), only=("torch",))
    yield case("amsgrad_beta2_0.5_wave", opt(lr=0.01, beta2=0.5, amsgrad=True), lr_mul=WAVE, only=("torch",))
    yield case("amsgrad_spike", opt(lr=0.01, beta2=0.9, amsgrad=True), "spike", only=("torch",))
    for g in SPECIAL:
        yield case(g, opt(lr=0.001), g)
