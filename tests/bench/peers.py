#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
Training steps a second of tern beside PyTorch (eager, fused AdamW) and JAX (jit, optax): the same models, batch and
optimizer, in one session. Each framework, model and number of threads runs in a process of its own, in turns, several
rounds; the median of the rounds counts, and of the numbers of threads the better one. Data lie in memory on every side.

    pip install torch==2.13.0 jax optax
    python3 tests/bench/peers.py                          takes some ten minutes
    python3 tests/bench/peers.py --models lenet,cnn --rounds 1
    python3 tests/bench/peers.py --variants FILE          keeps the peers' fastest variants there, or takes them from it

OPENBLAS_*, OMP_* and the like are taken out of the environment: a forced core type halves some machines.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import mnist

HERE = pathlib.Path(__file__).resolve().parent
MODELS = "mlp:hidden=128,mlp:hidden=512/256,lenet,cnn,rnn,gru,lstm"
NEEDS = {"torch": ["torch", "numpy"], "jax": ["jax", "jaxlib", "optax", "numpy"]}
NAMES = {"torch": "PyTorch", "jax": "JAX", "tern": "tern"}


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--models", default=MODELS, help="separated by commas [%(default)s]")
    a.add_argument("--batch", type=int, default=128, help="images a step [128]")
    a.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas [1,2]")
    a.add_argument("--rounds", type=int, default=3, help="[3]")
    a.add_argument("--seconds", type=float, default=2, help="of one measurement [2]")
    a.add_argument("--tern", default=str(mnist.ROOT / "build" / "tern"), help="the program [%(default)s]")
    a.add_argument("--json", metavar="FILE", help="every measurement, as JSON")
    a.add_argument("--variants", metavar="FILE", help="the peers' fastest variants: read where the file is there, and "
                   "written; looking for them is most of the first round's time")
    o = a.parse_args()
    if o.rounds < 1 or o.batch < 1 or o.seconds <= 0:
        a.error("--rounds, --batch and --seconds must be positive")
    o.models = o.models.split(",")
    try:
        o.threads = [int(t) for t in o.threads.split(",")]
    except ValueError:
        a.error("--threads: numbers separated by commas, such as 1,2")
    for model in o.models:
        mnist.spec(model)
    if not os.access(o.tern, os.X_OK):
        a.error(f"{o.tern}: no such program; build it (cmake --build build) or name it with --tern")
    return o


def environment():
    out = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "KMP_", "XLA_", "JAX_", "TERN_")
    return {k: v for k, v in os.environ.items() if not k.startswith(out)}


def run(command):
    r = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if r.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {r.returncode}:\n{r.stderr.strip()[-2000:]}")
    return json.loads(r.stdout)


def peer(o, framework, model, threads, variant):
    command = [sys.executable, HERE / f"peer_{framework}.py", "--model", model, "--batch", str(o.batch),
               "--threads", str(threads), "--seconds", str(o.seconds), "--variant", variant]
    return run(command)


def tern(o, model, threads):
    repeats = 5
    r = run([o.tern, "bench", "--model", model, "--batch", str(o.batch), "--threads", str(threads), "--repeat",
             str(repeats), "--seconds", str(o.seconds / repeats), "--json"])
    row = next(x for x in r["results"] if "images_per_second" in x)
    return {"framework": "tern", "version": r["host"]["tern"], "model": model, "batch": o.batch, "threads": threads,
            "variant": r["host"]["simd"], "images_per_second": row["images_per_second"]}


def present():
    """The peers that are installed; says which are not."""
    there = []
    for framework, needs in NEEDS.items():
        missing = [n for n in needs if importlib.util.find_spec(n) is None]
        if missing:
            print(f"Without {NAMES[framework]}: python3 here has no {', '.join(missing)} (pip install "
                  f"{'torch==2.13.0 numpy' if framework == 'torch' else 'jax optax'})")
        else:
            there.append(framework)
    return there


def measure(o, frameworks):
    """All measurements; a peer that has no variant yet looks for its fastest one, which stays."""
    rows, kept = [], pathlib.Path(o.variants) if o.variants else None
    variant = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for k in range(o.rounds):
        for model in o.models:
            for threads in o.threads:
                for f in frameworks:
                    print(f"round {k + 1} of {o.rounds}: {model}, {NAMES[f]}, threads {threads}", file=sys.stderr)
                    key = f"{f} {model} batch {o.batch} threads {threads}"
                    row = tern(o, model, threads) if f == "tern" else peer(o, f, model, threads, variant.get(key, ""))
                    if f != "tern" and key not in variant:
                        variant[key] = row["variant"]
                        if kept:
                            kept.write_text(json.dumps(variant, indent=1) + "\n")
                    rows.append(row | {"round": k + 1})
    return rows


def best(rows, framework, model):
    """(images a second, threads): the better number of threads by its median over the rounds."""
    by_threads = {}
    for r in rows:
        if r["framework"] == framework and r["model"] == model:
            by_threads.setdefault(r["threads"], []).append(r["images_per_second"])
    return max((statistics.median(v), t) for t, v in by_threads.items())


def show(o, rows, frameworks):
    peers = [f for f in frameworks if f != "tern"]
    columns = ["tern", *peers]
    head = f"{'model':<19}" + "".join(f"{NAMES[f]:>11} {'thr':>3}" for f in columns)
    print(head + (f"  {'tern / best':>11}" if peers else ""))
    for model in o.models:
        found = {f: best(rows, f, model) for f in columns}
        line = f"{model:<19}" + "".join(f"{found[f][0]:>11,.0f} {found[f][1]:>3}" for f in columns)
        if peers:
            line += f"  {found['tern'][0] / max(found[f][0] for f in peers):>11.2f}"
        print(line)


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu}, {cores} cores, {platform.system()}"


def main():
    o = arguments()
    frameworks = [*present(), "tern"]
    rows = measure(o, frameworks)
    versions = [f"{NAMES[f]} {next(r['version'] for r in rows if r['framework'] == f)}" for f in frameworks]
    if "jax" in frameworks:
        versions.append(f"optax {importlib.metadata.version('optax')}")
    simd = next(r["variant"] for r in rows if r["framework"] == "tern")
    print(f"{machine()}, tern at {simd}\n{', '.join(versions)}")
    print(f"Training images/s, batch {o.batch}, AdamW, float; better of {'/'.join(map(str, o.threads))} threads, "
          f"median of {o.rounds}")
    show(o, rows, frameworks)
    if o.json:
        result = {"machine": machine(), "batch": o.batch, "seconds": o.seconds, "measurements": rows}
        pathlib.Path(o.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
