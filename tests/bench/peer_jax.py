#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
Training steps a second of JAX, jitted, with optax's AdamW: one model, one number of threads, one JSON object on stdout.
peers.py calls it.

XLA takes as many threads as the process may use cores, so the number of threads is set through the affinity, before jax
is loaded. Images lie on the device as uint8 and are gathered inside the jitted step. Memory layout, unrolling of the
recurrent loop, and one step or 32 steps a call are tried first and the fastest is measured; random bits of dropout come
from XLA's own generator, which is faster than JAX's default.
"""
import argparse
import itertools
import json
import os
import time

import mnist


def arguments():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--model", default="mlp:hidden=128")
    args.add_argument("--batch", type=int, default=128)
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--seconds", type=float, default=2)
    args.add_argument("--variant", default="", help="the one to measure; default: the fastest")
    return args.parse_args()


o = arguments()
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: o.threads])
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402  after the affinity
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax import lax  # noqa: E402

jax.config.update("jax_default_prng_impl", "rbg")
SOME = 32  # steps a call, where a call makes several


# ---- Parameters: PyTorch's initial distribution -------------------------------------------------------------------


def uniform(key, shape, fan_in):
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def linear(key, n_in, n_out):
    a, b = jax.random.split(key)
    return {"w": uniform(a, (n_in, n_out), n_in), "b": uniform(b, (n_out,), n_in)}


def conv(key, n_in, n_out, size):
    a, b = jax.random.split(key)
    fan = n_in * size * size
    return {"w": uniform(a, (size, size, n_in, n_out), fan), "b": uniform(b, (n_out,), fan)}


GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def parameters(name, hidden, key):
    k = jax.random.split(key, 8)
    if name == "mlp":
        sizes = [784, *hidden, 10]
        return [linear(k[i], a, b) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]
    if name == "lenet":
        return [conv(k[0], 1, 6, 5), conv(k[1], 6, 16, 5), linear(k[2], 400, 120), linear(k[3], 120, 84),
                linear(k[4], 84, 10)]
    if name == "cnn":
        return [conv(k[0], 1, 32, 3), conv(k[1], 32, 64, 3), linear(k[2], 9216, 128), linear(k[3], 128, 10)]
    h, g = 128, GATES[name]
    return {"x": {"w": uniform(k[0], (28, g * h), h), "b": uniform(k[1], (g * h,), h)},
            "h": {"w": uniform(k[2], (h, g * h), h), "b": uniform(k[3], (g * h,), h)}, "fc": linear(k[4], h, 10)}


# ---- Models ---------------------------------------------------------------------------------------------------------


def dense(p, x):
    return x @ p["w"] + p["b"]


def convolved(p, x, padding, layout):
    y = lax.conv_general_dilated(x, p["w"], (1, 1), [(padding, padding)] * 2, dimension_numbers=(layout, "HWIO", layout))
    return jax.nn.relu(y + (p["b"] if layout == "NHWC" else p["b"][:, None, None]))


def pooled(x, layout):
    if layout == "NHWC":
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def pooled_by_reshape(x, layout):
    if layout == "NHWC":
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def dropped(key, x, share):
    return jnp.where(jax.random.bernoulli(key, 1 - share, x.shape), x / (1 - share), 0)


def last_state(name, p, x, unroll):
    """The inputs of all steps are projected at once."""
    h = jnp.zeros((x.shape[0], 128))
    steps = dense(p["x"], x.swapaxes(0, 1))

    def rnn(h, gates):
        return jnp.tanh(gates + dense(p["h"], h)), None

    def gru(h, gates):
        (xr, xz, xn), (hr, hz, hn) = jnp.split(gates, 3, 1), jnp.split(dense(p["h"], h), 3, 1)
        z = jax.nn.sigmoid(xz + hz)
        return (1 - z) * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn) + z * h, None

    def lstm(state, gates):
        h, c = state
        i, f, g, o = jnp.split(gates + dense(p["h"], h), 4, 1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    if name == "lstm":
        return lax.scan(lstm, (h, h), steps, unroll=unroll)[0][0]
    return lax.scan(rnn if name == "rnn" else gru, h, steps, unroll=unroll)[0]


def forward(name, how, p, x, key):
    if name == "mlp":
        x = x.reshape(x.shape[0], -1)
        for layer in p[:-1]:
            x = jax.nn.relu(dense(layer, x))
        return dense(p[-1], x)
    if name in GATES:
        return dense(p["fc"], last_state(name, p, x, how["unroll"]))
    layout, pool = how["layout"], pooled_by_reshape if how["pool"] == "reshape" else pooled
    x = x[..., None] if layout == "NHWC" else x[:, None]
    if name == "lenet":
        x = pool(convolved(p[0], x, 2, layout), layout)
        x = pool(convolved(p[1], x, 0, layout), layout)
        x = x.reshape(x.shape[0], -1)
        return dense(p[4], jax.nn.relu(dense(p[3], jax.nn.relu(dense(p[2], x)))))
    a, b = jax.random.split(key)
    x = convolved(p[1], convolved(p[0], x, 0, layout), 0, layout)
    x = dropped(a, pool(x, layout), 0.25)
    x = jax.nn.relu(dense(p[2], x.reshape(x.shape[0], -1)))
    return dense(p[3], dropped(b, x, 0.5))


def variants(name):
    axes = {"steps": [1] if name == "cnn" else [1, SOME]}  # seconds a call, otherwise
    if name in ("lenet", "cnn"):
        axes |= {"layout": ["NHWC", "NCHW"], "pool": ["window", "reshape"]}
    if name in GATES:
        axes |= {"unroll": [1, 4, 28]}
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


# ---- Steps ----------------------------------------------------------------------------------------------------------


class Trainer:
    def __init__(self, how, images, labels):
        name, hidden = mnist.spec(o.model)
        self.how, self.images, self.labels = how, images, labels
        self.params = parameters(name, hidden, jax.random.key(1))
        optim = optax.adamw(1e-3, weight_decay=1e-2)
        self.state, self.key = optim.init(self.params), jax.random.key(2)
        calls = len(images) // (o.batch * how["steps"])
        if not calls:
            raise SystemExit(f"--batch {o.batch}: is too large for {how['steps']} steps a call")
        order = jax.random.permutation(jax.random.key(3), len(images))[: calls * o.batch * how["steps"]]
        shape = (calls, how["steps"], o.batch)
        self.order, self.at = list(order.reshape(shape) if how["steps"] > 1 else order.reshape(calls, o.batch)), 0

        def loss(params, images, labels, idx, key):
            y = forward(name, how, params, images[idx].astype(jnp.float32) / 255, key)
            return optax.softmax_cross_entropy_with_integer_labels(y, labels[idx]).mean()

        def step(params, state, key, images, labels, idx):
            key, now = jax.random.split(key) if name == "cnn" else (key, key)
            grads = jax.grad(loss)(params, images, labels, idx, now)
            updates, state = optim.update(grads, state, params)
            return optax.apply_updates(params, updates), state, key

        def some(params, state, key, images, labels, idx):
            return lax.scan(lambda carry, i: (step(*carry, images, labels, i), None), (params, state, key), idx)[0]

        self.ahead = 8 if how["steps"] == 1 and name != "cnn" else 2
        self.call = jax.jit(some if how["steps"] > 1 else step, donate_argnums=(0, 1, 2))

    def rate(self, seconds):
        start, calls = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            # Calls are asynchronous: some are under way at a time, and all of them are waited for.
            for _ in range(self.ahead):
                self.params, self.state, self.key = self.call(
                    self.params, self.state, self.key, self.images, self.labels, self.order[self.at])
                self.at = (self.at + 1) % len(self.order)
                calls += 1
            jax.block_until_ready(self.params)
        return calls * self.how["steps"] * o.batch / took


def main():
    x, y = mnist.train()
    images, labels = jnp.asarray(x), jnp.asarray(y.astype("int32"))
    best, trainer = 0, None
    for how in [json.loads(o.variant)] if o.variant else variants(mnist.spec(o.model)[0]):
        one = Trainer(how, images, labels)
        one.rate(0.2 if not o.variant else 0.5)
        rate = one.rate(0.4) if not o.variant else 1
        if rate > best:
            best, trainer = rate, one
    print(json.dumps({"framework": "jax", "version": jax.__version__, "model": o.model, "batch": o.batch,
                      "threads": o.threads, "variant": json.dumps(trainer.how),
                      "images_per_second": trainer.rate(o.seconds)}))


main()
