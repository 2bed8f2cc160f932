#!/bin/sh
# tern explain: every optimizer, 80 columns at most, numbers against a program of its own. $1: the program.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

fail() {
    echo "explain: $*" >&2
    failed=1
}

refused() {
    text=$1
    shift
    "$tern" explain "$@" >out.txt 2>err.txt
    [ $? = 2 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -qF -- "$text" err.txt || fail "$*: no '$text' in: $(cat err.txt)"
}

# AdamW and AdamL2 in double: t g m v mhat vhat adaptive decay w, as tern rounds them.
reference() {
    awk -v kind="$1" 'BEGIN {
        n = split("0.5 0.5 -1 0.25", grad); w = 1; lr = 0.1; lambda = 0.1; b1 = 1; b2 = 1
        for (t = 1; t <= n; t++) {
            g = grad[t]; if (kind == "adaml2") g += lambda * w
            b1 *= 0.9; b2 *= 0.999
            m = 0.9 * m + 0.1 * g; v = 0.999 * v + 0.001 * g * g
            mh = m / (1 - b1); vh = v / (1 - b2)
            a = -lr * mh / (sqrt(vh) + 1e-8); d = kind == "adamw" ? -lr * lambda * w : 0
            w += a + d
            if (kind == "adamw") printf "%.5g %.5g %.5g %.5g %.5g %.5g %.5g %.5g %.5g\n", t, g, m, v, mh, vh, a, d, w
            else printf "%.5g %.5g %.5g %.5g %.5g %.5g %.5g %.5g %.5g\n", t, grad[t], g, m, v, mh, vh, a, w
        }
    }'
}

for kind in adamw adaml2; do
    "$tern" explain --optimizer $kind:lr=0.1,weight_decay=0.1 --grads 0.5,0.5,-1,0.25 >out.txt 2>err.txt || fail "$kind: $(cat err.txt)"
    # the rows of one block: several are joined by t
    awk '/^ *[1-4] / { t = $1; $1 = ""; row[t] = row[t] $0 } END { for (t = 1; t <= 4; t++) print t row[t] }' out.txt |
        tr -s ' ' >got.txt
    reference $kind >want.txt
    paste -d '\n' got.txt want.txt | awk 'NR % 2 { n = split($0, a); next } {
        if (split($0, b) != n) bad = 1
        for (i = 1; i <= n; i++) { d = a[i] - b[i]; if (d < 0) d = -d; s = b[i] < 0 ? -b[i] : b[i]; if (d > 2e-5 * s + 1e-9) bad = 1 }
    } END { exit bad }' || fail "$kind: $(cat got.txt) instead of $(cat want.txt)"
done
"$tern" explain --optimizer adamw:lr=0.1,weight_decay=0.1 >out.txt
[ "$(grep -c ' new$\|  w$' out.txt)" = 2 ] || fail "adamw does not fit on one line: $(cat out.txt)"

# every optimizer, alone and beside another, fits and shows its state; wrappers stand behind one
for name in $("$tern" list optimizers | awk '/^  [a-z]/ {print $1}'); do
    "$tern" explain --optimizer "$name" 2>&1 | grep -q "is a wrapper" && name=adamw+$name
    for more in "" "--vs adamw,sgd:momentum=0.9" "--schedule linear --grads 1e-30,-1e20,3,3,3,3,3,3,3,3,3 --w -12345.678"; do
        # shellcheck disable=SC2086
        "$tern" explain --optimizer "$name" $more >out.txt 2>err.txt || fail "$name $more: $(cat err.txt)"
        awk 'length > 80' out.txt | grep . && fail "$name $more: a line of more than 80 columns"
        grep -q "^  new w" out.txt || fail "$name $more: no new w"
    done
    "$tern" explain --optimizer "$name" --json >out.txt || fail "$name --json"
    grep -q '"new w": ' out.txt || fail "$name --json: no new w"
done
"$tern" explain --optimizer adam+ema --json >out.txt
[ "$(grep -c '"wrapper part": 0\.*0*,*$' out.txt)" = 3 ] || fail "ema, which moves no weight: $(grep 'wrapper part' out.txt)"
"$tern" explain --optimizer sgd:lr=0.1+lookahead:k=2 --grads 1,1 --json >out.txt
grep -q '"wrapper part": 0\.0*[1-9]' out.txt || fail "lookahead moves nothing: $(grep 'wrapper part' out.txt)"
"$tern" explain --optimizer adamw --grads 0,-0 >out.txt
grep -q -e '-0 ' -e '-0$' out.txt && fail "a negative zero: $(cat out.txt)"
"$tern" explain --optimizer rprop | grep -q -- '-0 ' && fail "rprop shows a negative zero"

# the parts of a step add up to what the optimizer did
for spec in muon:lr=0.1 muon:lr=0.1,nesterov=off,adjust_lr_fn=match_rms_adamw,eps=0.9 adafactor:lr=0.1,weight_decay=0.1 \
    adafactor:lr=0.5,d=2,eps2=3 radam:weight_decay=0.1 nadam:weight_decay=0.1,decoupled_weight_decay=on \
    schedulefree_adamw:weight_decay=0.1 schedulefree_sgd:weight_decay=0.1,momentum=0.5; do
    "$tern" explain --optimizer $spec --grads 0.5,0.5,-1,0,2,1e-4 --json >out.txt || fail "$spec --json"
    awk -F ': |,$' '
        /"name"/ { name = $2 } /"part": true/ { part[name] = 1; n++ }
        /"values"/ { steps = 1; sum = 0 }
        steps && $0 ~ /^ *"/ { key = $1; gsub(/^ */, "", key); if (key in part) sum += $2
            if (key == "\"new w\"") { d = $2 - (w[k] + sum); if (d < 0) d = -d; if (d > 1e-6) bad = 1; w[++k] = $2 } }
        BEGIN { w[0] = 1; k = 0 }
        END { exit bad || n < 1 || k != 6 }' out.txt || fail "$spec: its parts do not add up: $(cat out.txt)"
done

for name in muon adafactor sgd; do
    [ "$("$tern" explain --optimizer $name | grep -c "^$name works on whole matrices")" = "$([ $name = sgd ] && echo 0 || echo 1)" ] ||
        fail "$name: what it says of whole matrices"
done
"$tern" explain --optimizer sgd:momentum=0.9 --grads 1,1 >out.txt
grep -q "momentum_buffer" out.txt || fail "sgd does not show its buffer"
"$tern" explain --optimizer adamw:lr=0.5 --vs adaml2,sgd:lr=2,adamw:decay=independent >out.txt || fail "--vs"
grep -q "^adaml2:lr=0.5," out.txt || fail "--vs adaml2 does not take over lr: $(head -n 5 out.txt)"
grep -q "^sgd:lr=2," out.txt || fail "--vs sgd:lr=2 loses its own"
grep -q "adamw#2" out.txt || fail "two of a kind have the same name: $(cat out.txt)"
"$tern" explain --optimizer adamw --schedule linear --wd-schedule cosine >out.txt
grep -q "wd_t" out.txt || fail "no multipliers of the schedules"

refused "unknown optimizer" --optimizer adamv
refused "0 <= beta1 < 1" --optimizer adam:beta1=1
refused "'x' is not a number" --grads 1,x
refused "--grads" --grads ""
refused "--grads" --grads 1,,2
refused "--grads" --grads nan
many=$(awk 'BEGIN { for (i = 1; i < 1000; i++) printf "0.5,"; print 1 }')
"$tern" explain --grads "$many" >out.txt || fail "1,000 gradients"
grep -q "^1000 " out.txt || fail "no step 1000"
refused "1001 gradients; 1000 at most: leave out" --grads "$many,1"
refused "follows a validation loss" --schedule plateau
refused "--vs" --vs adam,adam,adam,adam,adam,adam,adam,adam
exit $failed
