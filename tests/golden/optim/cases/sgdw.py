# SPDX-License-Identifier: MIT
import optax

from core import EVERY, SPECIAL, WAVE, Optax, Plain, case

DEFINITION = "momentum_buffer = momentum momentum_buffer + lr_t g; w = w - momentum_buffer - s_t weight_decay w"
DEFAULTS = dict(lr=1e-3, momentum=0.9, weight_decay=1e-4)


def step(t, w, g, state, o, lr_mul, wd_mul):
    real = w.dtype.type
    buf = state["momentum_buffer"] = real(o["momentum"]) * state.get("momentum_buffer", 0 * w) + real(o["lr"] * lr_mul) * g
    w -= buf + real(lr_mul * wd_mul * o["weight_decay"]) * w


def chain(o, lr, mask):
    return optax.chain(optax.scale(lr), optax.trace(o["momentum"]), optax.add_decayed_weights(o["weight_decay"], mask),
                       optax.scale(-1.0))


REFERENCES = (
    Plain(step, ("momentum_buffer",), "Loshchilov and Hutter, arXiv:1711.05101, Algorithm 1"),
    Optax(chain, lambda s: {"momentum_buffer": s[1].trace},
          lambda o: f"optax.chain(optax.scale(lr), optax.trace({o['momentum']}), "
                    f"optax.add_decayed_weights({o['weight_decay']}, mask), optax.scale(-1))"),
)


def cases():
    yield case("every_step", dict(lr=0.1, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.1, weight_decay=0.1), lr_mul=WAVE, only=("plain",))
    yield case("decay_wave", dict(lr=0.1, weight_decay=0.1), wd_mul=WAVE, only=("plain",))
    yield case("momentum_0", dict(lr=0.1, momentum=0.0))
    yield case("decay_0.5", dict(lr=0.1, weight_decay=0.5))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01), g)
