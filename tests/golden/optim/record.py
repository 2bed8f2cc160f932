# SPDX-License-Identifier: MIT
"""Records the optimizers' vectors, one file a family: all, or those named (record.py adamw sgd). See README.md."""
import importlib
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import core  # noqa: E402
from common import setup  # noqa: E402


def write(family):
    module = importlib.import_module("cases." + family)
    cases, lines = zip(*[core.record(family, module, c) for c in module.cases()])
    enc = lambda v: json.dumps(v, allow_nan=False, separators=(",", ":"))
    top = core.head(family, module, cases)
    gradients = top.pop("gradients")
    text = ["{"] + [f"{enc(k)}: {enc(v)}," for k, v in top.items()]
    text += ['"gradients": {', ",\n".join(f"{enc(k)}: {enc(v)}" for k, v in gradients.items()), "},"]
    text += ['"cases": [', ",\n".join(enc(c) for c in cases), "]", "}"]
    path = os.path.join(HERE, family + ".json")
    with open(path, "w") as f:
        f.write("\n".join(text) + "\n")
    print(f"{family}.json: {len(cases)} cases, {os.path.getsize(path)} bytes", *filter(None, lines), sep="\n",
          file=sys.stderr)


def main():
    setup()
    known = sorted(f[:-3] for f in os.listdir(os.path.join(HERE, "cases")) if f.endswith(".py") and f[0] != "_")
    for family in sys.argv[1:] or known:
        write(family)


if __name__ == "__main__":
    main()
