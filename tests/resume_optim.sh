#!/bin/sh
# Every optimizer and wrapper: a run that is killed (KILL) and resumed ends with the same state, byte for byte, as one that
# was left alone, on another number of threads; another optimizer on resume is refused. $1: the program.
set -eu
tern=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "resume_optim: $*" >&2
    exit 1
}

# names SECTION: what tern list optimizers shows there
names() {
    "$tern" list optimizers | awk -v want="$1" '/^[a-z]/ {on = $1 == want} on && /^  [a-z]/ {print $1}'
}

# check SPEC [OPTION...]: one run whole, one killed after its first checkpoint and resumed until it is done
check() {
    spec=$1
    shift
    rm -rf whole killed
    set -- --data synthetic:n=64,test=10,height=8,width=8 --val-size 16 --model mlp:hidden=16 --epochs 8 --batch 16 \
        --checkpoint-every 1 --quiet --optimizer "$spec" "$@"
    "$tern" train "$@" --threads 1 --out whole >out.txt 2>&1 || fail "$spec: $(cat out.txt)"
    "$tern" train "$@" --threads 2 --out killed >/dev/null 2>&1 &
    tries=0
    while [ ! -f killed/resume.safetensors ] && [ $tries -lt 500 ]; do
        sleep 0.01
        tries=$((tries + 1))
    done
    kill -KILL $! 2>/dev/null && killed=$((killed + 1))
    wait $! 2>/dev/null || true
    "$tern" train --resume killed --threads 2 --quiet >out.txt 2>&1 || fail "$spec: does not go on: $(cat out.txt)"
    for file in last best resume; do
        cmp whole/$file.safetensors killed/$file.safetensors || fail "$spec: resumed, and $file differs"
    done
    done=$((done + 1))
}

done=0 killed=0
optimizers=$(names optimizers) wrappers=$(names wrappers)
[ "$(echo "$optimizers" | wc -w)" -ge 7 ] || fail "tern list optimizers shows: $optimizers"
[ "$(echo "$wrappers" | wc -w)" -ge 3 ] || fail "tern list optimizers shows the wrappers: $wrappers"
for name in $optimizers; do
    check "$name:lr=0.01"
done
for name in $wrappers; do
    check "adamw:lr=0.01+$name"
done
check sgd:lr=0.1,momentum=0.9+lookahead:k=3+ema:decay=0.9,debias=on
check adamw:lr=0.01+swa:start_step=5,every=2 --group '*.bias=sgd:lr=0.1,momentum=0.9' --group 'fc2.*=lr=0.02,amsgrad=on'
[ $killed -gt $((done / 3)) ] || fail "only $killed of $done runs were killed: the test proves too little"

# ---- Another optimizer, chain or group is another run ---------------------------------------------------------

other() {
    if "$tern" train --resume killed --quiet "$@" >out.txt 2>&1; then fail "resumed with $*"; fi
    grep -q 'contradicts it' out.txt || fail "$*: $(cat out.txt)"
}
other --optimizer adamw:lr=0.01
other --optimizer adamw:lr=0.01+swa:start_step=5,every=3
other --optimizer adamw:lr=0.01+swa:start_step=5,every=2+lookahead
other --group '*.bias=adam:lr=0.1'

# A share of the planned steps pins them; a step number does not.
"$tern" train --resume killed --epochs 9 --quiet >out.txt 2>&1 || fail "a longer run is refused: $(cat out.txt)"
check adamw:lr=0.01+swa:start=0.5
if "$tern" train --resume killed --epochs 9 --quiet >out.txt 2>&1; then fail "swa by share resumed with more epochs"; fi
grep -q 'its optimizer depends on the planned length' out.txt || fail "$(cat out.txt)"
echo "$done optimizers and wrappers, $killed killed"
