#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
Seconds of training to a test accuracy on full MNIST, tern beside PyTorch (eager, fused AdamW): the same model, batch,
optimizer, decay (of weights, not of biases), schedule (a short warm-up, then cosine), number of epochs and distribution of
initial weights; no augmentation. The number of epochs is fixed beforehand so that the target is reached at their end, and the time is that of
the whole schedule; a seed that misses the target is shown. Only training steps are timed, on both sides; data lie in
memory, batches are gathered by index. Each run has a process of its own; PyTorch and tern take turns.

    pip install torch==2.13.0 numpy
    python3 tests/bench/time_to_target.py                     PyTorch's cnn takes most of the time
    python3 tests/bench/time_to_target.py --models mlp,lenet --seeds 5
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import mnist
import peers

# model, target, epochs, batch, lr, weight decay
PLANS = {
    "mlp": ("mlp:hidden=128", 0.98, 6, 128, 1e-2, 0.1),
    "lenet": ("lenet", 0.99, 5, 128, 4e-3, 0.05),
    "cnn": ("cnn", 0.992, 10, 128, 2e-3, 0.02),
}
WARMUP = 200  # steps; without it some of cnn's seeds lose units for good and end at 98.8%


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--models", default="mlp,lenet,cnn", help="separated by commas [%(default)s]")
    a.add_argument("--seeds", type=int, default=3, help="runs of each [3]")
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="[one a core]")
    a.add_argument("--tern", default=str(mnist.ROOT / "build" / "tern"), help="the program [%(default)s]")
    a.add_argument("--only", choices=["tern", "torch"], help="one side alone")
    a.add_argument("--json", metavar="FILE", help="every run, as JSON")
    a.add_argument("--torch-run", nargs=2, metavar=("MODEL", "SEED"), help=argparse.SUPPRESS)
    o = a.parse_args()
    o.models = o.models.split(",")
    for model in o.models:
        if model not in PLANS:
            a.error(f"--models: there is {', '.join(PLANS)}, not '{model}'")
    if o.only != "torch" and not o.torch_run and not os.access(o.tern, os.X_OK):
        a.error(f"{o.tern}: no such program; build it (cmake --build build) or name it with --tern")
    return o


def tern_run(o, model, seed):
    spec, _, epochs, batch, lr, decay = PLANS[model]
    with tempfile.TemporaryDirectory() as out:
        command = [o.tern, "train", "--quiet", "--force", "--out", out, "--model", spec, "--val-size", "0",
                   "--epochs", str(epochs), "--batch", str(batch), "--seed", str(seed), "--schedule", f"cosine:warmup={WARMUP}",
                   "--threads", str(o.threads), "--optimizer", f"adamw:lr={lr},weight_decay={decay}"]
        r = subprocess.run(command, env=peers.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if r.returncode:
            raise SystemExit(f"{' '.join(command)}\nended with {r.returncode}:\n{r.stderr[-2000:]}")
        s = json.loads((pathlib.Path(out) / "summary.json").read_text())
    return {"seconds": s["step_seconds"], "accuracy": s["test_accuracy"]}


def torch_run(o, model, seed):
    command = [sys.executable, __file__, "--threads", str(o.threads), "--torch-run", model, str(seed)]
    return peers.run(command)


def multiplier(step, total):
    if step < WARMUP:
        return (step + 1) / WARMUP
    return (1 + math.cos(math.pi * (step - WARMUP) / (total - WARMUP))) / 2


def torch_child(o):
    import torch
    from torch.nn import functional as F

    import peer_torch

    model, seed = o.torch_run[0], int(o.torch_run[1])
    spec, _, epochs, batch, lr, decay = PLANS[model]
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    (x, y), (test_x, test_y) = mnist.train(), mnist.test()
    images, labels = torch.from_numpy(x.copy()).unsqueeze(1), torch.from_numpy(y.astype("int64"))
    nhwc = model != "mlp"
    net = peer_torch.build(spec, "nhwc" if nhwc else "plain")
    groups = [{"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": decay},
              {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0}]
    optim = torch.optim.AdamW(groups, lr=lr, fused=True)
    total = epochs * math.ceil(len(images) / batch)

    def batch_of(images, idx):
        x = images.index_select(0, idx).float().mul_(1 / 255)
        return x.contiguous(memory_format=torch.channels_last) if nhwc else x

    net.train()
    start, step = time.perf_counter(), 0
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for at in range(0, len(order), batch):
            idx = order[at : at + batch]
            for g in optim.param_groups:
                g["lr"] = lr * multiplier(step, total)
            optim.zero_grad(set_to_none=True)
            F.cross_entropy(net(batch_of(images, idx)), labels.index_select(0, idx)).backward()
            optim.step()
            step += 1
    seconds = time.perf_counter() - start
    net.eval()
    right = 0
    test_images, test_labels = torch.from_numpy(test_x.copy()).unsqueeze(1), torch.from_numpy(test_y.astype("int64"))
    with torch.no_grad():
        for at in range(0, len(test_labels), 1000):
            idx = torch.arange(at, min(at + 1000, len(test_labels)))
            right += (net(batch_of(test_images, idx)).argmax(1) == test_labels[idx]).sum().item()
    print(json.dumps({"seconds": seconds, "accuracy": right / len(test_labels)}))


def show(o, rows, sides):
    print(peers.machine() + f", {o.threads} threads")
    head = "".join(f"{peers.NAMES[f] + ' s':>11} {'accuracies %':>19}" for f in sides)
    print(f"{'model':<6}{'target':>7}{'epochs':>7}" + head + (f"{'ratio':>7}" if len(sides) == 2 else ""))
    for model in o.models:
        _, target, epochs, *_ = PLANS[model]
        line, median = f"{model:<6}{target:>7.1%}{epochs:>7}", {}
        for f in sides:
            runs = [r for r in rows if r["model"] == model and r["framework"] == f]
            median[f] = statistics.median(r["seconds"] for r in runs)
            reached = " ".join(f"{100 * r['accuracy']:.2f}" + ("!" if r["accuracy"] < target else "") for r in runs[:3])
            line += f"{median[f]:>11.2f} {reached:>19}"
        if len(sides) == 2:
            line += f"{median['torch'] / median['tern']:>7.1f}"
        print(line)
    missed = sum(r["accuracy"] < PLANS[r["model"]][1] for r in rows)
    if missed:
        print(f"{missed} of {len(rows)} runs missed the target (!)")


def main():
    o = arguments()
    if o.torch_run:
        torch_child(o)
        return
    sides = ["tern", "torch"] if o.only is None else [o.only]
    if "torch" in sides and "torch" not in peers.present():
        sides.remove("torch")
    rows = []
    for model in o.models:
        for seed in range(1, o.seeds + 1):
            for f in sides:
                print(f"{model}, seed {seed}, {peers.NAMES[f]}", file=sys.stderr)
                r = tern_run(o, model, seed) if f == "tern" else torch_run(o, model, seed)
                rows.append({"model": model, "framework": f, "seed": seed} | r)
    show(o, rows, sides)
    if o.json:
        result = {"machine": peers.machine(), "threads": o.threads, "plans": PLANS, "runs": rows}
        pathlib.Path(o.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
