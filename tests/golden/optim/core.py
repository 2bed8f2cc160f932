# SPDX-License-Identifier: MIT
"""The recorder's core: problems, references (PyTorch, optax, plain double), tolerances. The format is in README.md.

A family is one file cases/NAME.py with

    DEFINITION  the formula in one line
    DEFAULTS    every option under the field's name, with its default
    REFERENCES  Torch(...), Optax(...), Plain(...): the first one's numbers are expected, the others are compared
    cases()     yields case(name, options...)
    TENSORS     optional, in place of the two here
"""
import inspect

import numpy as np
import torch

from common import SOURCE, splitmix64

FORMAT = "tern-optim-vectors-1"
STEPS, SHOWN, STATE_SHOWN = 24, (1, 2, 10, 24), (24,)
LATE, LATE_SHOWN = 15, (1, 15, 16, 24)      # the late spike, and the steps shown with it


def odd(n, seed, scale=1.0):
    """n odd multiples of scale/512 in (-scale, scale): short to write, exact in float, never 0."""
    stream = splitmix64(seed)
    return np.array([(2 * (next(stream) >> 55) - 511) / 512 * scale for _ in range(n)], dtype=np.float64)


TENSORS = [
    dict(name="weight", shape=[3, 5], decay=True, seed=101),
    dict(name="bias", shape=[7], decay=False, seed=102),
]


def size(t):
    return int(np.prod(t["shape"]))


def init(t):
    return odd(size(t), t["seed"])


def random(scale=1.0):
    return lambda t: odd(STEPS * size(t), t["seed"] + 100, scale).reshape(STEPS, -1)


def filled(value):
    """value(t, i) at step t from 1, element i."""
    return lambda t: np.array([[float(value(s + 1, i)) for i in range(size(t))] for s in range(STEPS)])


GRADIENTS = {
    "random": random(),
    "small": random(2.0**-24),      # of the size of eps
    "large": random(1024.0),
    "tiny": filled(lambda t, i: 1e-8),
    "zeros": filled(lambda t, i: 0),
    "spike": filled(lambda t, i: 1e4 if t == 1 else 0),        # then silence
    "late_spike": filled(lambda t, i: 1e4 if t == LATE else 0),  # after a silence
    "signs": filled(lambda t, i: 0.5 if (t + i) % 2 == 0 else -0.5),
}
SPECIAL = ("random", "tiny", "zeros", "spike", "late_spike", "signs")
# Rate multipliers that go up and down and are exact in binary.
WAVE = [((7 * t) % 11 + 1) / 8 for t in range(1, STEPS + 1)]
EVERY = tuple(range(1, STEPS + 1))


def case(name, options, gradients="random", lr_mul=None, wd_mul=None, tol=1e-12, shown=SHOWN, state_shown=None,
         only=None, note=None):
    """only: names of the references that know this case ("torch", "optax", "plain"); None: all."""
    if gradients == "late_spike" and shown == SHOWN:
        shown = LATE_SHOWN
    return dict(name=name, options=options, gradients=gradients, lr_mul=lr_mul, wd_mul=wd_mul, tol=tol, shown=shown,
                state_shown=state_shown or (shown if shown == EVERY else STATE_SHOWN), only=only, note=note)


class Run:
    """What a reference gets: tensors, gradients (steps, n) of each, multipliers, the type of number."""

    def __init__(self, tensors, c, dtype=np.float64, nudge=0.0):
        self.tensors, self.dtype, self.steps = tensors, dtype, STEPS
        self.init = [init(t).astype(dtype) for t in tensors]
        g = [GRADIENTS[c["gradients"]](t) for t in tensors]
        # nudge changes gradients by that relative amount, to see how sensitive a case is
        self.grads = [(x * (1 + nudge * np.where(np.arange(x.size).reshape(x.shape) % 2, -1.0, 1.0))).astype(dtype)
                      for x in g]
        self.lr_mul = c["lr_mul"] or [1.0] * STEPS
        self.wd_mul = c["wd_mul"] or [1.0] * STEPS


def flat(x):
    return np.asarray(x, dtype=np.float64).reshape(-1).tolist()


def after(weights, state, evaluated=None):
    e = dict(weights=weights, state=state)
    if evaluated:
        e["eval_weights"] = evaluated
    return e


class Torch:
    """translate(options) -> class, kwargs. slots: PyTorch's name -> the file's. rest: for tensors where takes is false."""

    name = "torch"

    def __init__(self, translate, slots, takes=None, rest=None):
        self.translate, self.slots, self.takes, self.rest = translate, slots, takes, rest

    def source(self):
        return SOURCE

    def describe(self, options):
        cls, kw = self.translate(options)
        d = {"class": "torch.optim." + cls, "kwargs": kw}
        if self.rest:
            d["rest"] = self.rest.describe(options)
        return d

    def build(self, options, params, tensors):
        """The optimizer, with a group for each tensor."""
        cls, kw = self.translate(options)
        make = getattr(torch.optim, cls)
        if "foreach" in inspect.signature(make).parameters:
            kw = dict(kw, foreach=False)
        groups = [dict(params=[p], **({} if t["decay"] or "weight_decay" not in kw else {"weight_decay": 0.0}))
                  for p, t in zip(params, tensors)]
        return make(groups, **kw), kw

    def run(self, r, options):
        dtype = torch.float64 if r.dtype == np.float64 else torch.float32
        torch.set_default_dtype(dtype)  # scalars of the state (NAdam's product of mu) are of the default type
        w = [torch.tensor(x.reshape(t["shape"]), dtype=dtype).requires_grad_(True) for x, t in zip(r.init, r.tensors)]
        opts = []
        for ref, mine in ((self, [not self.takes or self.takes(t) for t in r.tensors]),
                          (self.rest, [bool(self.takes) and not self.takes(t) for t in r.tensors])):
            if any(mine):
                own = [i for i, m in enumerate(mine) if m]
                o, kw = ref.build(options, [w[i] for i in own], [r.tensors[i] for i in own])
                opts.append((ref, o, own, [dict(g) for g in o.param_groups]))
        out = []
        for s in range(r.steps):
            for p, g in zip(w, r.grads):
                p.grad = torch.tensor(g[s], dtype=dtype).reshape(p.shape)
            state = {}
            for ref, o, own, base in opts:
                for group, b in zip(o.param_groups, base):
                    group["lr"] = b["lr"] * r.lr_mul[s]
                    if "weight_decay" in b:
                        group["weight_decay"] = b["weight_decay"] * r.wd_mul[s]
                o.step()
                for i in own:
                    state[r.tensors[i]["name"]] = {ref.slots[k]: flat(v.detach()) for k, v in o.state[w[i]].items()
                                                   if k in ref.slots and v is not None}
            out.append(after({t["name"]: flat(p.detach()) for p, t in zip(w, r.tensors)}, state))
        return out


class Optax:
    """make(options, lr, mask) -> transform; lr: a number or a schedule, mask: {tensor: decays}.
    slots(state) -> {name: {tensor: array}}; evaluated(state, params) -> params to evaluate with, or None.
    call(options) -> the call as text. differs: how it differs from the first reference, or None: it agrees."""

    name = "optax"

    def __init__(self, make, slots, call, differs=None, evaluated=None):
        self.make, self.slots, self.call, self.differs, self.evaluated = make, slots, call, differs, evaluated

    def source(self):
        import optax
        return "optax " + optax.__version__

    def describe(self, options):
        return {"call": self.call(options)}

    def run(self, r, options):
        import jax
        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        import jax.numpy as jnp
        import optax
        names = [t["name"] for t in r.tensors]
        shape = {t["name"]: t["shape"] for t in r.tensors}
        tree = lambda xs: {n: jnp.asarray(x, dtype=r.dtype).reshape(shape[n]) for n, x in zip(names, xs)}
        mul = jnp.asarray(r.lr_mul, dtype=r.dtype)
        lr = options["lr"] if all(m == 1 for m in r.lr_mul) else (lambda count: options["lr"] * mul[count])
        tx = self.make(options, lr, {t["name"]: t["decay"] for t in r.tensors})
        w = tree(r.init)
        state = tx.init(w)
        step = jax.jit(tx.update)
        out = []
        for s in range(r.steps):
            u, state = step(tree([g[s] for g in r.grads]), state, w)
            w = optax.apply_updates(w, u)
            slots = self.slots(state)
            ev = self.evaluated and self.evaluated(state, w)
            out.append(after({n: flat(w[n]) for n in names},
                             {n: {k: flat(v[n]) for k, v in slots.items()} for n in names},
                             ev and {n: flat(ev[n]) for n in names}))
        return out


class Plain:
    """An independent program in double. step(t, w, g, state, o, lr_mul, wd_mul) changes w (an array of the tensor's
    shape) and state (a dict, empty at first) in place; o: the options, weight_decay 0 where the tensor does not decay.
    slots: those of state that are expected. evaluated(w, state, o): array to evaluate with, or None."""

    name = "plain"

    def __init__(self, step, slots, paper, differs=None, evaluated=None):
        self.step, self.slots, self.paper, self.differs, self.evaluated = step, slots, paper, differs, evaluated

    def source(self):
        return "independent double program"

    def describe(self, options):
        return {"paper": self.paper}

    def run(self, r, options):
        w = [x.reshape(t["shape"]).copy() for x, t in zip(r.init, r.tensors)]
        states = [{} for _ in w]
        opts = [options if t["decay"] or "weight_decay" not in options else dict(options, weight_decay=0.0)
                for t in r.tensors]
        names = [t["name"] for t in r.tensors]
        out = []
        for s in range(r.steps):
            for x, g, state, o in zip(w, r.grads, states, opts):
                self.step(s + 1, x, g[s].reshape(x.shape), state, o, r.lr_mul[s], r.wd_mul[s])
            ev = self.evaluated and {n: flat(self.evaluated(x, st, o)) for n, x, st, o in zip(names, w, states, opts)}
            out.append(after({n: flat(x) for n, x in zip(names, w)},
                             {n: {k: flat(st[k]) for k in self.slots if k in st} for n, st in zip(names, states)}, ev))
        return out


def arrays(e):
    """(where, numbers) of one step's expectation."""
    for n, x in e["weights"].items():
        yield ("weights", n), x
    for n, x in e.get("eval_weights", {}).items():
        yield ("eval_weights", n), x
    for n, slots in e["state"].items():
        for k, x in slots.items():
            yield ("state", n, k), x


def distance(got, want, weights_only=False):
    """Largest |a - b| / max|b| over the arrays that both have."""
    worst = 0.0
    for a, b in zip(got, want):
        one = dict(arrays(a))
        for where, y in arrays(b):
            if where not in one or (weights_only and where[0] == "state"):
                continue
            top, diff = max(map(abs, y)), max(abs(p - q) for p, q in zip(one[where], y))
            if not top and diff:
                return float("inf")
            worst = max(worst, diff / top if top else 0.0)
    return worst


def round_up(x):
    return float(f"{x:.0e}")


def word(v):
    return ("on" if v else "off") if isinstance(v, bool) else str(v)


def spec(family, options):
    return family + (":" + ",".join(f"{k}={word(v)}" for k, v in options.items()) if options else "")


def pick(steps, c):
    out = []
    for s in sorted(set(c["shown"]) | set(c["state_shown"])):
        e = dict(step=s, **steps[s - 1])
        if s not in c["state_shown"]:
            del e["state"]
        out.append(e)
    return out


def record(family, module, c):
    """One case of a file, and a line to print about it."""
    tensors = getattr(module, "TENSORS", TENSORS)
    options = {**module.DEFAULTS, **c["options"]}
    refs = [r for r in module.REFERENCES if c["only"] is None or r.name in c["only"]]
    first = refs[0]
    want = first.run(Run(tensors, c), options)
    bend = distance(first.run(Run(tensors, c, nudge=2.0**-52), options), want)
    single = distance(first.run(Run(tensors, c, np.float32), options), want)
    out = dict(name=c["name"], spec=spec(family, c["options"]), options=options, source=first.source(),
               **{first.name: first.describe(options)}, gradients=c["gradients"], lr_mul=c["lr_mul"], wd_mul=c["wd_mul"],
               tol=dict(double=max(c["tol"], round_up(16 * bend)), float=max(2e-5, round_up(4 * single))),
               expect=pick(want, c))
    if c["note"]:
        out["note"] = c["note"]
    for k in ("lr_mul", "wd_mul"):
        if out[k] is None:
            del out[k]
    told = ""
    for other in refs[1:]:
        got = other.run(Run(tensors, c), options)
        d = distance(got, want)
        entry = dict(source=other.source(), **{other.name: other.describe(options)}, distance=round_up(d))
        if d > out["tol"]["double"]:
            if not getattr(other, "differs", None):
                raise SystemExit(f"{family}, {c['name']}: {other.source()} is off by {d:.2g}, and nobody says why")
            entry["differs"] = other.differs
            entry["expect"] = [dict(step=e["step"], weights=e["weights"]) for e in pick(got, c)]
        out.setdefault("others", []).append(entry)
        if "differs" in entry:
            told += f", {other.name} differs by {d:.1g}"
    if out["tol"]["double"] > 1e-12 or out["tol"]["float"] > 2e-5 or told:
        told = f"   {c['name']}: tol {out['tol']['double']}, {out['tol']['float']}{told}"
    return out, told


def head(family, module, cases):
    """The top of a file: definition, tensors, and the gradient sequences that its cases use, written out."""
    tensors = getattr(module, "TENSORS", TENSORS)
    return dict(format=FORMAT, family=family, definition=module.DEFINITION, script=f"tests/golden/optim/cases/{family}.py",
                steps=STEPS,
                tensors=[dict(name=t["name"], shape=t["shape"], decay=t["decay"], init=init(t).tolist()) for t in tensors],
                gradients={g: {t["name"]: GRADIENTS[g](t).tolist() for t in tensors}
                           for g in GRADIENTS if any(c["gradients"] == g for c in cases)})
