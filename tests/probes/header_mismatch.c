/* SPDX-License-Identifier: MIT */
/*
 * A caller whose header does not match the library (other version, float for double) is told so at
 * tn_tape_new.
 */
#include "probe.h"
#include "tern.h"

int main(void) {
    static const struct {
        const char *what;
        int abi;
        size_t real, tensor;
    } wrong[] = {
        {"another version of the structs", TN_ABI + 1, sizeof(tn_real), sizeof(struct tn_t)},
        {"an older version of the structs", TN_ABI - 1, sizeof(tn_real), sizeof(struct tn_t)},
        {"double for float", TN_ABI, sizeof(double), sizeof(struct tn_t)},
        {"a tensor of another size", TN_ABI, sizeof(tn_real), sizeof(struct tn_t) + 8},
    };
    for (int i = 0; i < 4; i++) {
        tn_err e = {""};
        tn_tape *tape = tn_tape_new_checked(wrong[i].abi, wrong[i].real, wrong[i].tensor, &e);
        EXPECT(!tape, "%s was accepted", wrong[i].what);
        EXPECT(strlen(e.msg) > 20, "%s: no message", wrong[i].what);
        EXPECT(!tn_tape_new_checked(wrong[i].abi, wrong[i].real, wrong[i].tensor, NULL),
               "a tn_err may be NULL");
        printf("%s: %s\n", wrong[i].what, e.msg);
    }

    /* A definition carries abi and size of its struct: a shorter, older one is taken, a newer one refused. */
    tn_params *params = tn_params_new();
    tn_param_add(params, NULL, "w", 0, tn_init_const(1), 0, NULL);
    EXPECT(tn_params_seal(params, 1, NULL) == 0, "no memory");
    static const struct {
        int abi;
        size_t size;
        int good;
    } plugin[] = {
        {TN_ABI, sizeof(tn_optim_def), 1},
        {TN_ABI, offsetof(tn_optim_def, shrink), 1},
        {TN_ABI, sizeof(tn_optim_def) + sizeof(void *), 0},
        {TN_ABI + 1, sizeof(tn_optim_def), 0},
    };
    for (int i = 0; i < 4; i++) {
        tn_err e = {""};
        tn_optim_def def = *tn_optim_find("sgd");
        def.abi = (uint32_t)plugin[i].abi, def.size = (uint32_t)plugin[i].size;
        tn_optim *optim = tn_optim_new_def(params, &def, NULL, &e);
        EXPECT(!optim == !plugin[i].good, "abi %d, size %zu: %s", plugin[i].abi, plugin[i].size, e.msg);
        tn_optim_free(optim);
    }
    tn_params_free(params);
    EXPECT(strcmp(tn_version(), TN_VERSION) == 0, "library %s, header %s", tn_version(), TN_VERSION);
    tn_err e = {""};
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_tape_free(tape);
    return 0;
}
