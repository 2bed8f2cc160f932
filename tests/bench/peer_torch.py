#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
Training steps a second of PyTorch, eager, with its fused AdamW: one model, one number of threads, one JSON object on
stdout. peers.py calls it; time_to_target.py takes the models from here.

Images lie in memory as uint8; a batch is gathered by index and becomes float in [0, 1]. Subnormals are flushed, which
is not PyTorch's default and only helps it. Memory formats are tried first and the fastest is measured.
"""
import argparse
import json
import time

import torch
from torch import nn
from torch.nn import functional as F

import mnist


class Mlp(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        sizes = [784, *hidden, 10]
        self.fc = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x):
        x = x.flatten(1)
        for fc in self.fc[:-1]:
            x = F.relu(fc(x))
        return self.fc[-1](x)


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Cnn(nn.Module):
    """pytorch/examples, mnist/main.py; plain dropout, as there"""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.dropout1(F.max_pool2d(x, 2)).flatten(1)
        return self.fc2(self.dropout2(F.relu(self.fc1(x))))


class Recurrent(nn.Module):
    """The rows of an image as 28 steps; the last state goes to the classes."""

    def __init__(self, kind, steps_first):
        super().__init__()
        self.steps_first = steps_first
        layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.rnn, self.fc = layer(28, 128, batch_first=not steps_first), nn.Linear(128, 10)

    def forward(self, x):
        x = x.squeeze(1)
        state = self.rnn(x.transpose(0, 1) if self.steps_first else x)[1]
        return self.fc((state[0] if isinstance(state, tuple) else state)[0])


VARIANTS = {"lenet": ["nchw", "nhwc"], "cnn": ["nchw", "nhwc"],
            "rnn": ["rows", "steps"], "gru": ["rows", "steps"], "lstm": ["rows", "steps"]}


def variants(name):
    return VARIANTS.get(name, ["plain"])


def build(spec, variant):
    name, hidden = mnist.spec(spec)
    if name == "mlp":
        return Mlp(hidden)
    if name in ("rnn", "gru", "lstm"):
        return Recurrent(name, variant == "steps")
    net = Lenet() if name == "lenet" else Cnn()
    return net.to(memory_format=torch.channels_last) if variant == "nhwc" else net


class Trainer:
    def __init__(self, spec, variant, images, labels, batch):
        torch.manual_seed(1)
        self.images, self.labels, self.batch = images, labels, batch
        self.order, self.at, self.nhwc = torch.randperm(len(images)), 0, variant == "nhwc"
        self.net = build(spec, variant).train()
        self.optim = torch.optim.AdamW(self.net.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)

    def step(self):
        if self.at + self.batch > len(self.order):
            self.at = 0
        idx = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        x = self.images.index_select(0, idx).float().mul_(1 / 255)
        if self.nhwc:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optim.zero_grad(set_to_none=True)
        F.cross_entropy(self.net(x), self.labels.index_select(0, idx)).backward()
        self.optim.step()

    def rate(self, seconds):
        start, steps = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            self.step()
            steps += 1
        return steps * self.batch / took


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default="mlp:hidden=128")
    args.add_argument("--batch", type=int, default=128)
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--seconds", type=float, default=2)
    args.add_argument("--variant", default="", help="the one to measure; default: the fastest")
    o = args.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    x, y = mnist.train()
    images, labels = torch.from_numpy(x.copy()).unsqueeze(1), torch.from_numpy(y.astype("int64"))
    best, trainer = 0, None
    for variant in [o.variant] if o.variant else variants(mnist.spec(o.model)[0]):
        one = Trainer(o.model, variant, images, labels, o.batch)
        one.rate(0.5)
        rate = one.rate(0.5) if not o.variant else 1
        if rate > best:
            best, trainer, name = rate, one, variant
    print(json.dumps({"framework": "torch", "version": torch.__version__, "model": o.model, "batch": o.batch,
                      "threads": o.threads, "variant": name, "images_per_second": trainer.rate(o.seconds)}))


if __name__ == "__main__":
    main()
