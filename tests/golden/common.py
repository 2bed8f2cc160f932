# SPDX-License-Identifier: MIT
"""What the recording scripts share: exact pseudo-random values, and a JSON writer.

Every value that is not stored in a file comes from `uniform`, so that C can make it again bit for bit.
"""
import json
import os
import sys

import numpy as np
import torch

SOURCE = "PyTorch " + torch.__version__.split("+")[0]
MASK = (1 << 64) - 1


def splitmix64(seed):
    """Endless stream of 64-bit integers."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        yield z ^ z >> 31


def uniform(shape, seed, scale=1.0, shift=0.0):
    """shift + scale * (k - 2^20) / 2^20, k the top 21 bits of each draw; row-major.

    Without a shift and with a power of two as scale the value is exact in float as well.
    """
    n = int(np.prod(shape))
    stream = splitmix64(seed)
    k = np.array([next(stream) >> 43 for _ in range(n)], dtype=np.float64)
    return (shift + scale * ((k - 2**20) / 2**20)).reshape(shape)


def tensor(array, dtype=torch.float64, grad=False):
    return torch.tensor(array, dtype=dtype).requires_grad_(grad)


def flat(t):
    """Row-major list of doubles; json writes each with the fewest digits (up to 17) that read back to it."""
    return t.detach().to(torch.float64).reshape(-1).tolist()


def setup():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def write(script, name, head, items_key, items):
    """One JSON object a file beside the script; the members of `items` stand one a line."""
    here = os.path.dirname(os.path.abspath(script))
    golden = os.path.dirname(os.path.abspath(__file__))
    relative = os.path.relpath(os.path.abspath(script), golden).replace(os.sep, "/")
    top = {"source": SOURCE, "script": "tests/golden/" + relative, **head}
    enc = lambda v: json.dumps(v, allow_nan=False, separators=(",", ":"))
    lines = [f"{enc(k)}: {enc(v)}" for k, v in top.items()]
    lines.append(f"{enc(items_key)}: [\n" + ",\n".join(enc(i) for i in items) + "\n]")
    path = os.path.join(here, name + ".json")
    with open(path, "w") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path}: {len(items)} {items_key}, {os.path.getsize(path)} bytes", file=sys.stderr)
