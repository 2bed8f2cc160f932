# SPDX-License-Identifier: MIT
"""Records weights that sharpness-aware minimisation reaches, with PyTorch's autograd and optimizers. See ../README.md.

PyTorch has no SAM; the loop below is written from the papers' formulas (arXiv:2010.01412; arXiv:2102.11600).
"""
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import tensor, uniform, write  # noqa: E402

ROWS, IN, HIDDEN, OUT, STEPS, SHOWN = 24, 5, 6, 3, 20, (1, 2, 5, 20)
PARAMS = [("fc1.weight", (HIDDEN, IN), 11, 0.5), ("fc1.bias", (HIDDEN,), 12, 0.5),
          ("fc2.weight", (OUT, HIDDEN), 13, 0.5), ("fc2.bias", (OUT,), 14, 0.5)]
CASES = [
    ("rho=0.05", "sgd:lr=0.5,momentum=0.9", "SGD", dict(lr=0.5, momentum=0.9)),
    ("rho=0.5", "adamw:lr=0.01,weight_decay=0.1", "AdamW", dict(lr=0.01, weight_decay=0.1)),
    ("rho=0.5,adaptive=on", "sgd:lr=0.5,momentum=0.9", "SGD", dict(lr=0.5, momentum=0.9)),
    ("rho=2,adaptive=on,eta=0", "adamw:lr=0.01,weight_decay=0.1", "AdamW", dict(lr=0.01, weight_decay=0.1)),
]


def options(sam):
    o = dict(x.split("=") for x in sam.split(","))
    return float(o["rho"]), o.get("adaptive") == "on", float(o.get("eta", 0.01))


def run(sam, cls, kwargs):
    rho, adaptive, eta = options(sam)
    x = tensor(uniform((ROWS, IN), 3))
    label = torch.tensor([i * 5 % 7 % OUT for i in range(ROWS)])
    w = [tensor(uniform(shape, seed, scale), grad=True) for _, shape, seed, scale in PARAMS]
    decays = kwargs.get("weight_decay", 0)
    groups = [dict(params=w[0::2]), dict(params=w[1::2], weight_decay=0.0)] if decays else w
    opt = getattr(torch.optim, cls)(groups, **kwargs)

    def gradient():
        opt.zero_grad()
        y = torch.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3]
        loss = torch.nn.functional.cross_entropy(y, label)
        loss.backward()
        return loss.item()

    weights, loss, ascent = {}, [], []
    for t in range(1, STEPS + 1):
        loss.append(gradient())
        with torch.no_grad():
            size = [p.abs() + eta if adaptive else torch.ones_like(p) for p in w]
            norm = torch.sqrt(sum(((s * p.grad) ** 2).sum() for s, p in zip(size, w)))
            e = [rho * s * s * p.grad / (norm + 1e-12) for s, p in zip(size, w)]
            for p, d in zip(w, e):
                p.add_(d)
        ascent.append(gradient())
        with torch.no_grad():
            for p, d in zip(w, e):
                p.sub_(d)
        opt.step()
        if t in SHOWN:
            weights[str(t)] = {name: p.detach().flatten().tolist() for (name, *_), p in zip(PARAMS, w)}
    return weights, loss, ascent


def main():
    items = []
    for sam, spec, cls, kwargs in CASES:
        weights, loss, ascent = run(sam, cls, kwargs)
        items.append(dict(sam=sam, optimizer=spec, torch={"class": cls, "kwargs": kwargs}, loss=loss, ascent_loss=ascent,
                          weights=weights))
    head = dict(rows=ROWS, steps=STEPS, shown=SHOWN,
                params=[dict(name=n, shape=s, seed=k, scale=c) for n, s, k, c in PARAMS])
    write(__file__, "sam", head, "cases", items)


if __name__ == "__main__":
    main()
