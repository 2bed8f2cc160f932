#!/bin/sh
# tern conformance: the built-in optimizers pass; one that is wrong fails, with the mistake behind it; refusals; JSON.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd -P)
out=$(mktemp)
trap 'rm -f "$out"' EXIT
failed=0

fail() {
    echo "conformance: $*" >&2
    failed=1
}

# run EXIT-CODE arguments: output to $out
run() {
    want=$1
    shift
    "$tern" conformance "$@" >"$out" 2>&1
    got=$?
    [ $got = "$want" ] || fail "$*: exit code $got instead of $want: $(tail -3 "$out")"
}
holds() {
    tr '\n' ' ' <"$out" | tr -s ' ' | grep -q -- "$1" || fail "no '$1' in: $(tail -5 "$out")"
}

run 0
holds "in float"
holds " 0 failed"
[ "$(grep -c ' ok$' "$out")" -ge 130 ] || fail "fewer than 130 cases"
for family in "$here"/golden/optim/*.json; do
    grep -q "^$(basename "$family" .json)/every_step .* ok$" "$out" || fail "$family was not judged"
done
awk 'length > 80 && !/vectors in/ { exit 1 }' "$out" || fail "a line is longer than 80 columns"

run 0 --optimizer adamw
holds " 0 failed"
grep -q "^adam/" "$out" && fail "--optimizer adamw: the vectors of adam"
run 1 --optimizer adaml2 --as adamw --failures
holds "decay goes through the moments"
holds " left out"
grep -q " ok$" "$out" && fail "--failures shows what passes"
run 1 --optimizer adamw --as adaml2
holds "is: decay beside the step"
run 1 --optimizer adam:eps=1e-5
holds "failures is: another default of epsilon: 1e-5"
run 1 --optimizer sgd --as adam
run 1 --optimizer adam:eps=1e-5 --json
grep -q '"verdict": "FAILED"' "$out" && grep -q '"mistake": "another default of epsilon: 1e-5"' "$out" || fail "no verdict in JSON"

run 2 --optimizer adamx
holds "did you mean"
run 2 --as adamq
holds "did you mean"
run 2 --vectors /nowhere
holds "no such folder"
run 2 --vectors "$here/golden/optim/cases"
holds "no files of vectors"
run 1 --vectors "$here/golden/schedules"
holds "not a file of optimizer vectors"

# The adapter judges what it holds itself, a step without a mistake and steps with one, by the same vectors.
if command -v python3 >/dev/null 2>&1; then
    python3 - "$here/golden/optim" >"$out" 2>&1 <<'PY' || fail "adapter.py: $(tail -5 "$out")"
import io
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import adapter

def judge(bad, family):
    text = io.StringIO()
    failures = adapter.judge(lambda case, tensors: adapter.plain(case, tensors, bad), [family], out=text)
    return failures, text.getvalue()

for family in ("sgd", "adam", "adaml2", "adamw"):
    failures, text = judge(None, family)
    assert failures == 0 and " 0 failed" in text, text
for bad in adapter.MISTAKES:
    family = "sgd" if bad in ("momentum", "nesterov", "first_damped") else "adaml2" if bad == "decay_beside" else "adamw"
    failures, text = judge(bad, family)
    assert failures > 0 and text.split("failures is:\n    ")[-1].startswith(adapter.MISTAKES[bad] + "\n"), (bad, text)
PY
fi

[ $failed = 0 ] && echo "conformance: all right"
exit $failed
