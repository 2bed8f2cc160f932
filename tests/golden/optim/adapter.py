#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the optimizer vectors beside this file against any Python callable. Needs the standard library alone.

    python3 adapter.py torch                               PyTorch's own optimizers (needs torch)
    python3 adapter.py my_module:factory --family adamw    yours

factory(case, tensors) returns step(t, gradients, lr_mul, wd_mul) -> weights, or None: this case is left out.

    case       {"family", "name", "options": {"lr": 0.001, ...}, "torch": {"class", "kwargs"}, ...} as in README.md
    tensors    [{"name", "shape", "decay", "init": [...]}]
    gradients  {name: [...]} of step t = 1, 2, ...; lr_mul and wd_mul multiply lr and weight_decay in this step
    weights    {name: [...]} after the step, row-major; or (weights, {name: {slot: [...]}}) to have state compared, too

From Python: adapter.judge(factory, families=["adamw"]) returns the number of failures.
"""
import argparse
import importlib
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def deviation(got, want):
    """max |got - want| / max |want|; what is not finite is infinitely far."""
    if len(got) != len(want):
        return math.inf
    top, far = max(map(abs, want)), max(abs(a - b) if math.isfinite(a) else math.inf for a, b in zip(got, want))
    return 0.0 if far == 0 else far / top if top else math.inf


def run(step, f, case):
    """(weights after every step, largest deviation, where); step is the factory's."""
    expect = {e["step"]: e for e in case["expect"]}
    ones, path, worst, where = [1.0] * f["steps"], [], 0.0, ""
    for t in range(1, f["steps"] + 1):
        g = {name: steps[t - 1] for name, steps in f["gradients"][case["gradients"]].items()}
        w = step(t, g, case.get("lr_mul", ones)[t - 1], case.get("wd_mul", ones)[t - 1])
        w, state = w if isinstance(w, tuple) else (w, {})
        path.append({name: [float(x) for x in w[name]] for name in g})
        e = expect.get(t, {"weights": {}})
        both = [(name, name, w[name], want) for name, want in e["weights"].items()]
        both += [(name, f"{name}, {slot}", state[name][slot], want) for name, slots in e.get("state", {}).items()
                 for slot, want in slots.items() if slot in state.get(name, {})]
        for _, what, got, want in both:
            d = deviation([float(x) for x in got], want)
            if d > worst:
                worst, where = d, f"step {t}, {what}"
    return path, worst, where


# ---- known mistakes: a plain step that makes one, to find out which gives the numbers of one that fails ----

MISTAKES = {
    "step_sign": "wrong sign of the step: it goes uphill",
    "eps_inside": "epsilon inside the root",
    "eps_hat": "epsilon added before the bias correction (epsilon hat)",
    "no_correction": "missing bias correction",
    "no_correction_m": "missing bias correction of the first moment",
    "no_correction_v": "missing bias correction of the second moment",
    "correction_times": "bias correction multiplied instead of divided",
    "first_damped": "dampening applied to the first gradient as well",
    "t_per_tensor": "step counter advanced once a tensor instead of once a step",
    "t_ahead": "step counter off by one: the first step uses beta^2",
    "beta_swap": "beta1 and beta2 swapped",
    "shared": "moments shared between tensors",
    "decay_moments": "decay goes through the moments (L2 in the place of decoupled decay)",
    "decay_beside": "decay beside the step (decoupled, in the place of L2)",
    "decay_twice": "double decay",
    "decay_half": "half the decay",
    "decay_sign": "wrong sign of the decay: weights grow",
    "decay_after": "decay applied after the step, to the updated weights",
    "decay_biases": "biases decayed: the list of tensors without decay is ignored",
    "decay_ignored": "weight_decay ignored",
    "decay_no_lr": "decay without the learning rate",
    "decay_no_schedule": "decay with the initial learning rate: the schedule does not reach it",
    "schedule": "learning-rate schedule ignored",
    "amsgrad": "amsgrad ignored",
    "momentum": "momentum ignored",
    "nesterov": "nesterov ignored",
}


def plain(case, tensors, bad=None):
    """A factory: sgd and the Adams, with the mistake `bad`; None for other families and rules."""
    o, family, state = dict(case["options"]), case["family"], {}
    if family not in ("sgd", "adam", "adaml2", "adamw") or o.get("decay", "l2") not in (
            "l2", "decoupled", "coupled", "independent"):
        return None
    if any(v is True and k not in ("amsgrad", "nesterov") for k, v in o.items()):
        return None
    beside = family == "adamw" or o.get("decay") == "decoupled"
    beside = {"decay_moments": False, "decay_beside": True}.get(bad, beside)
    rate = 1.0 if (o.get("decay") == "independent") != (bad == "decay_no_lr") else o["lr"]
    lam = o.get("weight_decay", 0.0) * {"decay_twice": 2, "decay_half": 0.5, "decay_sign": -1, "decay_ignored": 0}.get(bad, 1)
    b1, b2 = (o.get("beta1", 0), o.get("beta2", 0))[::-1 if bad == "beta_swap" else 1]
    w = {t["name"]: list(t["init"]) for t in tensors}

    def direction(s, i, g, t):
        if family == "sgd":
            mu = 0 if bad == "momentum" else o["momentum"]
            if not mu:
                return g
            take = 1 if t == 1 and bad != "first_damped" else 1 - o["dampening"]
            s[0][i] = mu * s[0][i] + take * g
            return g + mu * s[0][i] if o["nesterov"] and bad != "nesterov" else s[0][i]
        s[0][i] = b1 * s[0][i] + (1 - b1) * g
        s[1][i] = v = b2 * s[1][i] + (1 - b2) * g * g
        if o["amsgrad"] and bad != "amsgrad":
            s[2][i] = v = max(s[2][i], v)
        c1 = 1 if bad in ("no_correction", "no_correction_m") else 1 - b1**t
        c2 = 1 if bad in ("no_correction", "no_correction_v") else 1 - b2**t
        if bad == "correction_times":
            c1, c2 = 1 / c1, 1 / c2
        if bad == "eps_hat":
            return s[0][i] / c1 * math.sqrt(c2) / (math.sqrt(v) + o["eps"])
        return s[0][i] / c1 / (math.sqrt(v / c2 + o["eps"]) if bad == "eps_inside" else math.sqrt(v / c2) + o["eps"])

    def step(t, gradients, lr_mul, wd_mul):
        for n, tensor in enumerate(tensors):
            x, size = w[tensor["name"]], len(tensor["init"])
            s = state.setdefault(0 if bad == "shared" else n, [[0.0] * 64 for _ in range(3)])
            at = (t - 1) * len(tensors) + n + 1 if bad == "t_per_tensor" else t + (bad == "t_ahead")
            mul = 1.0 if bad == "schedule" else lr_mul
            decay = lam * wd_mul if tensor["decay"] or bad == "decay_biases" else 0.0
            shrink = decay * rate * (1.0 if bad == "decay_no_schedule" else mul) if beside else 0.0
            for i, g in zip(range(size), gradients[tensor["name"]]):
                u = o["lr"] * mul * direction(s, i, g + (0.0 if beside else decay * x[i]), at)
                u = -u if bad == "step_sign" else u
                x[i] = (x[i] - u) * (1 - shrink) if bad == "decay_after" else x[i] - shrink * x[i] - u
        return w

    return step


def reproduces(path, f, case, bad, tol):
    """True when the step with that mistake makes the same weights all the way."""
    step = plain(case, f["tensors"], bad)
    if not step:
        return False
    try:
        other, _, _ = run(step, f, case)
    except (ArithmeticError, ValueError):
        return False
    return all(deviation(a[n], b[n]) <= 3 * tol for a, b in zip(path, other) for n in b)


# ---- the table ----

def load(family):
    with open(os.path.join(HERE, family + ".json")) as f:
        return json.load(f)


def families():
    return sorted(n[:-5] for n in os.listdir(HERE) if n.endswith(".json"))


def judge(factory, families=families(), number="double", failures_only=False, out=sys.stdout):
    """Runs the vectors, prints the table, returns how many fail."""
    passed = failed = left = 0
    print(f"{'case':44} {'deviation':>11} {'allowed':>9}  verdict", file=out)
    for family in families:
        f, rows = load(family), []
        for case in f["cases"]:
            case = dict(case, family=family)
            step = factory(case, f["tensors"])
            if step is None:
                left += 1
                continue
            tol = case["tol"][number]
            path, worst, where = run(step, f, case)
            said = None
            if not worst <= tol:
                right = reproduces(path, f, case, None, tol)     # then it is the state
                said = [] if right else [m for m in MISTAKES if reproduces(path, f, case, m, tol)]
            rows.append((f"{family}/{case['name']:{43 - len(family)}} {worst:11.1e} {tol:9.0e}  ", where, said))
        count = {m: sum(m in (said or ()) for _, _, said in rows) for m in MISTAKES}
        wrong = sum(said is not None for _, _, said in rows)
        for row, where, said in rows:
            if said is not None:
                why = MISTAKES[max(said, key=count.get)] if said else "no known mistake makes these numbers"
                print(f"{row}FAILED\n    {where}\n    {why}", file=out)
            elif not failures_only:
                print(f"{row}ok", file=out)
        best = max(count, key=count.get)
        if count[best]:
            print(f"{family}: the likeliest mistake behind {count[best]} of {wrong} failures is:\n    {MISTAKES[best]}", file=out)
        passed, failed = passed + len(rows) - wrong, failed + wrong
    print(f"{passed} passed, {failed} failed" + (f", {left} left out" if left else ""), file=out)
    return failed


# ---- an example: PyTorch's own optimizers ----

def entry_of(case):
    """Which of PyTorch's optimizers makes the numbers: their source, or another one that agrees with it; or None."""
    agree = [o["torch"] for o in case.get("others", ()) if "torch" in o and "differs" not in o]
    return case.get("torch") or (agree[0] if agree else None)


def pytorch(dtype="float64", **always):
    """A factory for the class and the arguments that each case names; `always` goes over them (foreach=True, ...)."""
    import torch
    kind = getattr(torch, dtype)
    torch.set_default_dtype(kind)  # scalars of a state are of the default type
    torch.Tensor.bfloat16 = torch.Tensor.clone  # Muon's iteration in that type as well, in the place of bfloat16

    def build(entry, tensors, w):
        kw = {**entry["kwargs"], **always}
        plain = {} if "weight_decay" not in kw else {"weight_decay": 0.0}
        opt = getattr(torch.optim, entry["class"].split(".")[-1])(
            [dict(params=[w[t["name"]]], **({} if t["decay"] else plain)) for t in tensors], **kw)
        return opt, [dict(g) for g in opt.param_groups]

    def move(built, lr_mul, wd_mul):
        opt, first = built
        for group, at_first in zip(opt.param_groups, first):
            group["lr"] = at_first["lr"] * lr_mul
            if "weight_decay" in group:
                group["weight_decay"] = at_first["weight_decay"] * wd_mul
        opt.step()

    def factory(case, tensors):
        entry = entry_of(case)
        if entry is None or not set(entry) <= {"class", "kwargs", "rest", "then"}:
            return None
        w = {t["name"]: torch.tensor(t["init"], dtype=kind).reshape(t["shape"]).requires_grad_() for t in tensors}
        takes = [t for t in tensors if "rest" not in entry or len(t["shape"]) == 2]  # Muon's: matrices
        rest, then = [t for t in tensors if t not in takes], entry.get("then")
        built = [build(entry, takes, w)] + ([build(entry["rest"], rest, w)] if rest else [])
        second = then and build(then, tensors, w)

        def step(t, gradients, lr_mul, wd_mul):
            for name, x in w.items():
                x.grad = torch.tensor(gradients[name], dtype=kind).reshape(x.shape)
            if then and t > then["after"]:
                for x in (w[tensor["name"]] for tensor in tensors if tensor["decay"]):
                    x.data.mul_(1 - then["kwargs"]["lr"] * lr_mul * case["options"]["weight_decay"] * wd_mul)
                move(second, lr_mul, wd_mul)
            else:
                for one in built:
                    move(one, lr_mul, wd_mul)
            return {name: x.detach().reshape(-1).tolist() for name, x in w.items()}

        return step

    return factory


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", help="torch, or MODULE:FACTORY")
    p.add_argument("--family", action="append", choices=families(), help="repeatable; without it: all")
    p.add_argument("--number", choices=("double", "float"), default="double", help="what the optimizer computes in")
    p.add_argument("--failures", action="store_true", help="show only the cases that fail")
    a = p.parse_args()
    if a.what == "torch":
        factory = pytorch("float64" if a.number == "double" else "float32")
    else:
        sys.path.insert(0, os.getcwd())
        module, _, name = a.what.partition(":")
        factory = getattr(importlib.import_module(module), name or "factory")
    return 1 if judge(factory, a.family or families(), a.number, a.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
