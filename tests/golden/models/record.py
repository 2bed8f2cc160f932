# SPDX-License-Identifier: MIT
"""Records 100 training steps of each model in PyTorch, double and float. The format is in ../README.md.

With arguments only the models named are recorded: record.py logistic mlp
"""
import itertools
import math
import os
import sys

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import flat, setup, splitmix64, tensor, uniform, write  # noqa: E402

STEPS, CLASSES = 100, 10
IMAGE_SEED, LABEL_SEED, PARAM_SEED = 1, 2, 1000


class Logistic(nn.Module):
    def __init__(self, pixels):
        super().__init__()
        self.fc = nn.Linear(pixels, CLASSES)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Mlp(nn.Module):
    def __init__(self, pixels, *hidden):
        super().__init__()
        sizes = [pixels, *hidden, CLASSES]
        for i in range(len(sizes) - 1):
            self.add_module(f"fc{i + 1}", nn.Linear(sizes[i], sizes[i + 1]))

    def forward(self, x):
        x = x.flatten(1)
        layers = list(self.children())
        for layer in layers[:-1]:
            x = F.relu(layer(x))
        return layers[-1](x)


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Cnn(nn.Module):
    """PyTorch's MNIST example with its dropout off."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class Recurrent(nn.Module):
    """The image's rows as steps; the last state goes to the classes."""

    def __init__(self, kind, columns, hidden):
        super().__init__()
        self.kind = kind
        layer = dict(rnn=nn.RNN, gru=nn.GRU, lstm=nn.LSTM)[kind]
        self.add_module(kind, layer(columns, hidden, batch_first=True))
        self.fc = nn.Linear(hidden, CLASSES)

    def forward(self, x):
        return self.fc(getattr(self, self.kind)(x.squeeze(1))[0][:, -1])


SMALL, WIDE, MNIST = (8, 8), (12, 10), (28, 28)
# file: (tern's spec, image, images, batch, constructor). The last batch of a pass is the smaller one.
MODELS = dict(
    logistic=("logistic", MNIST, 60, 16, lambda: Logistic(784)),
    mlp=("mlp:hidden=32", SMALL, 60, 16, lambda: Mlp(64, 32)),
    mlp_deep=("mlp:hidden=24/16", SMALL, 60, 16, lambda: Mlp(64, 24, 16)),
    lenet=("lenet", MNIST, 30, 8, Lenet),
    cnn=("cnn:dropout=0", MNIST, 30, 4, Cnn),
    rnn=("rnn:hidden=16", WIDE, 60, 16, lambda: Recurrent("rnn", 10, 16)),
    gru=("gru:hidden=16", WIDE, 60, 16, lambda: Recurrent("gru", 10, 16)),
    lstm=("lstm:hidden=16", WIDE, 60, 16, lambda: Recurrent("lstm", 10, 16)),
)


def optimizers(model):
    """(tern's spec, PyTorch's class, its arguments). At the others' rate the cnn's loss would soon be 0."""
    lr, sgd = (0.0002, 0.005) if model == "cnn" else (0.002, 0.02)
    return [
        (f"adamw:lr={lr},weight_decay=0.5", "AdamW", dict(lr=lr, weight_decay=0.5)),
        (f"adaml2:lr={lr},weight_decay=0.01", "Adam", dict(lr=lr, weight_decay=0.01)),
        (f"adam:lr={lr}", "Adam", dict(lr=lr)),
        (f"sgd:lr={sgd},momentum=0.9,weight_decay=0.001", "SGD",
         dict(lr=sgd, momentum=0.9, weight_decay=0.001)),
    ]


def images(count, size):
    """Bytes: k = the top 8 bits of a draw; 0 when k < 128, else 2k - 255; so half of the pixels are dark."""
    stream = splitmix64(IMAGE_SEED)
    draws = (next(stream) >> 56 for _ in range(count * size[0] * size[1]))
    return torch.tensor([0 if k < 128 else 2 * k - 255 for k in draws]).reshape(count, 1, *size)


def labels(count):
    return [z % CLASSES for z in itertools.islice(splitmix64(LABEL_SEED), count)]


def parameters(model):
    """Parameter j: seed 1000 + j, scale the power of two nearest (in logarithm) to 1/sqrt(fan in)."""
    fan, out = 1, []
    for j, (name, p) in enumerate(model.named_parameters()):
        fan = p[0].numel() if p.dim() > 1 else fan       # a bias has the scale of the weight before it
        out.append(dict(name=name, shape=list(p.shape), decay=p.dim() > 1, seed=PARAM_SEED + j,
                        scale=2.0 ** round(math.log2(fan**-0.5))))
    return out


def summary(t):
    t = t.detach().double()
    return dict(sum=t.sum().item(), sum_abs=t.abs().sum().item(), sum_sq=(t * t).sum().item(),
                head=flat(t)[:5])


def train(make, size, count, batch, params, optimizer, dtype, nudge=0.0):
    """Loss of each step (before the update), gradients of the first, weights after the last."""
    model = make().to(dtype)
    values = dict(model.named_parameters())
    for p in params:
        start = uniform(p["shape"], p["seed"], p["scale"]) * (1 + nudge)
        values[p["name"]].data = tensor(start, dtype)
    x, y = (images(count, size).double() / 255).to(dtype), torch.tensor(labels(count))
    _, cls, kwargs = optimizer
    groups = [dict(params=[values[p["name"]]], **({} if p["decay"] else dict(weight_decay=0.0)))
                   for p in params]
    opt = getattr(torch.optim, cls)(groups, **kwargs, foreach=False)
    losses, grads, lo = [], None, 0
    for _ in range(STEPS):
        hi = min(lo + batch, count)
        opt.zero_grad()
        loss = F.cross_entropy(model(x[lo:hi]), y[lo:hi])
        loss.backward()
        losses.append(loss.item())
        grads = grads or {name: summary(p.grad) for name, p in values.items()}
        opt.step()
        lo = hi % count
    return losses, grads, {name: summary(p) for name, p in values.items()}


def worst(a, b):
    return max(abs(x - y) / abs(y) for x, y in zip(a, b))


def main():
    setup()
    for name in sys.argv[1:] or MODELS:
        spec, size, count, batch, make = MODELS[name]
        params = parameters(make())
        head = dict(model=spec, input=[1, *size], classes=CLASSES, images=count, batch=batch, steps=STEPS,
                    image_seed=IMAGE_SEED, label_seed=LABEL_SEED, labels=labels(count),
                    pixel_head=images(count, size).reshape(-1)[:8].tolist(), params=params)
        runs = []
        for opt in optimizers(name):
            go = lambda dtype, nudge=0.0: train(make, size, count, batch, params, opt, dtype, nudge)
            loss, grad, final = go(torch.float64)
            loss32, _, final32 = go(torch.float32)
            bend, single = worst(go(torch.float64, 2.0**-50)[0], loss), worst(loss32, loss)
            print(f"{name} {opt[0]}: loss {loss[0]:.3f} -> {loss[-1]:.3f}, nudged by 2^-50 {bend:.1e}, "
                  f"float {single:.1e}", file=sys.stderr)
            assert bend < 1e-10 and single < 2.5e-4, "too sensitive to compare at 1e-9 and 1e-3"
            runs.append(dict(optimizer=opt[0], torch=dict(**{"class": opt[1]}, kwargs=opt[2]), tol=1e-9,
                             tol_float=1e-3, loss=loss, loss_float=loss32, first_grad=grad, final=final,
                             final_float=final32))
        write(__file__, name, head, "runs", runs)


if __name__ == "__main__":
    main()
