#!/bin/sh
# tern compare from outside: exit codes, files, going on after kill -9 and SIGINT, diverged runs, --from, the pilot.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
root=${TERN_SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd -P)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TERN_DATA TERN_SIMD
failed=0

fail() {
    echo "compare: $*" >&2
    failed=1
}

# expect CODE TEXT ARGUMENT...: the exit code, and TEXT somewhere in the output.
expect() {
    code=$1
    text=$2
    shift 2
    "$tern" compare "$@" >out.txt 2>err.txt
    got=$?
    [ $got = "$code" ] || fail "tern compare $*: exit code $got instead of $code: $(head -n 3 err.txt)"
    cat out.txt err.txt | grep -qF -- "$text" || fail "tern compare $*: no '$text' in: $(cat out.txt err.txt)"
    [ "$code" != 2 ] || [ "$(wc -l <err.txt)" -eq 1 ] || fail "tern compare $*: more than one line: $(cat err.txt)"
}

# A comparison's JSON without what may differ between equal ones.
equal() {
    grep -v '"seconds"' "$1" >one.txt
    grep -v '"seconds"' "$2" >two.txt
    [ -s one.txt ] && cmp -s one.txt two.txt || fail "$3: $1 and $2 differ: $(diff one.txt two.txt | head -n 5)"
}

# From "comparisons" on: what the statistics say.
statistics() {
    sed -n '/"comparisons"/,/^  \]/p' "$1" | sed 's/^  \],$/  ]/'
}

small="--data synthetic:n=400,test=200,height=12,width=12 --models mlp:hidden=16 --train-size 0 --val-size 40 --epochs 2"

# ---- usage ----
expect 2 "weight_decay" $small --optimizers adam,adamw --group '*.bias=weight_decay=1'
expect 2 "no parameter's name matches" $small --optimizers adaml2,adamw --group 'nothing=lr=1'
expect 0 "usage: tern compare" --help
expect 2 "did you mean --optimizers" --optimiser adam
expect 2 "two at least" $small --optimizers adam
expect 2 "adamw" $small --optimizers adam,adamv
expect 2 "weight_decay" $small --optimizers adamw,adam:weight_decay=1
expect 2 "mlp" $small --models mpl
expect 2 "--epochs" $small --epochs none
expect 2 "does not start with a name" $small --optimizers lr=3
expect 2 "comma" $small --optimizers adam,
expect 2 "--seeds" $small --seeds 0
expect 2 "no preset" --pilot --models logistic
expect 2 "no meaning with --from" --from x.csv --epochs 3
expect 2 "no meaning with --pilot" --pilot --json
expect 1 "/nowhere" --data /nowhere
expect 0 "adamw:lr=1e-3,weight_decay=2" --optimizers adam,adamw:lr=1e-3,weight_decay=2 --dry-run
grep -q "adamw: as given" out.txt || fail "--dry-run does not say that adamw was not tuned"
[ ! -e runs ] || fail "a refused comparison left the directory runs"

# ---- options for some parameters ----
"$tern" compare $small --optimizers adam,adamw --seeds 2 --group '*.bias=lr=1e-9' --group 'fc1.weight=lr=0.02' --out grouped --quiet \
    >out.txt 2>err.txt || fail "--group: $(cat err.txt)"
grep -qF -- "--group '*.bias=lr=1e-9' --group 'fc1.weight=lr=0.02'" grouped/results.json || fail "results.json does not name the groups"
for run in grouped/*/*/config.json; do
    grep -qF '"fc1.weight=lr=0.02"' "$run" || fail "$run: no group"
done
rm -r grouped

# ---- the same numbers one after the other, side by side, and from files ----
expect 0 '"comparisons"' $small --seeds 8 --out one --jobs 1 --json
cp out.txt one.json
expect 0 '"comparisons"' $small --seeds 8 --out two --jobs 2 --json --quiet
[ ! -s err.txt ] || fail "--quiet: $(cat err.txt)"
equal one.json out.txt "--jobs 1 and 2"
equal one.json one/results.json "stdout and results.json"
[ "$(grep -c '"test_accuracy"' one.json)" -eq 24 ] || fail "not 24 runs in the JSON"
[ "$(grep -c '"verdict"' one.json)" -eq 3 ] || fail "not 3 comparisons in the JSON"
for key in model a b mean_diff ci95 ci_simultaneous p p_holm d_z prob_improvement margin verdict; do
    statistics one.json | grep -q "\"$key\"" || fail "no $key in the comparisons"
done
expect 0 '"runs"' --from one/results.json --json
statistics out.txt >json.txt
expect 0 '"runs"' --from one/results.csv --margin 0.5 --json
statistics out.txt >csv.txt
statistics one.json >direct.txt
cmp -s direct.txt json.txt || fail "--from results.json: other statistics"
cmp -s direct.txt csv.txt || fail "--from results.csv: other statistics"

# ---- going on ----
find one -name summary.json -exec ls -l --time-style=full-iso {} + >before.txt 2>/dev/null
expect 0 "At these settings" $small --seeds 8 --out one
awk 'length > 80 { exit 1 }' out.txt || fail "a line is longer than 80 columns"
grep -q "0 runs to train, 24 finished" err.txt || fail "a second call trains again: $(head -n 2 err.txt)"
find one -name summary.json -exec ls -l --time-style=full-iso {} + >after.txt 2>/dev/null
cmp -s before.txt after.txt || fail "a second call touched finished runs"
equal one.json one/results.json "a second call"
grep -q "the 200 test images" out.txt || fail "the number of test images is not said"
grep -v "^Time:\|^$" out.txt >direct.txt
expect 0 "At these settings" --from one/results.json
grep -v "^Time:\|^$" out.txt >from.txt
cmp -s direct.txt from.txt || fail "--from results.json: another report: $(diff direct.txt from.txt | head -n 5)"
rm -r one/mlp/adamw-3
expect 0 "1 runs to train, 23 finished" $small --seeds 8 --out one
equal one.json one/results.json "one run done again"

long="$small --epochs 600 --seeds 7"
"$tern" compare $long --out whole --quiet >/dev/null || fail "the comparison that others are held against"
for signal in KILL INT TERM; do
    "$tern" compare $long --out broken$signal >/dev/null 2>live$signal.txt &
    pid=$!
    tries=0
    while ! grep -q '/21\] ' live$signal.txt 2>/dev/null && [ $tries -lt 1200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    kill -$signal $pid
    wait $pid
    code=$?
    [ $signal != INT ] || [ $code -eq 130 ] || fail "SIGINT: exit code $code"
    [ $signal != TERM ] || [ $code -eq 143 ] || fail "SIGTERM: exit code $code"
    [ ! -e broken$signal/results.json ] || fail "SIG$signal came too late for this test"
    expect 0 "finished earlier" $long --out broken$signal
    ! grep -q " 0 finished earlier" err.txt || fail "after SIG$signal everything is trained again"
    equal whole/results.json broken$signal/results.json "SIG$signal and going on"
done

# ---- runs that must not be mixed ----
expect 1 "another run (--epochs differs)" $small --seeds 8 --out one --epochs 3
expect 1 "--force" $small --seeds 8 --out one --batch 16
equal one.json one/results.json "refused comparisons"
expect 0 "24 runs to train" $small --seeds 8 --out two --epochs 3 --force
expect 1 "computed as" $small --seeds 8 --out one --gemm openblas
sed '/"numeric_mode"/{s/float32/float64/;:a;n;ba}' one.json >mixed.json
expect 1 "numeric modes" --from mixed.json

# ---- a run that diverged ----
expect 0 "diverged" $small --seeds 6 --optimizers sgd:lr=0.1,sgd:lr=1e6,weight_decay=1000 --out far
[ "$(grep -c '"diverged": true' far/results.json)" -eq 6 ] || fail "6 runs should have diverged"
[ "$(grep -c '"test_accuracy": 0.1000' far/results.json)" -ge 6 ] || fail "a diverged run does not count as guessing"
grep -q "accuracy of guessing" out.txt || fail "the tables do not say that runs diverged"
expect 0 "accuracy of guessing" --from far/results.csv

# ---- too few seeds ----
expect 0 "p < 0.05 is impossible" $small --seeds 5 --out few
grep -q "impossible" err.txt || fail "too few seeds: no warning before the runs"
grep -q "undecided" out.txt || fail "5 seeds cannot decide"

# ---- results from elsewhere ----
pair() {
    echo 'optimizer,"seed",model,value,note'
    for seed in 1 2 3 4 5 6 7; do
        echo "plain,$seed,\"a, model\",0.80,"
        echo "new,$seed,\"a, model\",0.8$seed,\"x \"\"y\"\"\""
    done
}
pair >pair.csv
expect 0 "new is better than plain" --from pair.csv
grep -q "0.0156" out.txt || fail "p of 7 positive differences is not 2/2^7"
grep -q "+4.00" out.txt || fail "the mean difference is not 4 points"
expect 0 "undecided" --from pair.csv --level 0.99
{
    grep -v ',7,' pair.csv
    for seed in 1 2 3 4 5 6; do echo "third,$seed,\"a, model\",0.9$seed,"; done
} >triple.csv
expect 0 "7 are needed" --from triple.csv # the interval is shared by three pairs
expect 0 "are equivalent" --from pair.csv --margin 20
pair | sed 's/$/\r/' >crlf.csv
expect 0 "new is better than plain" --from crlf.csv
echo '[{"model":"m","optimizer":"x","seed":1,"value":0.5},{"model":"m","optimizer":"y","seed":1,"value":0.5}]' >least.json
expect 0 "impossible" --from least.json
expect 1 "cannot open" --from no_such_file.csv
pair | sed 's/0.80/80/' >bad.csv
expect 1 "fractions" --from bad.csv
pair | sed 's/value/accuracy/' >bad.csv
expect 1 "has no value" --from bad.csv
pair | sed 's/plain,3/plain,2/' >bad.csv
expect 1 "is there twice" --from bad.csv
pair | sed 's/plain,3/plain,3.5/' >bad.csv
expect 1 "whole number" --from bad.csv
pair | sed '5s/.*/plain,3/' >bad.csv
expect 1 "record 5" --from bad.csv
pair | grep -v new >bad.csv
expect 1 "nothing to compare" --from bad.csv
printf 'model,optimizer,seed,value\n"a' >bad.csv
expect 1 "" --from bad.csv
: >bad.csv
expect 1 "has no model" --from bad.csv
printf '{"runs": [' >bad.json
expect 1 "line 1" --from bad.json
pair | sed '2d' >left.csv
expect 0 "no partner" --from left.csv

# ---- the pilot, and the preset that stands on it ----
expect 0 "best of" --pilot --seeds 1 --out pilot $small --models mlp --epochs 1 --quiet
[ "$(grep -c 'best$' pilot/mlp_pilot.tsv)" -eq 3 ] || fail "the pilot has not one best setting an optimizer"
sed -n 's/^# settings tried: adam \([0-9]*\), adaml2 \([0-9]*\), adamw \([0-9]*\);.*/\1 \2 \3/p' pilot/mlp_pilot.tsv >budget.txt
awk '{ exit !(NF == 3 && $2 == $3 && $1 >= $2) }' budget.txt || fail "the pilot's budgets: $(cat budget.txt)"
"$tern" compare --dry-run >plan.txt
for table in "$root"/apps/presets/*_pilot.tsv; do
    for optimizer in adam adaml2 adamw; do
        spec=$(awk -F '\t' -v o=$optimizer '
            $1 == o && ($4 > best || ($4 == best && $6 < loss)) { best = $4; loss = $6; lr = $2; wd = $3 }
            END { printf "%s:lr=%s", o, lr; if (o != "adam") printf ",weight_decay=%s", wd }' "$table")
        name=$(basename "$table" _pilot.tsv)
        "$tern" compare --dry-run --models "$name" | grep -q " $spec\$" ||
            fail "preset $name: $optimizer is not the table's best, $spec"
    done
done
# What the note on mlp's pilot says about one learning rate for all.
note=$(awk -F '\t' '$2 == "0.0032" && $4 > best[$1] { best[$1] = $4 }
    END { printf "adam %.1f%%, adaml2 %.1f%% and adamw %.1f%%", 100 * best["adam"], 100 * best["adaml2"], 100 * best["adamw"] }' \
    "$root/apps/presets/mlp_pilot.tsv")
tr -s ' \n' ' ' <plan.txt | grep -qF "$note" || fail "the note on mlp's pilot does not say '$note'"

[ $failed -eq 0 ] && echo "compare: all good"
exit $failed
