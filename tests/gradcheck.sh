#!/bin/sh
# tern gradcheck for every built-in model: right gradients pass, and a tolerance below rounding does not.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failed=0
models=0

fail() {
    echo "gradcheck: $*" >&2
    failed=1
}

small="--batch 3 --samples 5 --outputs 3"
check() {
    models=$((models + 1))
    "$tern" gradcheck --model "$@" $small >"$out" 2>&1 || fail "$*: $(cat "$out")"
    grep -q "^order 2 .* ok$" "$out" || fail "$*: no check of order 2"
    "$tern" gradcheck --model "$@" $small --tolerance 1e-20 >"$out" 2>&1
    got=$?
    [ $got = 1 ] || fail "$* --tolerance 1e-20: exit code $got instead of 1"
    grep -q "^order 1 .* WRONG$" "$out" && grep -q "^order 2 .* WRONG$" "$out" || fail "$*: no WRONG: $(cat "$out")"
}

check mlp:hidden=6,dropout=0.3,layer_norm=on --size 6
check logistic --size 6
check lenet:activation=tanh --size 12
check cnn:filters=2,hidden=6 --size 12
check rnn:hidden=4 --size 5
check gru:hidden=4 --size 5
check lstm:hidden=4 --size 5
check resnet:width=2 --size 8
[ $models = "$("$tern" list models | grep -c '^  [a-z]')" ] || fail "not every model is checked"

[ $failed = 0 ] && echo "gradcheck: all right"
exit $failed
