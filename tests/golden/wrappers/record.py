# SPDX-License-Identifier: MIT
"""Records averages of weights by torch.optim.swa_utils, and optax.lookahead. The format is in ../README.md."""
import os
import sys

import numpy
import optax
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import setup, uniform, write  # noqa: E402

N, STEPS, LR = 7, 20, 0.05
START = uniform(N, 7).tolist()


def gradient(step):
    return uniform(N, 100 + step).tolist()


class Weights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))


def torch_case(spec, source, averaged, optimizer, when=lambda t: True):
    """One optimizer of PyTorch with its averaged model; `when`: the steps after which it is updated."""
    model = Weights()
    average = averaged(model)
    step = optimizer(model.parameters())
    w, other = [], []
    for t in range(1, STEPS + 1):
        model.w.grad = torch.tensor(gradient(t), dtype=torch.float64)
        step.step()
        if when(t):
            average.update_parameters(model)
        w.append(model.w.detach().tolist())
        other.append((average.module.w if average.n_averaged > 0 else model.w).detach().tolist())
    return dict(spec=spec, source=source, w=w, evaluated=other)


def debiased():
    """optax.ema with debias=True over the weights of SGD."""
    w = numpy.array(START)
    ema = optax.ema(0.9, debias=True)
    state = ema.init(w)
    weights, other = [], []
    for t in range(1, STEPS + 1):
        w = w - LR * numpy.array(gradient(t))
        out, state = ema.update(w, state)
        weights.append(w.tolist())
        other.append(numpy.array(out).tolist())
    return dict(spec=f"sgd:lr={LR}+ema:decay=0.9,debias=on", source="optax.ema(0.9, debias=True)", w=weights,
                evaluated=other)


def lookahead(k, alpha):
    params = optax.LookaheadParams.init_synced(numpy.array(START))
    tx = optax.lookahead(optax.sgd(LR, momentum=0.9), k, alpha)
    state = tx.init(params)
    w = []
    for t in range(1, STEPS + 1):
        updates, state = tx.update(numpy.array(gradient(t)), state, params)
        params = optax.apply_updates(params, updates)
        w.append(numpy.array(params.fast).tolist())
    return dict(spec=f"sgd:lr={LR},momentum=0.9+lookahead:k={k},alpha={alpha}", source=f"optax.lookahead({k}, {alpha})",
                w=w, evaluated=w)


def main():
    import jax
    setup()
    jax.config.update("jax_enable_x64", True)

    def ema(model):
        return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def sgd(p):
        return torch.optim.SGD(p, lr=LR, momentum=0.9)

    def adam(p):
        return torch.optim.AdamW(p, lr=LR, weight_decay=0.1)

    util = "torch.optim.swa_utils.AveragedModel"
    cases = [
        torch_case(f"sgd:lr={LR},momentum=0.9+ema:decay=0.9", util + ", get_ema_multi_avg_fn(0.9)", ema, sgd),
        torch_case(f"adamw:lr={LR},weight_decay=0.1+ema:decay=0.9", util + ", get_ema_multi_avg_fn(0.9)", ema, adam),
        torch_case(f"sgd:lr={LR},momentum=0.9+swa:start_step=5,every=3", util, AveragedModel, sgd,
                   lambda t: t >= 5 and (t - 5) % 3 == 0),
        torch_case(f"adamw:lr={LR},weight_decay=0.1+swa:start=0.5", util, AveragedModel, adam,
                   lambda t: t >= 10 and t % 4 == 0),
        debiased(),
        lookahead(5, 0.5),
        lookahead(3, 0.8),
    ]
    write(__file__, "wrappers", dict(more=f"optax {optax.__version__}", n=N, steps=STEPS, steps_per_epoch=4, start=dict(uniform=7),
                                     gradients=dict(uniform="100 + step"), tol=1e-12, tol_float=1e-6), "cases", cases)


main()
