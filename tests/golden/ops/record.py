# SPDX-License-Identifier: MIT
"""Records values and gradients of PyTorch's operations in double. The format is in ../README.md.

With arguments only the files named are recorded: record.py linear loss
"""
import itertools
import os
import sys

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from common import flat, setup, tensor, uniform, write  # noqa: E402

seeds = itertools.count(1)      # restarted for each file


def real(name, *shape, scale=1.0, shift=0.0, grad=True):
    """An input by formula."""
    return dict(name=name, shape=list(shape), seed=next(seeds), scale=scale, shift=shift, grad=grad)


def given(name, values, *shape, grad=True):
    """An input whose values are stored."""
    return dict(name=name, shape=list(shape) or [len(values)], values=values, grad=grad)


def ints(name, values):
    """Class numbers or indices."""
    return dict(name=name, shape=list(torch.tensor(values).shape),
                ints=torch.tensor(values).reshape(-1).tolist(), grad=False)


def value(i):
    if "ints" in i:
        return torch.tensor(i["ints"]).reshape(i["shape"])
    if "values" in i:
        return torch.tensor(i["values"], dtype=torch.float64).reshape(i["shape"]).requires_grad_(i["grad"])
    return tensor(uniform(i["shape"], i["seed"], i["scale"], i["shift"]), grad=i["grad"])


def record(op, name, fn, inputs, args=None, names=("y",)):
    """fn takes the inputs in order and returns a tensor or several; those without a gradient are buffers."""
    x = [value(i) for i in inputs]
    leaves = [(i["name"], v) for i, v in zip(inputs, x) if i["grad"]]
    ys = fn(*x)
    ys = ys if isinstance(ys, (tuple, list)) else (ys,)
    outputs, gys = [], []
    for n, y in zip(names, ys):
        out = dict(name=n, shape=list(y.shape), values=flat(y))
        if y.requires_grad and y.dim():
            gy = dict(seed=next(seeds), scale=1.0, shift=0.0)
            gys.append((y, tensor(uniform(y.shape, gy["seed"], gy["scale"]))))
            out["gy"] = gy
        elif y.requires_grad:
            gys.append((y, torch.ones((), dtype=y.dtype)))
            out["gy"] = dict(values=[1.0])
        outputs.append(out)
    torch.autograd.backward([y for y, _ in gys], [g for _, g in gys])
    grads = [dict(name=n, values=flat(v.grad)) for n, v in leaves]
    return dict(op=op, name=name, args=args or {}, inputs=inputs, outputs=outputs, grads=grads)


# --- elementwise and rows --------------------------------------------------------------------------------

UNARY = dict(relu=F.relu, tanh=torch.tanh, sigmoid=torch.sigmoid, gelu=F.gelu, softplus=F.softplus,
             gelu_tanh=lambda x: F.gelu(x, approximate="tanh"))


def elementwise():
    for op, fn in UNARY.items():
        yield record(op, "shape", fn, [real("x", 3, 7, scale=4.0)])
        yield record(op, "far", fn, [given("x", [-100.0, -50.0, -30.0, -1e-3, 1e-3, 30.0, 50.0, 100.0])])
        yield record(op, "zero", fn, [given("x", [0.0, -0.0])])
    clamp = lambda lo, hi: lambda x: torch.clamp(x, lo, hi)
    for lo, hi in ((-0.25, 0.5), (None, 0.5), (-0.25, None)):
        args = dict(min=lo, max=hi)
        yield record("clamp", "shape", clamp(lo, hi), [real("x", 5, 5)], args)
        yield record("clamp", "boundary", clamp(lo, hi), [given("x", [-0.25, 0.5])], args)     # slope 1 there
    for op, fn in dict(softmax=F.softmax, log_softmax=F.log_softmax).items():
        for shape in ((3, 7), (1, 1), (17, 10)):
            yield record(op, "shape", lambda x: fn(x, -1), [real("x", *shape, scale=4.0)])
        yield record(op, "large", lambda x: fn(x, -1), [real("x", 4, 5, scale=1024.0, shift=4096.0)])


def linear():
    act = dict(UNARY, none=lambda x: x)
    del act["softplus"]
    for a, (n, i, o) in itertools.product(act, ((3, 5, 7), (1, 1, 1), (17, 9, 33))):
        inputs = [real("x", n, i), real("weight", o, i), real("bias", o)]
        yield record("linear", f"{n}x{i}x{o}", lambda x, w, b: act[a](F.linear(x, w, b)), inputs, dict(act=a))
    yield record("linear", "no_bias", F.linear, [real("x", 4, 3), real("weight", 5, 3)], dict(act="none"))


# --- losses ----------------------------------------------------------------------------------------------

def loss():
    target = [3, 0, -100, 4, 1, 3, -100, 2]
    off_on = (False, True)
    for how, smooth, ignore, weighted in itertools.product(("mean", "sum"), (0.0, 0.1), off_on, off_on):
        args = dict(reduction=how, label_smoothing=smooth, ignore_index=-100, weighted=weighted)
        t = target if ignore else [abs(v) % 5 for v in target]
        inputs = [real("logits", 8, 5, scale=4.0), ints("target", t)]
        if weighted:
            inputs.append(real("class_weight", 5, scale=0.5, shift=1.0, grad=False))
        fn = lambda x, y, w=None: F.cross_entropy(x, y, w, reduction=how, label_smoothing=smooth)
        yield record("cross_entropy", "ignored" if ignore else "all", fn, inputs, args)
    plain = dict(reduction="mean", label_smoothing=0.0, ignore_index=-100, weighted=False)
    yield record("cross_entropy", "one", F.cross_entropy, [real("logits", 1, 3), ints("target", [2])], plain)
    yield record("cross_entropy", "large", F.cross_entropy,
                 [real("logits", 4, 5, scale=1024.0), ints("target", [0, 1, 2, 3])], plain)
    yield record("cross_entropy", "ignore_2", lambda x, y: F.cross_entropy(x, y, ignore_index=2),
                 [real("logits", 4, 5), ints("target", [0, 2, 2, 3])], dict(plain, ignore_index=2))
    for how, shape in itertools.product(("mean", "sum"), ((3, 7), (1,), (2, 3, 5))):
        x, y = real("x", *shape, scale=4.0), real("target", *shape, scale=4.0)
        fn = lambda x, y: F.mse_loss(x, y, reduction=how)
        yield record("mse", "shape", fn, [x, y], dict(reduction=how))
        for delta in (1.0, 0.5):
            fn = lambda x, y: F.huber_loss(x, y, reduction=how, delta=delta)
            yield record("huber", "shape", fn, [x, y], dict(reduction=how, delta=delta))
        p = real("target", *shape, scale=0.5, shift=0.5, grad=False)
        fn = lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=how)
        yield record("bce_with_logits", "shape", fn, [x, p], dict(reduction=how))
    far = [given("x", [-200.0, -40.0, 0.0, 40.0, 200.0, -200.0, 200.0]),
           given("target", [1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 1.0], grad=False)]
    yield record("bce_with_logits", "far", F.binary_cross_entropy_with_logits, far, dict(reduction="mean"))
    yield record("huber", "kink", lambda x, y: F.huber_loss(x, y, reduction="sum"),
                 [given("x", [-1.0, 0.0, 1.0]), given("target", [0.0, 0.0, 0.0])],
                 dict(reduction="sum", delta=1.0))


# --- normalisation ---------------------------------------------------------------------------------------

def norm():
    for shape, eps in (((3, 7), 1e-5), ((2, 3, 5), 1e-5), ((4, 1), 1e-5), ((3, 7), 1e-2)):
        n, args = shape[-1], dict(eps=eps)
        inputs = [real("x", *shape, scale=2.0, shift=3.0), real("weight", n, shift=1.0), real("bias", n)]
        yield record("layer_norm", "shape", lambda x, w, b: F.layer_norm(x, (n,), w, b, eps), inputs, args)
    yield record("layer_norm", "plain", lambda x: F.layer_norm(x, (5,)), [real("x", 3, 5)], dict(eps=1e-5))
    yield record("layer_norm", "constant_row", lambda x: F.layer_norm(x, (4,)),
                 [given("x", [2.0, 2.0, 2.0, 2.0], 1, 4)], dict(eps=1e-5))
    shapes = ((5, 3), (4, 3, 5, 2), (1, 3, 5, 2), (2, 1, 1, 1), (1, 3))
    for shape, train in itertools.product(shapes, (True, False)):
        if train and shape == (1, 3):
            continue        # one value a channel: PyTorch refuses to train on it
        c = shape[1]
        inputs = [real("x", *shape, scale=2.0, shift=3.0), real("weight", c, shift=1.0), real("bias", c),
                  real("running_mean", c, grad=False),
                  real("running_var", c, scale=0.5, shift=1.0, grad=False)]

        def fn(x, w, b, mean, var):
            mean, var = mean.clone(), var.clone()
            return F.batch_norm(x, mean, var, w, b, train, 0.1, 1e-5), mean, var

        args = dict(train=train, momentum=0.1, eps=1e-5)
        yield record("batch_norm", "x".join(map(str, shape)), fn, inputs, args,
                     ("y", "running_mean", "running_var"))


# --- convolution, pooling, embedding ---------------------------------------------------------------------

def conv():
    #      x shape        cout  kernel  stride  padding dilation groups bias
    for c in (((2, 3, 5, 7), 4, (3, 3), (1, 1), (0, 0), (1, 1), 1, True),
              ((2, 3, 5, 7), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
              ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
              ((3, 2, 7, 6), 5, (3, 3), (2, 2), (1, 1), (1, 1), 1, True),
              ((2, 2, 9, 9), 3, (3, 3), (1, 1), (2, 2), (2, 2), 1, True),
              ((2, 4, 6, 5), 6, (3, 3), (1, 1), (1, 1), (1, 1), 2, True),
              ((2, 3, 5, 5), 3, (3, 3), (1, 1), (1, 1), (1, 1), 3, True),
              ((2, 2, 8, 8), 4, (3, 3), (3, 3), (2, 2), (2, 2), 2, True),
              ((2, 3, 7, 9), 2, (1, 1), (2, 2), (0, 0), (1, 1), 1, True),
              ((2, 1, 9, 8), 3, (5, 5), (1, 1), (2, 2), (1, 1), 1, True),
              ((2, 2, 7, 8), 3, (3, 2), (2, 1), (1, 0), (1, 2), 1, True),
              ((1, 2, 2, 2), 2, (3, 3), (1, 1), (1, 1), (1, 1), 1, True)):
        shape, cout, kernel, stride, padding, dilation, groups, bias = c
        inputs = [real("x", *shape), real("weight", cout, shape[1] // groups, *kernel)]
        inputs += [real("bias", cout)] if bias else []
        fn = lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, dilation, groups)
        yield record("conv2d", "shape", fn, inputs,
                     dict(stride=stride, padding=padding, dilation=dilation, groups=groups))


def pool():
    #      x shape        kernel  stride  padding
    for c in (((2, 3, 6, 8), (2, 2), (2, 2), (0, 0)), ((2, 3, 5, 7), (2, 2), (2, 2), (0, 0)),
              ((1, 2, 7, 7), (3, 3), (2, 2), (1, 1)), ((2, 1, 5, 6), (3, 3), (1, 1), (0, 0)),
              ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((2, 2, 6, 5), (3, 2), (2, 1), (1, 0))):
        shape, kernel, stride, padding = c
        args = dict(kernel=kernel, stride=stride, padding=padding)
        yield record("max_pool2d", "shape", lambda x: F.max_pool2d(x, kernel, stride, padding),
                     [real("x", *shape)], args)
        yield record("avg_pool2d", "shape", lambda x: F.avg_pool2d(x, kernel, stride, padding),
                     [real("x", *shape)], dict(args, count_include_pad=True))
    tie = given("x", [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], 1, 1, 2, 4)
    yield record("max_pool2d", "tie", lambda x: F.max_pool2d(x, 2), [tie],
                 dict(kernel=(2, 2), stride=(2, 2), padding=(0, 0)))


def embedding():
    yield record("embedding", "repeated", F.embedding, [ints("index", [3, 0, 3, 3, 6]), real("weight", 7, 5)])
    yield record("embedding", "matrix", F.embedding,
                 [ints("index", [[1, 2, 3], [3, 2, 2]]), real("weight", 4, 3)])
    yield record("embedding", "padding", lambda i, w: F.embedding(i, w, padding_idx=2),
                 [ints("index", [1, 2, 3, 2, 1]), real("weight", 4, 3)], dict(padding_idx=2))


# --- recurrent layers ------------------------------------------------------------------------------------

def recurrent_case(kind, name, t, n, size, hidden, layers=1, both=False, lengths=None, start=True, **kw):
    """x is (T, N, input), h0 and c0 are (layers * directions, N, hidden), as PyTorch has them."""
    layer = dict(rnn=nn.RNN, gru=nn.GRU, lstm=nn.LSTM)[kind]
    module = layer(size, hidden, layers, bidirectional=both, **kw).double()
    names = [k for k, _ in module.named_parameters()]
    states = (["h0"] + ["c0"] * (kind == "lstm")) * start
    inputs = [real("x", t, n, size)]
    inputs += [real(s, layers * (1 + both), n, hidden) for s in states]
    inputs += [real(k, *p.shape, scale=0.5) for k, p in module.named_parameters()]

    def fn(x, *rest):
        first = rest[:len(states)]
        first = (first[0] if kind != "lstm" else first) if first else None
        packed = x
        if lengths:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        weights = dict(zip(names, rest[len(states):]))
        y, last = torch.func.functional_call(module, weights, (packed, first))
        y = nn.utils.rnn.pad_packed_sequence(y, total_length=t)[0] if lengths else y
        return (y, *last) if kind == "lstm" else (y, last)

    args = dict(num_layers=layers, bidirectional=both, lengths=lengths, **kw)
    return record(kind, name, fn, inputs, args, ("y", "h_n", "c_n"))


def recurrent():
    for kind in ("rnn", "gru", "lstm"):
        yield recurrent_case(kind, "one_step", 1, 1, 1, 1)
        yield recurrent_case(kind, "one_layer", 5, 3, 4, 3)
        yield recurrent_case(kind, "no_start", 4, 2, 3, 5, start=False)
        yield recurrent_case(kind, "two_layers", 4, 3, 3, 4, layers=2)
        yield recurrent_case(kind, "both_directions", 4, 2, 3, 3, both=True)
        yield recurrent_case(kind, "two_layers_both", 5, 3, 3, 5, layers=2, both=True)
        lengths = [3, 5, 1, 4]
        yield recurrent_case(kind, "packed", 5, 4, 3, 3, lengths=lengths)
        yield recurrent_case(kind, "packed_two_layers_both", 5, 4, 3, 3, layers=2, both=True, lengths=lengths)
    yield recurrent_case("rnn", "relu", 4, 3, 3, 5, layers=2, nonlinearity="relu")


FILES = dict(elementwise=elementwise, linear=linear, loss=loss, norm=norm, conv=conv, pool=pool,
             embedding=embedding, recurrent=recurrent)


def main():
    global seeds
    setup()
    for name in sys.argv[1:] or FILES:
        seeds = itertools.count(1)
        cases = list(FILES[name]())
        write(__file__, name, {}, "cases", cases)


if __name__ == "__main__":
    main()
