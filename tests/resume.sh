#!/bin/sh
# Every model: a run that is killed (KILL, at any moment) and resumed until it is done ends with the same files, byte for
# byte, as one that was left alone; so does one with another number of threads. $1: the program.
set -eu
tern=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "resume: $*" >&2
    exit 1
}

# From the last checkpoint, or from the start when the kill came before the first. Takes the place of its subshell, so that
# $! is the program.
go_on() {
    if [ -f "$model-killed/summary.json" ]; then
        return
    elif [ -f "$model-killed/resume.safetensors" ]; then
        exec "$tern" train --resume "$model-killed" --quiet >/dev/null
    else
        exec "$tern" train "$@" --force --out "$model-killed" >/dev/null
    fi
}

models=$("$tern" list models | awk '/^  [a-z]/ {print $1}')
[ "$(echo "$models" | wc -w)" -ge 8 ] || fail "tern list models shows: $models"
data=synthetic:n=120,test=20,height=28,width=28
for model in $models; do
    options="--data $data --val-size 20 --epochs 3 --batch 16 --optimizer adamw:lr=1e-3 --checkpoint-every 1 --quiet"
    # shellcheck disable=SC2086
    set -- --model "$model" $options
    "$tern" train "$@" --threads 1 --out "$model-whole" >/dev/null
    "$tern" train "$@" --threads 2 --out "$model-two" >/dev/null
    killed=0
    for moment in 0.1 0.2 0.4; do
        go_on "$@" &
        sleep $moment
        kill -KILL $! 2>/dev/null && killed=$((killed + 1))
        wait $! 2>/dev/null || true # the shell's word on the kill, and 137
    done
    (go_on "$@") || fail "$model: could not go on after $killed kills"
    for other in two killed; do
        for file in last best resume; do
            cmp "$model-whole/$file.safetensors" "$model-$other/$file.safetensors" || fail "$model: $other, $file differs"
        done
    done
    echo "$model: killed $killed times"
done
