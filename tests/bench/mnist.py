# SPDX-License-Identifier: MIT
"""The MNIST files of data/mnist as numpy arrays, and a model's spec cut into its parts."""
import gzip
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def idx(name):
    import numpy as np  # here: what only wants spec() or ROOT does without numpy

    raw = gzip.decompress((ROOT / "data" / "mnist" / name).read_bytes())
    dims = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(dims)


def train():
    return idx("train-images-idx3-ubyte.gz"), idx("train-labels-idx1-ubyte.gz")


def test():
    return idx("t10k-images-idx3-ubyte.gz"), idx("t10k-labels-idx1-ubyte.gz")


def spec(text):
    """'mlp:hidden=512/256' -> ('mlp', [512, 256]); the other models are taken as they are."""
    name, _, options = text.partition(":")
    key, _, value = options.partition("=")
    known = ("mlp", "lenet", "cnn", "rnn", "gru", "lstm")
    if name not in known or (options and (name != "mlp" or key != "hidden")):
        raise SystemExit(f"{text}: the models here are {', '.join(known)}, with mlp:hidden=N/N...")
    return name, [int(v) for v in value.split("/")] if value else [128]
