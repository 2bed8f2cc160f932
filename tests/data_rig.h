/* SPDX-License-Identifier: MIT */
/* What the tests of data sets share. */
#ifndef TEST_DATA_RIG_H
#define TEST_DATA_RIG_H
#include "tern_data.h"

/* Opens a data set; fails the test with the message when that fails. */
void open_set(const char *where, const tn_data_options *, tn_dataset *);
/* How often each label is there. */
void count_labels(const tn_data *, int n[256]);
/* Of sample i of a part of bytes. */
const unsigned char *pixels_of(const tn_data *, int i);
#endif
