/* SPDX-License-Identifier: MIT */
/* What the tests of data sets share. */
#ifndef TEST_DATA_RIG_H
#define TEST_DATA_RIG_H
#include "tern_data.h"

#ifndef TERN_SOURCE_DIR
#define TERN_SOURCE_DIR "."
#endif
#define MNIST TERN_SOURCE_DIR "/data/mnist"
#define SMALL "synthetic:n=1200,test=20,classes=4,height=8,width=8"

/* Opens a data set; fails the test with the message when that fails. */
void open_set(const char *where, const tn_data_options *, tn_dataset *);
/* How often each label is there. */
void count_labels(const tn_data *, int n[256]);
/* Of sample i of a part of bytes. */
const unsigned char *pixels_of(const tn_data *, int i);
#endif
