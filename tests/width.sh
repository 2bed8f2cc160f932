#!/bin/sh
# What tern writes for reading fits 80 columns: help, lists, a model, a checkpoint, the head of a run, a plan.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TERN_DATA TERN_SIMD
failed=0

fail() {
    echo "width: $*" >&2
    failed=1
}

# narrow NAME: out.txt has lines, none of them over 80 characters.
narrow() {
    [ -s out.txt ] || fail "$1: no output"
    awk 'length($0) > 80 {print "  " length($0) " columns: " $0; bad = 1} END {exit bad}' out.txt >&2 ||
        fail "$1: lines above"
}

# fits ARGUMENT...: it succeeds and its output is narrow.
fits() {
    "$tern" "$@" >out.txt 2>err.txt || fail "tern $*: exit code $?: $(head -n 3 err.txt)"
    narrow "tern $*"
}

fits help
commands=$("$tern" help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')
[ "$(echo "$commands" | wc -l)" -ge 10 ] || fail "help names too few commands: $commands"
for command in $commands; do fits "$command" --help; done

fits list
for model in $("$tern" list models | sed -n 's/^  \([a-z][a-z0-9_]*\)  *[^ ].*/\1/p'); do
    fits inspect --model "$model"
done
fits compare --dry-run
fits compare --dry-run --models gru:hidden=16 --epochs 3 \
    --optimizers adamw:lr=1e-3,beta1=0.9,beta2=0.999,weight_decay=0.1,decay=coupled,sgd

# Everything up to the first epoch is the head.
for spec in mlp lenet resnet:width=4; do
    rm -rf run
    "$tern" train --data synthetic:n=40,test=10 --val-size 10 --epochs 1 --batch 15 --model "$spec" \
        --optimizer adaml2 --out run --group '*bias:lr=1e-4' >/dev/null 2>err.txt ||
        fail "train $spec: $(tail -n 1 err.txt)"
    sed '/^warning/d; /^epoch /,$d' err.txt >out.txt
    grep -q '^optimizer ' out.txt || fail "train $spec: no head"
    narrow "the head of $spec"
    fits inspect run
done

exit $failed
