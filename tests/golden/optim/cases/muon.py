# SPDX-License-Identifier: MIT
import numpy as np
import torch

from core import EVERY, WAVE, Plain, Torch, case

DEFINITION = ("matrices: buf = momentum buf + (1-momentum) g; u = buf, nesterov: (1-momentum) g + momentum buf; X = u / max(|u|, eps); "
              "ns_steps times G = X X^T, X = ns_a X + (ns_b G + ns_c G G) X; f = sqrt(max(1, rows / columns)) or, match_rms_adamw, "
              "0.2 sqrt(max(rows, columns)); w = (1 - lr_t weight_decay) w - lr_t f X; other tensors: adamw with its defaults")
DEFAULTS = dict(lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, ns_steps=5, ns_a=3.4445, ns_b=-4.775, ns_c=2.0315,
                eps=1e-7, adjust_lr_fn="original")
TENSORS = [
    dict(name="wide", shape=[3, 5], decay=True, seed=101),
    dict(name="tall", shape=[6, 4], decay=True, seed=104),
    dict(name="kept", shape=[4, 4], decay=False, seed=105),
    dict(name="bias", shape=[7], decay=False, seed=102),
]


def adamw(t, w, g, state, lr_mul):
    """adamw's defaults; the tensor here does not decay."""
    real = w.dtype.type
    state["m"] = real(0.9) * state.get("m", 0 * w) + real(0.1) * g
    state["v"] = real(0.999) * state.get("v", 0 * w) + real(0.001) * g * g
    m, v = state["m"] / real(1 - 0.9 ** t), state["v"] / real(1 - 0.999 ** t)
    w -= real(1e-3 * lr_mul) * m / (np.sqrt(v) + real(1e-8))


def step(t, w, g, state, o, lr_mul, wd_mul):
    if w.ndim != 2:
        return adamw(t, w, g, state, lr_mul)
    real, beta = w.dtype.type, w.dtype.type(o["momentum"])
    buf = state["momentum_buffer"] = state.get("momentum_buffer", 0 * w)
    buf += (1 - beta) * (g - buf)
    x = g + beta * (buf - g) if o["nesterov"] else buf
    turned = w.shape[0] > w.shape[1]
    x = x.T if turned else x
    x = x / max(real(np.sqrt((x * x).sum())), real(o["eps"]))
    for _ in range(o["ns_steps"]):
        gram = x @ x.T
        x = real(o["ns_a"]) * x + (real(o["ns_b"]) * gram + real(o["ns_c"]) * (gram @ gram)) @ x
    x = x.T if turned else x
    rows, cols = w.shape
    f = np.sqrt(max(1, rows / cols)) if o["adjust_lr_fn"] == "original" else 0.2 * np.sqrt(max(rows, cols))
    lr = o["lr"] * lr_mul
    w *= real(1 - lr * o["weight_decay"] * wd_mul)
    w -= real(lr * f) * x


class Wide(Torch):
    """torch.optim.Muon with its iteration in the type of the weights: what makes it bfloat16 copies in its place."""

    def run(self, r, options):
        narrow = torch.Tensor.bfloat16
        torch.Tensor.bfloat16 = torch.Tensor.clone
        try:
            return super().run(r, options)
        finally:
            torch.Tensor.bfloat16 = narrow


REFERENCES = (
    Plain(step, ("momentum_buffer", "m", "v"),
          "torch.optim.Muon of PyTorch 2.13 line by line, its iteration in double where PyTorch's is in bfloat16"),
    Wide(lambda o: ("Muon", dict(lr=o["lr"], weight_decay=o["weight_decay"], momentum=o["momentum"], nesterov=o["nesterov"],
                                 ns_coefficients=[o["ns_a"], o["ns_b"], o["ns_c"]], eps=o["eps"], ns_steps=o["ns_steps"],
                                 adjust_lr_fn=o["adjust_lr_fn"])),
         {"momentum_buffer": "momentum_buffer"}, takes=lambda t: len(t["shape"]) == 2,
         rest=Torch(lambda o: ("AdamW", dict(lr=1e-3, weight_decay=1e-2)), {"exp_avg": "m", "exp_avg_sq": "v"})),
)


def cases():
    yield case("every_step", dict(lr=0.01), shown=EVERY)
    yield case("wave", dict(lr=0.01), lr_mul=WAVE)
    yield case("plain_momentum", dict(lr=0.01, nesterov=False))
    yield case("momentum_0", dict(lr=0.01, momentum=0.0))
    yield case("match_rms_adamw", dict(lr=0.01, adjust_lr_fn="match_rms_adamw"))
    yield case("ns_steps_1", dict(lr=0.01, ns_steps=1))
    yield case("ns_steps_10", dict(lr=0.01, ns_steps=10))
    yield case("cubic", dict(lr=0.01, ns_a=1.5, ns_b=-0.5, ns_c=0.0, ns_steps=12))
    yield case("eps_1", dict(lr=0.01, eps=1.0))
    yield case("decay_10", dict(lr=0.01, weight_decay=10.0))
    yield case("decay_0", dict(lr=0.01, weight_decay=0.0))
    for g in ("random", "small", "large", "zeros", "tiny"):
        yield case(g, dict(lr=0.01), g)
