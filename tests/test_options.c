/* SPDX-License-Identifier: MIT */
/* Option tables: strict parsing, ranges, messages, text that parses back to the same bits, help. */
#include "support.h"
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    double rate, open;
    long count;
    int flag, word;
    char path[TN_MAX_TEXT];
    tn_list sizes, none;
} demo;

static const tn_opt opts[] = {
    TN_OPT_REAL(demo, rate, 1e-3, 0, 10, 0, "how fast it goes"),
    TN_OPT_REAL(demo, open, 0.5, 0, 1, TN_OPEN_MIN | TN_OPEN_MAX, "strictly between"),
    TN_OPT_INT(demo, count, 3, -5, 1000000, "how many"),
    TN_OPT_BOOL(demo, flag, 1,
                "a thing that is on or off and whose help is so long that it has to go on in a second "
                "line and even in a third one, since a row ends at eighty columns"),
    TN_OPT_WORD(demo, word, "coupled|independent|normalized", 1, "which"),
    TN_OPT_TEXT(demo, path, "here", "where"),
    TN_OPT_LIST(demo, sizes, "128/64", 1, 4096, "widths"),
    TN_OPT_LIST(demo, none, "", 0, 1, "none"),
    TN_OPT_END};

static demo parsed(const char *text, uint64_t *given) {
    demo d;
    tn_err e = {""};
    tn_opts_default(opts, &d);
    if (tn_opts_parse(opts, &d, text, "demo", given, &e)) fail_msg("%s: %s", text ? text : "NULL", e.msg);
    return d;
}

/* The message with which the text is refused. */
static const char *refused(const char *text) {
    static tn_err e;
    demo d;
    e.msg[0] = 0;
    tn_opts_default(opts, &d);
    if (tn_opts_parse(opts, &d, text, "demo x", NULL, &e) != -1) fail_msg("%s was taken", text);
    assert_contains(e.msg, "demo x");
    return e.msg;
}

static void test_defaults(void **state) {
    (void)state;
    uint64_t given = 99;
    demo d = parsed(NULL, &given);
    assert_int_equal(given, 0);
    assert_true(d.rate == 1e-3 && d.open == 0.5 && d.count == 3 && d.flag == 1 && d.word == 1);
    assert_string_equal(d.path, "here");
    assert_true(d.sizes.n == 2 && d.sizes.v[0] == 128 && d.sizes.v[1] == 64 && d.none.n == 0);
    d = parsed("", &given);
    assert_true(d.rate == 1e-3);
}

static void test_values(void **state) {
    (void)state;
    uint64_t given = 0;
    demo d = parsed("word=coupled,rate=2.5e-1,flag=off,count=-5,sizes=512,path=a b/c=d,none=0.5/1", &given);
    assert_true(d.word == 0 && d.rate == 0.25 && d.flag == 0 && d.count == -5);
    assert_true(d.sizes.n == 1 && d.sizes.v[0] == 512 && d.none.n == 2 && d.none.v[0] == 0.5);
    assert_string_equal(d.path, "a b/c=d");
    assert_int_equal(given, 1 | 4 | 8 | 16 | 32 | 64 | 128);
    d = parsed("rate=10,open=.999", &given);
    assert_int_equal(given, 3);
    d = parsed("rate=1e+1", NULL);
    assert_true(d.rate == 10);
    d = parsed("rate=0,sizes=1/4096", NULL); /* closed bounds may be reached */
    assert_true(d.rate == 0 && d.sizes.v[1] == 4096);
    d = parsed("path=a\\,b\\\\c,count=4", NULL);
    assert_string_equal(d.path, "a,b\\c");
    assert_int_equal(d.count, 4);
    d = parsed("path=", NULL);
    assert_string_equal(d.path, "");
}

static void test_bad_numbers(void **state) {
    (void)state;
    const char *bad[] = {"1x", "x",  "nan", "inf", "-inf", "infinity", "0x10", " 1",
                         "1 ", "1e", "1e+", ".",   "--1",  "1,",       "1.2.3"};
    char text[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "rate=%s", bad[i]);
        refused(text);
    }
    assert_contains(refused("rate=1x"), "rate: \"1x\" is not a number; it must be 0 <= rate <= 10");
    assert_contains(refused("rate=nan"), "not a number");
    assert_contains(refused("rate=1e999"), "too large");
    assert_contains(refused("rate=1e-999"), "too small");
    const char *whole[] = {"1.5", "1e3", "", "x", "4x", " 4", "99999999999999999999"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        snprintf(text, sizeof text, "count=%s", whole[i]);
        assert_contains(refused(text), "count");
    }
    assert_contains(refused("count=1.5"), "is not a whole number; it must be -5 <= count <= 1000000");
    assert_contains(refused("rate="), "rate= needs a value");
}

static void test_ranges(void **state) {
    (void)state;
    assert_contains(refused("rate=-1"), "rate=-1 is out of range; it must be 0 <= rate <= 10");
    assert_contains(refused("rate=10.000001"), "out of range");
    assert_contains(refused("open=0"), "0 < open < 1");
    assert_contains(refused("open=1"), "0 < open < 1");
    assert_contains(refused("count=-6"), "-5 <= count <= 1000000");
    assert_contains(refused("count=1000001"), "out of range");
    assert_contains(refused("sizes=5/0"), "1 <= each <= 4096");
    static const tn_opt half[] = {{"x", TN_REAL_OPT, 0, 1, 0, INFINITY, TN_OPEN_MIN, NULL, "x"}, TN_OPT_END};
    double x;
    tn_err e;
    assert_int_equal(tn_opts_set(half, &x, "x", "0", "t", &e), -1);
    assert_contains(e.msg, "it must be 0 < x");
}

static void test_words_and_lists(void **state) {
    (void)state;
    assert_contains(refused("word=independant"), "did you mean \"independent\"?");
    assert_contains(refused("word=zebra"), "coupled, independent or normalized");
    assert_contains(refused("word=coupl"),
                    "word=coupl is not possible"); /* a part of a word is not the word */
    assert_contains(refused("word=coupled|independent"), "not possible");
    assert_contains(refused("flag=true"), "it must be off or on");
    assert_contains(refused("flag=1"), "it must be off or on");
    assert_contains(refused("sizes=1//2"), "empty element");
    assert_contains(refused("sizes=1/2/"), "empty element");
    assert_contains(refused("sizes="), "sizes= needs numbers");
    assert_contains(refused("sizes=1/a"), "\"a\" is not a number");
    assert_contains(refused("sizes=1/1/1/1/1/1/1/1/1/1/1/1/1/1/1/1/1"), "more than 16");
    assert_int_equal(parsed("sizes=1/1/1/1/1/1/1/1/1/1/1/1/1/1/1/1", NULL).sizes.n, 16);
}

static void test_keys(void **state) {
    (void)state;
    assert_contains(refused("raet=1"), "unknown option \"raet\" (did you mean \"rate\"?)");
    assert_contains(refused("zzzzz=1"), "its options are rate, open, count, flag, word, path, sizes, none");
    assert_null(strstr(refused("zzzzz=1"), "did you mean"));
    assert_contains(refused("rate=1,count=2,rate=1"), "rate is given twice");
    assert_contains(refused("flag"), "flag needs a value");
    assert_contains(refused("rate=1,,count=1"), "an option is missing");
    assert_contains(refused("rate=1,"), "an option is missing");
    assert_contains(refused("=1"), "unknown option \"\"");
    assert_contains(refused("Rate=1"), "did you mean \"rate\"");
    char longer[600] = "path=";
    memset(longer + 5, 'a', 300);
    assert_contains(refused(longer), "longer than");
    memset(longer + 5, 'a', 594);
    assert_contains(refused(longer), "longer than");
    tn_err e;
    demo d;
    assert_int_equal(tn_opts_set(opts, &d, "raet", "1", "t", &e), -1);
    assert_int_equal(tn_opts_set(opts, &d, "rate", "2", "t", &e), 0);
    assert_true(d.rate == 2);
    assert_int_equal(tn_opts_parse(opts, &d, "rate=x", "t", NULL, NULL), -1); /* no place for the message */
}

static void round_trip(const demo *d) {
    char text[4096], again[4096];
    tn_err e = {""};
    demo back;
    int length = tn_opts_text(opts, d, 1, text, sizeof text);
    assert_int_equal(length, strlen(text));
    memset(&back, 0, sizeof back);
    tn_opts_default(opts, &back);
    if (tn_opts_parse(opts, &back, text, "back", NULL, &e)) fail_msg("%s: %s", text, e.msg);
    assert_true(!memcmp(&back.rate, &d->rate, sizeof(double)) && back.count == d->count
                && back.flag == d->flag);
    assert_true(back.word == d->word && back.sizes.n == d->sizes.n && back.none.n == d->none.n);
    assert_memory_equal(back.sizes.v, d->sizes.v, (size_t)d->sizes.n * sizeof(double));
    assert_string_equal(back.path, d->path);
    tn_opts_text(opts, &back, 1, again, sizeof again);
    assert_string_equal(text, again);
}

static void test_text(void **state) {
    (void)state;
    char text[256];
    demo d = parsed(NULL, NULL);
    assert_int_equal(tn_opts_text(opts, &d, 0, text, sizeof text), 0);
    assert_string_equal(text, "");
    tn_opts_text(opts, &d, 1, text, sizeof text);
    assert_string_equal(text,
                        "rate=0.001,open=0.5,count=3,flag=on,word=independent,path=here,sizes=128/64,none=");
    d = parsed("rate=1e-8,sizes=128/65,flag=off,path=a\\,b", NULL);
    tn_opts_text(opts, &d, 0, text, sizeof text);
    assert_string_equal(text, "rate=1e-8,flag=off,path=a\\,b,sizes=128/65");
    round_trip(&d);
    double u[200];
    golden_uniform(7, 5, 200, u);
    for (int i = 0; i < 200; i++) {
        d.rate = fabs(u[i]) * pow(10, -i) + 1.0 / (i + 3);
        d.sizes.v[0] = 1 + fabs(u[i]) / 3;
        d.count = (long)(u[i] * 1e5) + 500000;
        round_trip(&d);
        d.rate = ldexp(d.rate, -4 * i);
        round_trip(&d);
    }
    d.rate = 5e-324;
    round_trip(&d);
    assert_int_equal(tn_opts_text(opts, &d, 1, text, 20), -1);
    assert_true(strlen(text) < 20);
    assert_int_equal(tn_opt_value(&opts[4], &d, text, sizeof text), (int)strlen("independent"));
    assert_string_equal(text, "independent");
    d.rate = 5.5e17;
    tn_opt_value(&opts[0], &d, text, sizeof text);
    assert_string_equal(text, "5.5e17");
}

/* Where the host program's numbers have a comma, a spec means the same. */
static void test_locale(void **state) {
    (void)state;
    const char *comma[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    int found = 0;
    for (size_t i = 0; i < sizeof comma / sizeof *comma && !found; i++)
        found = setlocale(LC_ALL, comma[i]) != NULL;
    demo d = parsed("rate=0.25,sizes=1.5/2", NULL);
    char text[256];
    tn_opts_text(opts, &d, 0, text, sizeof text);
    setlocale(LC_ALL, "C");
    assert_true(d.rate == 0.25 && d.sizes.v[0] == 1.5);
    assert_string_equal(text, "rate=0.25,sizes=1.5/2");
    if (!found) skip();
}

static void test_help(void **state) {
    (void)state;
    char line[512], all[8192] = "";
    FILE *f = tmpfile();
    assert_non_null(f);
    tn_opts_help(opts, f, "    ");
    rewind(f);
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++) {
        assert_true(strlen(line) <= 81);
        assert_true(line[strlen(line) - 2] != ' ');
        assert_memory_equal(line, "    ", 4);
        strcat(all, line);
    }
    fclose(f);
    assert_true(lines >= 10);
    for (const tn_opt *o = opts; o->name; o++) assert_contains(all, o->name);
    assert_contains(all, "rate=0.001");
    assert_contains(all, "how fast it goes (0 <= rate <= 10)");
    assert_contains(all, "(0 < open < 1)");
    assert_contains(all, "which (coupled, independent or normalized)");
    assert_contains(all, "sizes=128/64");
}

static void test_nearest(void **state) {
    (void)state;
    const char *const names[] = {"lr", "beta1", "beta2", "weight_decay", "cosine", "adamw", "adam"};
    const int n = 7;
    assert_string_equal(tn_nearest("wieght_decay", n, names), "weight_decay");
    assert_string_equal(tn_nearest("rl", n, names), "lr");
    assert_string_equal(tn_nearest("beta", n, names), "beta1");
    assert_string_equal(tn_nearest("btea2", n, names), "beta2");
    assert_string_equal(tn_nearest("cos", n, names), "cosine");
    assert_string_equal(tn_nearest("AdamW", n, names), "adamw");
    assert_string_equal(tn_nearest("adma", n, names), "adam");
    assert_string_equal(tn_nearest("decay", n, names), "weight_decay");
    assert_null(tn_nearest("zzz", n, names));
    assert_null(tn_nearest("", n, names));
    assert_null(tn_nearest("momentum", n, names));
    assert_null(tn_nearest("lr", 0, names));
    char longest[200] = "";
    memset(longest, 'a', 199 - 1);
    assert_null(tn_nearest(longest, n, names));
}

static void test_spec(void **state) {
    (void)state;
    char name[8];
    assert_string_equal(tn_spec_split("adamw:lr=1,eps=2", name, sizeof name), "lr=1,eps=2");
    assert_string_equal(name, "adamw");
    assert_string_equal(tn_spec_split("mlp", name, sizeof name), "");
    assert_string_equal(name, "mlp");
    assert_string_equal(tn_spec_split("csv:path=a:b", name, sizeof name), "path=a:b");
    assert_string_equal(tn_spec_split("a_name_too_long:x", name, sizeof name), "x");
    assert_string_equal(name, "a_name_");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_words_and_lists),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_locale),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
