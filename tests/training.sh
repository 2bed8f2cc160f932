#!/bin/sh
# What a run can be told about its steps: schedules that listen, a schedule of the decay, what is not finite. Each is obeyed or refused,
# recorded, and resumed to the same bits. $1: the program.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

fail() {
    echo "training: $*" >&2
    failed=1
}

# refused TEXT OPTION...: a usage error, one line with TEXT in it.
refused() {
    text=$1
    shift
    # shellcheck disable=SC2086
    "$tern" train $small --out refused "$@" >out.txt 2>err.txt
    [ $? = 2 ] && [ "$(wc -l <err.txt)" -eq 1 ] && grep -qF -- "$text" err.txt || fail "$*: no '$text' in: $(cat err.txt)"
    [ ! -e refused ] || fail "$*: refused, but left its directory"
}

# whole NAME OPTION...: one run left alone, one that is stopped twice (inside an epoch and at its end): the same files.
whole() {
    name=$1
    shift
    # shellcheck disable=SC2086
    "$tern" train $small --threads 1 --out "$name" "$@" >"$name.txt" 2>&1 || fail "$name: $(cat "$name.txt")"
    for stop in 10 34; do
        # shellcheck disable=SC2086
        "$tern" train $small --threads 2 --out "$name-$stop" --max-steps $stop "$@" >out.txt 2>&1 || fail "$name: $(cat out.txt)"
        # shellcheck disable=SC2086
        "$tern" train --resume "$name-$stop" --quiet $again >out.txt 2>&1 || fail "$name, resumed at $stop: $(cat out.txt)"
        for file in last.safetensors best.safetensors resume.safetensors metrics.csv; do
            cmp "$name/$file" "$name-$stop/$file" || fail "$name: resumed at $stop, $file differs"
        done
    done
}

again= # options that a resume does not find in the run: they decide no bit of its weights
small="--data synthetic:n=600,test=100,height=12,width=12 --val-size 60 --batch 32 --seed 5 --quiet --epochs 4"
model="--model mlp:hidden=24,dropout=0.2"

# ---- schedules ----
# shellcheck disable=SC2086
{
    whole plateau $model --schedule plateau:patience=0,threshold=0.2,factor=0.5,min=0.2,warmup=5
    whole each $model --eval-every 5 --schedule plateau:patience=0,threshold=0.2,factor=0.5
    whole decay $model --optimizer adaml2:weight_decay=0.5 --wd-schedule plateau:patience=0,threshold=0.3
    whole linear $model --optimizer adamw:weight_decay=5 --schedule one_cycle --wd-schedule linear:warmup=4
    whole sam $model --loop sam:rho=0.3 --accumulate 3
    whole none $model --optimizer adamw:weight_decay=5 --schedule one_cycle
}
cmp -s linear/last.safetensors none/last.safetensors && fail "--wd-schedule changes nothing"
grep -q '"wd_schedule": "linear:end=0,warmup=4"' linear/config.json || fail "--wd-schedule is not in config.json"
grep -q '"step":1,.*"wd_multiplier":0.25' linear/log.jsonl || fail "the log has no wd_multiplier"
grep -q 'plateau.*"of":"lr".*"before":1.0,"now":0.5' plateau/log.jsonl || fail "the log does not show the rate's fall"
cut -d , -f 5 plateau/metrics.csv | grep -qx 0.5 || fail "the rate did not fall: $(cat plateau/metrics.csv)"
[ "$(grep -c '"event":"plateau"' each/log.jsonl)" -gt 4 ] || fail "plateau does not follow --eval-every"
"$tern" train --data synthetic:n=200 --val-size 20 --epochs 1 --out shown --wd-schedule cosine --optimizer adamw:weight_decay=5 \
    --group 'fc1*:weight_decay=0.5' >/dev/null 2>err.txt
grep -q 'weight_decay: cosine:end=0,warmup=0' err.txt || fail "the head does not show --wd-schedule: $(cat err.txt)"

refused "no validation images" --schedule plateau --val-size 0
refused "--eval-every 100" --schedule plateau --eval-every 100
refused "no validation images" --wd-schedule plateau --optimizer adamw --val-size 0
refused "no tensor decays" --wd-schedule cosine --optimizer adam
refused "no tensor decays" --wd-schedule cosine --optimizer adamw:weight_decay=0
refused "did you mean \"cosine\"" --wd-schedule cosin
refused "0 < factor < 1" --schedule plateau:factor=2
"$tern" train --resume none-10 --wd-schedule linear >out.txt 2>err.txt
grep -q "contradicts" err.txt || fail "another --wd-schedule on resume: $(cat err.txt)"

# compare: adam has nothing for --wd-schedule, and listens to validations as the others do
"$tern" compare --models mlp:hidden=8 --optimizers adam,adamw --seeds 2 --out both --data synthetic:n=300,test=60 --val-size 30 --train-size 200 \
    --epochs 3 --schedule plateau:patience=0,threshold=0.9 --wd-schedule linear --quiet >out.txt 2>err.txt || fail "compare: $(cat err.txt)"
grep -q '"event":"plateau"' both/*/adamw-1/log.jsonl || fail "compare: plateau hears no validation"

# ---- sharpness-aware minimisation ----
grep -q '"loop": "sam:rho=0.3,adaptive=off,eta=0.01"' sam/config.json || fail "--loop is not in config.json"
grep -q '"step":1,.*"ascent_loss":[2-9]' sam/log.jsonl || fail "the log has no ascent_loss"
refused "must be plain or sam" --loop sma
refused "0 < rho" --loop sam:rho=0
refused "without adaptive=on" --loop sam:eta=0.1
refused "must be plain or sam" --loop plain:rho=1
"$tern" train --resume sam-10 --loop plain >out.txt 2>err.txt
grep -q "contradicts" err.txt || fail "another --loop on resume: $(cat err.txt)"

# ---- decay report ----
# shellcheck disable=SC2086
for every in 1 7 30 100; do
    again="--log-decay $every"
    whole report$every $model --optimizer adaml2:weight_decay=0.5 --log-decay $every
    for stop in 10 34; do
        [ $every = 100 ] || cmp report$every/decay.csv report$every-$stop/decay.csv || fail "--log-decay $every: resumed at $stop, decay.csv differs"
    done
    [ $every = 1 ] || cmp report1/resume.safetensors report$every/resume.safetensors || fail "--log-decay $every changes bits"
done
again=
[ "$(awk -F, 'NR > 1 && $1 % 7 == 0' report7/decay.csv | wc -l)" = $((9 * 4)) ] || fail "decay.csv: $(cat report7/decay.csv)"
[ "$(wc -l <report7/decay.csv)" = $((9 * 4 + 1)) ] || fail "decay.csv has other rows"
[ ! -e report100/decay.csv ] || fail "a record, though no step is a multiple of 100"
[ "$(grep -c '"event":"decay"' report7/log.jsonl)" = 9 ] || fail "not 9 decay events in the log"
awk -F, 'NR > 1 && $2 ~ /weight/ && !($3 > 0 && $9 > 0) || NR > 1 && $2 ~ /bias/ && $3 != 0 { exit 1 }' report7/decay.csv ||
    fail "weights do not decay, or biases do: $(cat report7/decay.csv)"
# one that is only asked for after a stop: its first record knows fewer steps, and says so
# shellcheck disable=SC2086
"$tern" train $small $model --optimizer adaml2:weight_decay=0.5 --max-steps 10 --out late >out.txt 2>&1
"$tern" train --resume late --quiet --log-decay 8 >out.txt 2>&1 || fail "--log-decay after a stop: $(cat out.txt)"
[ "$(awk -F, '$2 == "fc1.weight" { printf "%s:%s ", $1, $9 }' late/decay.csv | cut -c 1-10)" = "16:6 24:14" ] || fail "tracked: $(cat late/decay.csv)"
refused "--log-decay" --log-decay -1
# decay that no one factor tells is neither a penalty nor lost
# shellcheck disable=SC2086
for o in adamw:weight_decay=0.5,cautious=on lamb:weight_decay=0.5; do
    "$tern" train $small $model --optimizer $o --epochs 1 --log-decay 5 --out beside --force >out.txt 2>&1 || fail "$o: $(cat out.txt)"
    grep -q '"penalty": 0.0' beside/summary.json || fail "$o: shown as a penalty: $(grep penalty beside/summary.json)"
    awk -F, '$2 == "fc1.weight" && $3 > 0 { n++ } END { exit n == 0 }' beside/decay.csv || fail "$o: no decay in $(cat beside/decay.csv)"
done

# ---- steps that are not finite ----
# Initial weights of one unit so large that the brightest images overflow it.
model="--model mlp:hidden=24/24 --optimizer adamw:lr=1e-3"
# shellcheck disable=SC2086
"$tern" train $small $model --max-steps 0 --out initial >/dev/null
head=$(od -An -tu8 -N8 initial/last.safetensors)
# huge FILE BYTES: fc1.weight comes first; its first row gets this float, little endian.
huge() {
    cp initial/last.safetensors "$1"
    i=0
    # shellcheck disable=SC2059
    while [ $i -lt 144 ]; do
        printf "$2"
        i=$((i + 1))
    done | dd of="$1" bs=1 seek=$((8 + head)) conv=notrunc 2>/dev/null
}
huge some.safetensors '\231\166\026\175' # 1.25e37
huge all.safetensors '\122\216\264\175' # 3e37
# shellcheck disable=SC2086
{
    whole skip $model --init some.safetensors --on-nonfinite skip
    "$tern" train $small $model --init some.safetensors --out stop >out.txt 2>stop.txt
    [ $? = 1 ] || fail "--on-nonfinite stop goes on: $(cat out.txt)"
    "$tern" train $small $model --init all.safetensors --on-nonfinite skip --out all >out.txt 2>all.txt
    [ $? = 1 ] || fail "a run of which no step is finite goes on: $(cat out.txt)"
}
skipped=$(grep -c '"event":"skip"' skip/log.jsonl)
[ "$skipped" -gt 2 ] || fail "no steps were left out: $skipped"
grep -q "^$skipped steps left out" skip.txt || fail "the result counts other than $skipped: $(cat skip.txt)"
grep -q "\"skipped_steps\": $skipped," skip/summary.json || fail "the summary counts other than $skipped"
[ "$(grep -c '"event":"step"' skip/log.jsonl)" = $((68 - skipped)) ] || fail "steps and steps left out are not 68"
grep -q '"event":"skip".*"step":[0-9]*,"nonfinite":"op linear' skip/log.jsonl || fail "the log does not name the tensor"
grep -q '"event":"warning".*op linear.* is not finite; step left out' skip/log.jsonl || fail "no warning of a step left out"
grep -q "op linear.* is not finite" stop.txt || fail "stop does not name the tensor: $(cat stop.txt)"
grep -q "10 steps in a row" all.txt || fail "no word of 10 steps in a row: $(cat all.txt)"
[ "$(grep -c '"event":"skip"' all/log.jsonl)" = 10 ] || fail "not 10 steps were left out"
"$tern" train --resume stop --on-nonfinite skip --quiet >out.txt 2>err.txt || fail "stop resumed with skip: $(cat err.txt)"
"$tern" train --resume skip-10 --on-nonfinite stop >out.txt 2>err.txt && fail "skip resumed with stop"

# ---- what a weak decay leaves ----
"$tern" train --data synthetic:n=600,test=100 --val-size 60 --model mlp:hidden=8 --batch 108 --epochs 2 \
    --optimizer adamw:lr=1e-3,weight_decay=0.1 --out weak >out.txt 2>err.txt || fail "weak: $(cat err.txt)"
# ten steps: 1 - (1 - 1e-4)^10 = 9.9955e-4
grep -q "of a weight a step, 1 - 0.001 of it left at the end" err.txt || fail "weak: $(grep warning err.txt)"
tr '\n' ' ' <err.txt | grep -q "to 1 - 0.001 *over the run" || fail "weak: $(grep -A1 ^decay err.txt)"
exit $failed
