/* SPDX-License-Identifier: MIT */
/*
 * Use from C++17: the header compiles as it is, handles fit unique_ptr, an option table and an optimizer
 * may be defined here, and the panic hook may throw: the exception passes through the library and the
 * tape goes on after a reset.
 */
#include "probe.h"
#include "tern.h"
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct deleter {
    void operator()(tn_tape *t) const {
        tn_tape_free(t);
    }
    void operator()(tn_params *p) const {
        tn_params_free(p);
    }
    void operator()(tn_optim *o) const {
        tn_optim_free(o);
    }
};
template <class T> using owned = std::unique_ptr<T, deleter>;

namespace {
struct hyper {
    double lr;
};
const tn_opt options[] = {TN_OPT_REAL(hyper, lr, 0.1, 0, 1, TN_OPEN_MIN, "step size"), TN_OPT_END};

tn_optim_def plain_sgd() {
    tn_optim_def d = {};
    d.abi = TN_ABI, d.size = sizeof d, d.name = "plain", d.summary = "w -= lr g", d.source = "none";
    d.hp_size = sizeof(hyper), d.hp = options, d.scope = TN_ELEMENT;
    d.update = [](const void *hp, const tn_tick *tick, const tn_opt_tensor *p, size_t lo, size_t hi) {
        const tn_real lr = static_cast<tn_real>(static_cast<const hyper *>(hp)->lr * tick->lr_mul);
        for (size_t i = lo; i < hi; i++) p->w[i] -= lr * p->g[i];
    };
    return d;
}
tn_t *matrix(tn_tape *tape, const std::vector<tn_real> &v, int rows) {
    const int dim[] = {rows, static_cast<int>(v.size()) / rows};
    return tn_input(tape, v.data(), 2, dim);
}
} // namespace

int main() {
    tn_err e;
    owned<tn_tape> tape(tn_tape_new(&e));
    EXPECT(tape, "%s", e.msg);
    owned<tn_params> params(tn_params_new());
    const tn_linear fc = tn_linear_new(params.get(), "fc", 2, 1, 1);
    EXPECT(tn_params_seal(params.get(), 1, &e) == 0, "%s", e.msg);
    const tn_optim_def def = plain_sgd();
    owned<tn_optim> optim(tn_optim_new_def(params.get(), &def, "lr=0.2", &e));
    EXPECT(optim, "%s", e.msg);

    tn_on_panic(
        tape.get(), [](void *, const char *msg) { throw std::runtime_error(msg); }, nullptr);
    std::string caught;
    try {
        tn_linear_fwd(&fc, matrix(tape.get(), {1, 2, 3}, 1), TN_ACT_RELU);
    } catch (const std::runtime_error &x) {
        caught = x.what();
    }
    EXPECT(caught.find("(1, 3)") != std::string::npos, "'%s' does not name the shape", caught.c_str());

    double loss = 1; /* y = 2 a - b + 0.5, exactly */
    for (long t = 1; t <= 300; t++) {
        tn_tape_reset(tape.get());
        tn_t *x = matrix(tape.get(), {0, 0, 0, 1, 1, 0, 1, 1}, 4);
        tn_t *y = matrix(tape.get(), {0.5, -0.5, 2.5, 1.5}, 4);
        loss = tn_backward(tn_mse(tn_linear_fwd(&fc, x, TN_ACT_NONE), y, TN_MEAN), params.get(), 0);
        const tn_tick tick = tn_tick_at(t, 300, nullptr, nullptr);
        tn_optim_step(optim.get(), &tick);
    }
    EXPECT(loss < 1e-6, "loss %g", loss);
    EXPECT(std::fabs(fc.weight->w[0] - 2) < 1e-2 && std::fabs(fc.weight->w[1] + 1) < 1e-2, "%g %g",
           static_cast<double>(fc.weight->w[0]), static_cast<double>(fc.weight->w[1]));
    return 0;
}
