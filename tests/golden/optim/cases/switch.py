# SPDX-License-Identifier: MIT
import numpy as np
import torch

from core import EVERY, SPECIAL, WAVE, Torch, case

DEFINITION = ("t <= at: adamw's step with lr, beta1, beta2, eps; then sgd's with sgd_lr and momentum, its buffer (in the place "
              "of m) empty at first; both decay by the rate times weight_decay")
DEFAULTS = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, at=1000, sgd_lr=0.1, momentum=0.9, weight_decay=0.0)


class Two:
    """torch.optim.AdamW, and from step at + 1 on torch.optim.SGD on weights that were made smaller by hand."""

    name = "torch"

    def source(self):
        return Torch(None, None).source()

    def describe(self, o):
        return {"class": "torch.optim.AdamW", "kwargs": dict(lr=o["lr"], betas=[o["beta1"], o["beta2"]], eps=o["eps"],
                                                             weight_decay=o["weight_decay"]),
                "then": {"class": "torch.optim.SGD", "kwargs": dict(lr=o["sgd_lr"], momentum=o["momentum"]),
                         "after": o["at"], "before each step": "w *= 1 - lr_t weight_decay"}}

    def run(self, r, o):
        dtype = torch.float64 if np.dtype(r.dtype) == np.float64 else torch.float32
        w = [torch.tensor(x.reshape(t["shape"]), dtype=dtype).requires_grad_(True) for x, t in zip(r.init, r.tensors)]
        decay = [o["weight_decay"] if t["decay"] else 0.0 for t in r.tensors]
        adam = torch.optim.AdamW([dict(params=[p], weight_decay=d) for p, d in zip(w, decay)], lr=o["lr"],
                                 betas=(o["beta1"], o["beta2"]), eps=o["eps"], foreach=False)
        sgd = torch.optim.SGD([dict(params=[p]) for p in w], lr=o["sgd_lr"], momentum=o["momentum"], foreach=False)
        out = []
        for s in range(r.steps):
            for p, g in zip(w, r.grads):
                p.grad = torch.tensor(g[s], dtype=dtype).reshape(p.shape)
            opt, rate = (adam, o["lr"]) if s < o["at"] else (sgd, o["sgd_lr"])
            for group, d in zip(opt.param_groups, decay):
                group["lr"] = rate * r.lr_mul[s]
                if opt is sgd:
                    group["params"][0].data.mul_(1 - group["lr"] * d)
            opt.step()
            flat = lambda x: x.detach().to(torch.float64).reshape(-1).tolist()
            # without momentum PyTorch has no buffer: what would be in it is the gradient
            first = lambda p: adam.state[p]["exp_avg"] if opt is adam else sgd.state[p].get("momentum_buffer", p.grad)
            state = {t["name"]: {"m": flat(first(p)), "v": flat(adam.state[p]["exp_avg_sq"])} for p, t in zip(w, r.tensors)}
            out.append(dict(weights={t["name"]: flat(p) for p, t in zip(w, r.tensors)}, state=state))
        return out


REFERENCES = (Two(),)


def cases():
    yield case("every_step", dict(lr=0.01, at=10, sgd_lr=0.05, weight_decay=0.1), shown=EVERY)
    yield case("wave", dict(lr=0.01, at=7, weight_decay=0.1), lr_mul=WAVE)
    yield case("at_1", dict(lr=0.01, at=1))
    yield case("never", dict(lr=0.01))
    yield case("momentum_0", dict(lr=0.01, at=5, momentum=0.0))
    yield case("betas_eps", dict(lr=0.01, at=5, beta1=0.5, beta2=0.9, eps=1e-3))
    for g in SPECIAL:
        yield case(g, dict(lr=0.01, at=12, sgd_lr=0.01), g)
