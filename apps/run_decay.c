/* SPDX-License-Identifier: MIT */
/*
 * --log-decay: the decay report of a run, into decay.csv and log.jsonl. Its moments are kept beside resume.safetensors, in
 * decay.safetensors, so that the first record after a resume is that of an unbroken run. Without that file, or when a kill
 * came between the two, the moments begin anew: the record's column tracked then tells how many steps they saw.
 */
#include "run_state.h"
#include "rundir.h"
#include "safetensors.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char FILE_NAME[] = "decay.safetensors";

int run_decay_open(run *r, tn_err *e) {
    if (!r->how.log_decay) return 0;
    r->usage = 1;
    if (!(r->report = tn_decay_report_new(r->model->params, r->optim, r->how.log_decay, e))) return -1;
    r->usage = 0;
    return 0;
}

int run_decay_log(run *r, tn_err *e) {
    int n;
    const tn_decay_row *row = tn_decay_report_rows(r->report, &n);
    if (!n || !r->files) return 0;
    json_t *tensors = json_array();
    for (int i = 0; i < n; i++, row++) {
        json_t *j = json_object();
        json_object_set_new(j, "tensor", json_string(row->name));
        json_object_set_new(j, "decay_rms", json_number(row->decay_rms));
        json_object_set_new(j, "gradient_rms", json_number(row->gradient_rms));
        json_object_set_new(j, "update_rms", json_number(row->update_rms));
        json_object_set_new(j, "grad_rms", json_number(row->grad_rms));
        json_object_set_new(j, "weight_norm", json_number(row->weight_norm));
        json_object_set_new(j, "update_ratio", json_number(row->update_ratio));
        json_object_set_new(j, "tracked", json_integer(row->tracked));
        json_array_append_new(tensors, j);
        if (rundir_decay(r->files, r->step, row, e)) {
            json_decref(tensors);
            return -1;
        }
    }
    return rundir_event(r->files, "decay",
                        json_pack("{s:I, s:o}", "step", (json_int_t)r->step, "tensors", tensors), e);
}

int run_decay_save(run *r, tn_err *e) {
    if (!r->report) return 0;
    const char *path = rundir_path(r->files, FILE_NAME);
    const long tracked = tn_decay_report_tracked(r->report);
    if (!tracked)
        return unlink(path) && errno != ENOENT ? tn_fail(e, "%s: cannot remove: %s", path, strerror(errno))
                                               : 0;
    st_item item = {.name = "moments", .nd = 1};
    char step[32], count[32];
    item.x = tn_decay_report_moments(r->report, &item.n);
    item.dim[0] = (int)item.n;
    snprintf(step, sizeof step, "%ld", r->step);
    snprintf(count, sizeof count, "%ld", tracked);
    json_t *meta = json_pack("{s:s, s:s}", "tern.step", step, "tern.tracked", count);
    int code = tn_st_write(path, 1, &item, meta, e);
    json_decref(meta);
    return code;
}

static long number_of(const st_file *f, const char *key) {
    const char *s = f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
    return s ? strtol(s, NULL, 10) : -1;
}

int run_decay_restore(run *r, const char *dir, tn_err *e) {
    char path[CONFIG_PATH + 32];
    size_t len;
    st_file f;
    int bad = 0;
    if (!r->report || !r->step) return 0;
    snprintf(path, sizeof path, "%s/%s", dir, FILE_NAME);
    if (access(path, F_OK)) return 0;
    if (!tn_st_open(&f, path, e)) {
        tn_real *moments = tn_decay_report_moments(r->report, &len);
        const st_tensor *t = tn_st_find(&f, "moments");
        const long tracked = number_of(&f, "tern.tracked");
        if (number_of(&f, "tern.step") == r->step && t && t->n == len && tracked > 0) {
            if (!(bad = tn_st_read(&f, t, moments, 1, e))) tn_decay_report_go_on(r->report, tracked);
        }
    } else {
        bad = -1;
    }
    tn_st_close(&f);
    return bad;
}
