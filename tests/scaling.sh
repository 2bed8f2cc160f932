#!/bin/sh
# Memory grows neither with steps nor with epochs, and its peak stays within what is promised. $1: the program.
set -eu
tern=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "scaling: $*" >&2
    exit 1
}

# KiB at the peak of: tern train with these options.
peak() {
    "$tern" train --val-size 50 "$@" --quiet --force --threads 1 --out run >/dev/null || fail "tern train $* failed"
    sed -n 's/.*"peak_kib": *\([0-9]*\).*/\1/p' run/summary.json
}

# A sanitizer keeps what was freed: no figures then.
if [ -n "${TERN_SANITIZE:-}" ]; then
    echo "skipped: memory is not measured under a sanitizer"
    exit 77
fi

# 1 MiB: what the system's allocator may do as it likes.
data=synthetic:n=600,test=300,height=28,width=28
for model in mlp:hidden=64 lenet gru:hidden=16; do
    short=$(peak --data $data --model $model --batch 32 --epochs 2)
    long=$(peak --data $data --model $model --batch 32 --epochs 12)
    [ "$short" -gt 1000 ] || fail "$model: peak_kib is '$short'"
    [ "$long" -le $((short + 1024)) ] || fail "$model: $short KiB after 2 epochs, $long KiB after 12"
done

# The whole of MNIST, 47 MB of pixels; the larger of the two batches, the training's 128 and the evaluation's, counts.
mlp=$(peak --data "$TERN_SOURCE_DIR/data/mnist" --model mlp --max-steps 20)
[ "$mlp" -lt $((120 * 1024)) ] || fail "mlp on MNIST: $mlp KiB, more than 120 MiB"
cnn=$(peak --data $data --model cnn --batch 128 --max-steps 2)
[ "$cnn" -lt $((240 * 1024)) ] || fail "cnn at batch 128: $cnn KiB without MNIST's 55 MiB, more than 240 MiB"
