#!/bin/sh
# The command line from outside: exit codes and messages, files, resume after kill -9, signals, full disks.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TERN_DATA TERN_SIMD NO_COLOR
failed=0

fail() {
    echo "cli: $*" >&2
    failed=1
}

# expect CODE TEXT ARGUMENT...: the exit code; with code 0 TEXT is in stdout, else in the one line on stderr.
expect() {
    code=$1
    text=$2
    shift 2
    "$tern" "$@" >out.txt 2>err.txt
    got=$?
    [ $got = "$code" ] || fail "tern $*: exit code $got instead of $code: $(head -n 3 err.txt)"
    if [ "$code" = 0 ]; then
        grep -qF -- "$text" out.txt || fail "tern $*: no '$text' on stdout"
    else
        grep -qF -- "$text" err.txt || fail "tern $*: no '$text' in: $(cat err.txt)"
        [ "$code" != 2 ] || [ "$(wc -l <err.txt)" -eq 1 ] || fail "tern $*: more than one line: $(cat err.txt)"
    fi
}

same() {
    cmp -s "$1" "$2" || fail "$3: $1 and $2 differ"
}

# One small kind of run for all: 17 steps an epoch, dropout and a schedule on, the last batch smaller than the others.
small="--data synthetic:n=600,test=100,height=12,width=12 --val-size 60 --batch 32 --seed 5"
model="--model mlp:hidden=32/16,dropout=0.2 --optimizer adamw:lr=3e-3,weight_decay=0.1 --schedule cosine:warmup=7"
train="train $small $model --quiet"

# ---- usage ----
expect 0 "usage: tern" --help
expect 0 "tern 0" --version
expect 0 "--optimizer" train --help
expect 0 "tern 0" train --version
expect 0 "adaml2" list optimizers
expect 0 "--checkpoint" help eval
expect 2 "did you mean train" trian
expect 2 "did you mean --optimizer" train --optimiser adam
expect 2 "--epochs" train --epochs ten
expect 2 "--epochs" train --epochs 0
expect 2 "--epochs" train --epochs
expect 2 "--seed" train --seed 99999999999999999999
expect 2 "--label-noise" train --label-noise 1.5
expect 2 "--shuffle" train --shuffle maybe
expect 2 "--quiet" train --quiet=perhaps
expect 2 "extra" train -- extra
expect 2 "long" train -x
expect 2 "did you mean models" list modles
expect 2 "adamw" train $small --optimizer adamv
expect 2 "weight_decay" train $small --optimizer adam:weight_decay=0.1
expect 2 "mlp" train $small --model mpl
expect 2 "hidden" train $small --model mlp:hiden=3
expect 2 "cosine" train $small --schedule cosin
expect 2 "--accumulate" train $small --accumulate 64
expect 2 "--drop-last" train $small --batch 5000 --drop-last on
expect 2 "noise" train --data synthetic:nois=1
expect 2 "--group" train $small --group 'fc1*'
expect 2 "--checkpoint" eval
expect 2 "empty" data ""
expect 2 "empty" inspect ""
expect 2 "--data" data synthetic:n=60 --data synthetic:n=60
expect 2 "only with --png" data synthetic:n=60 --val-size 0 --zoom 2
expect 2 "only with optimizers" list models --verbose
for words in "--input 1x28x28" "--outputs 10" "--batch 1"; do
    expect 2 "only with --model" inspect nofile $words
done
expect 1 "nofile.json: cannot open: No such file" train --config nofile.json
expect 1 "cannot read: Is a directory" train --config .
expect 2 "unknown schedule" compare --data synthetic:n=600,test=100 --val-size 60 --train-size 0 --models mlp --schedule foo --dry-run
expect 2 "no model foo" compare --data synthetic:n=600,test=100 --val-size 60 --train-size 0 --models foo --dry-run
expect 2 "--val-size" compare --data synthetic:n=600,test=100 --models mlp --val-size 9999 --dry-run
expect 1 "/nowhere" train --data /nowhere
expect 1 "nofile" train $small --init nofile.safetensors
[ ! -e runs ] || fail "a refused run left the directory runs"

# ---- a run and its files ----
expect 0 "accuracy" $train --epochs 3 --out whole --threads 2
for file in config.json log.jsonl metrics.csv summary.json last.safetensors best.safetensors resume.safetensors test.npz; do
    [ -s whole/$file ] || fail "no whole/$file"
done
[ "$(ls whole | wc -l)" -eq 8 ] || fail "other files in a run: $(ls whole)"
[ "$(wc -l <whole/metrics.csv)" -eq 4 ] || fail "metrics.csv has not one row an epoch"
grep -q '"event":"run_end"' whole/log.jsonl || fail "no run_end in the log"
expect 1 "--force" $train --epochs 3 --out whole
cp -r whole again
expect 0 "accuracy" $train --epochs 3 --out again --force --threads 1
for file in last best resume; do same whole/$file.safetensors again/$file.safetensors "1 and 2 threads"; done
same whole/test.npz again/test.npz "1 and 2 threads"
expect 0 "accuracy" train --config whole/config.json --out rerun --threads 4 --quiet
same whole/resume.safetensors rerun/resume.safetensors "config.json and 4 threads"
# every vector level gives the same bits, where a level is there to compare with
if TERN_SIMD=plain "$tern" $train --epochs 3 --gemm own --out plainlevel >/dev/null 2>&1 && grep -q '"gemm": "own"' whole/config.json; then
    same whole/resume.safetensors plainlevel/resume.safetensors "TERN_SIMD=plain"
fi
TERN_SIMD=nonsense "$tern" $train --out x >/dev/null 2>err.txt && fail "TERN_SIMD=nonsense: exit code 0"
grep -q nonsense err.txt || fail "TERN_SIMD=nonsense: $(cat err.txt)"
expect 0 "accuracy" $train --epochs 3
[ "$(ls runs)" = "$(sed -n 's/^  "id": "\(.*\)",/\1/p' whole/config.json)" ] || fail "runs/ID is not the run's id"
"$tern" train --resume whole 2>err.txt >out.txt || fail "--resume of a finished run: $(cat err.txt)"
grep -q "already" err.txt || fail "--resume of a finished run does not say so"

# ---- eval ----
expect 0 "test" eval --checkpoint whole
expect 0 '"accuracy"' eval --checkpoint whole/best.safetensors --split test --json
expect 0 '"loss"' eval --checkpoint whole --split train --json --logits logits.npy
[ "$(wc -c <logits.npy)" -eq $((128 + 4 * 540 * 10)) ] || fail "logits.npy has $(wc -c <logits.npy) bytes"
expect 1 "resume" eval --checkpoint whole/resume.safetensors
expect 1 "does not fit" eval --checkpoint whole --data synthetic:n=600
expect 0 "fc3.weight" inspect whole
expect 0 "linear" inspect --model mlp:hidden=8
expect 0 "samples" data --data synthetic:n=100,test=20 --val-size 10
expect 0 "sample 89," data --data synthetic:n=100,test=20 --val-size 10 --first 89
expect 2 "0 ... 89" data --data synthetic:n=100,test=20 --val-size 10 --first 90
expect 2 "has no samples" data --data synthetic:n=100,test=20 --val-size 0 --split val
expect 0 '"allocations": 0' bench --model mlp:hidden=8 --threads 1/2 --repeat 2 --seconds 0.01 --json
grep -q '"allocations": [1-9]' out.txt && fail "a warm training step allocates"

# ---- resume ----
expect 2 "contradicts" train --resume whole --batch 64
expect 2 "--epochs" train --resume whole --epochs 4
expect 2 "--out" train --resume whole --out x
expect 1 "no run" train --resume "$work"
expect 0 "stopped at step 20" $train --epochs 3 --out parts --max-steps 20
expect 0 "finished" train --resume parts --quiet
for file in last best resume; do same whole/$file.safetensors parts/$file.safetensors "--max-steps and --resume"; done
same whole/metrics.csv parts/metrics.csv "--max-steps and --resume"
expect 0 "step 0" $train --epochs 3 --out zero --max-steps 0
expect 0 "finished" train --resume zero --quiet
same whole/resume.safetensors zero/resume.safetensors "--max-steps 0 and --resume"
cp -r whole damaged && rm damaged/summary.json
printf 'x' | dd of=damaged/resume.safetensors bs=1 seek=3 conv=notrunc 2>/dev/null
expect 1 "damaged/resume.safetensors" train --resume damaged
# a longer run, when nothing depends on its length
expect 0 "finished" train $small --quiet --optimizer adam --epochs 1 --out short
expect 0 "finished" train --resume short --epochs 2 --quiet
expect 0 "finished" train $small --quiet --optimizer adam --epochs 2 --out long
same short/last.safetensors long/last.safetensors "--resume with more epochs"

# kill -9 at several moments; steps of their own checkpoints
long="$train --epochs 40 --checkpoint-every 5"
expect 0 "finished" $long --out unkilled
for moment in 0.03 0.1 0.2 0.3; do
    rm -rf killed
    "$tern" $long --out killed >/dev/null 2>&1 &
    pid=$!
    for again in 1 2 3; do
        sleep $moment
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        [ -e killed/config.json ] || break
        "$tern" train --resume killed --quiet >/dev/null 2>&1 &
        pid=$!
    done
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    if [ -e killed/config.json ]; then
        expect 0 "run killed" train --resume killed --quiet
    else
        rm -rf killed # the kill came before the run had begun
        expect 0 "finished" $long --out killed
    fi
    for file in last best resume; do same unkilled/$file.safetensors killed/$file.safetensors "kill -9 after $moment s"; done
    same unkilled/metrics.csv killed/metrics.csv "kill -9 after $moment s"
    [ "$(ls killed | wc -l)" -eq 8 ] || fail "kill -9 left files: $(ls killed)"
done

# ---- signals ----
# A background job of sh ignores SIGINT; this starts it with the default action again, where env can.
default=
env --default-signal=INT true 2>/dev/null && default="env --default-signal=INT"
for signal in INT TERM; do
    [ -n "$default" ] || [ $signal = TERM ] || continue
    rm -rf signalled
    $default "$tern" train $small $model --quiet --epochs 100000 --schedule constant --out signalled >/dev/null 2>err.txt &
    pid=$!
    while [ ! -s signalled/metrics.csv ] && kill -0 $pid 2>/dev/null; do sleep 0.05; done
    sleep 0.2
    kill -s USR1 $pid
    sleep 0.1
    kill -0 $pid 2>/dev/null || fail "SIGUSR1 ended the run"
    kill -s $signal $pid
    wait $pid
    got=$?
    want=130
    [ $signal = INT ] || want=143
    [ $got = $want ] || fail "SIG$signal: exit code $got instead of $want: $(cat err.txt)"
    grep -q -- "--resume" err.txt || fail "SIG$signal: no word about --resume"
    "$tern" inspect signalled/resume.safetensors >/dev/null || fail "SIG$signal left a bad checkpoint"
done

# ---- writes that fail ----
mkdir full && cp -r parts/. full && rm full/summary.json
before=$(cksum <full/last.safetensors)
(
    ulimit -f 16 # blocks of 512 bytes, or of 1,024 in some shells: less than a checkpoint either way
    "$tern" train $small --model mlp:hidden=256 --quiet --epochs 1 --out toolarge >out.txt 2>err.txt
    [ $? = 1 ] || exit 1
    "$tern" eval --checkpoint "$work/whole" --split train --logits "$work/big.npy" >/dev/null 2>>err.txt
    [ $? = 1 ] || exit 1
) || fail "a file size limit: wrong exit code"
grep -q "toolarge/.*safetensors: cannot write" err.txt || fail "a file size limit: $(cat err.txt)"
grep -q "big.npy" err.txt || fail "a file size limit for --logits: $(cat err.txt)"
[ ! -e big.npy ] || fail "a partial big.npy was left"
ls toolarge | grep -q tmp && fail "temporary files were left: $(ls toolarge)"
[ "$before" = "$(cksum <full/last.safetensors)" ] || fail "an old file was damaged"
if [ -w /dev/full ]; then
    expect 1 "/dev/full" eval --checkpoint whole --split test --logits /dev/full
    "$tern" eval --checkpoint whole >/dev/full 2>err.txt && fail "stdout on a full disk: exit code 0"
    grep -q stdout err.txt || fail "stdout on a full disk: $(cat err.txt)"
    "$tern" $train --epochs 1 --out fullout --json >/dev/full 2>err.txt && fail "a result on a full disk: exit code 0"
    [ "$(grep -c stdout err.txt)" -eq 1 ] && [ "$(wc -l <err.txt)" -eq 1 ] || fail "a result on a full disk: $(cat err.txt)"
    for words in help --help --version; do
        "$tern" $words >/dev/full 2>err.txt && fail "$words on a full disk: exit code 0"
        grep -q stdout err.txt || fail "$words on a full disk: $(cat err.txt)"
    done
fi
if [ "$(id -u)" != 0 ]; then
    mkdir readonly && chmod a-w readonly
    expect 1 "readonly" $train --epochs 1 --out readonly/run
fi

# ---- nobody reads on ----
# fd 4 is a pipe whose reader has gone: no message, and the exit code of SIGPIPE (141), once all files are written.
mkfifo pipe
exec 3<>pipe 4>pipe 3>&-
for words in "list optimizers --verbose" "help train" "--help" "--version" "eval --checkpoint whole" "inspect whole"; do
    "$tern" $words >&4 2>err.txt
    got=$?
    [ $got = 141 ] && [ ! -s err.txt ] || fail "tern $words into a closed pipe: exit code $got, $(cat err.txt)"
done
"$tern" list modles >&4 2>err.txt
[ $? = 2 ] || fail "wrong usage into a closed pipe: not exit code 2"
"$tern" train $small $model --epochs 3 --threads 2 --out unread >&4 2>&4
[ $? = 141 ] || fail "a run that nobody reads: not exit code 141"
"$tern" train $small $model --epochs 3 --threads 2 --out closed >&- 2>&-
[ $? = 1 ] || fail "a run without stdout: not exit code 1"
for file in last resume; do
    same whole/$file.safetensors unread/$file.safetensors "a run that nobody reads"
    same whole/$file.safetensors closed/$file.safetensors "a run without stdout and stderr"
done
grep -qv '^{' closed/log.jsonl && fail "a run without stdout and stderr: its messages are in log.jsonl"
exec 4>&-
: >afile
expect 1 "afile" $train --epochs 1 --out afile/run
expect 1 "afile" $train --epochs 1 --out afile

# ---- weights that do not fit ----
expect 1 "needs" train $small --quiet --model mlp:hidden=33/16 --init whole/last.safetensors --out unfit
expect 1 "fc3.weight" train $small --quiet --model mlp:hidden=32 --init whole/last.safetensors --out unfit
head -c 1000 whole/last.safetensors >cut.safetensors
expect 1 "cut.safetensors" train $small $model --quiet --init cut.safetensors --out unfit
[ ! -e unfit ] || fail "a refused --init left a run directory"

# ---- a plain pass over the file ----
plain="train $small --model mlp:hidden=16 --optimizer sgd:lr=0.1 --quiet --shuffle off --epochs 1"
expect 0 "stopped at step 0" $plain --max-steps 0 --out start
expect 0 "finished" $plain --init start/last.safetensors --out plain
expect 0 "finished" $plain --seed 6 --init start/last.safetensors --out plain6
grep '"step"' plain/log.jsonl | grep -o '"loss":[^,]*' >losses
grep '"step"' plain6/log.jsonl | grep -o '"loss":[^,]*' >losses6
[ "$(wc -l <losses)" -eq 17 ] || fail "not one loss a step"
same losses losses6 "--shuffle off --init FILE with another seed"
"$tern" eval --checkpoint start --split train --json >out.txt || fail "eval of a run of no steps"

# ---- what is said about the decay, and about pixels that are never lit ----
for frozen in "adamw:weight_decay=0.1 --group *:lr=0" adamw:weight_decay=0.1,lr=0 \
    sgd:weight_decay=0.1,lr=0,decay=decoupled; do
    set -f
    "$tern" train $small --model mlp:hidden=16 --epochs 1 --optimizer $frozen --out frozen --force >out.txt 2>err.txt ||
        fail "$frozen: $(cat err.txt)"
    set +f
    grep -q "decayed: times 1 - 0 a step" err.txt || fail "$frozen: no decay in the head"
    ! grep -q "penalty\|to 1/e" out.txt err.txt || fail "$frozen: $(grep "penalty\|to 1/e" out.txt err.txt)"
done
for coupled in adaml2 adaml2:lr=0 sgd:weight_decay=0.1,lr=0; do
    "$tern" train $small --model mlp:hidden=16 --epochs 1 --optimizer $coupled --out coupled --force >out.txt 2>err.txt
    grep -q "through the gradient" err.txt || fail "$coupled: no penalty in the head"
    grep -q ", penalty [0-9]" out.txt || fail "$coupled: no penalty in the result"
done
# Written by hand: 200 pictures of 4x4 whose first pixel is dark.
pixels() {
    printf '\000\000\010\003\000\000\000\310\000\000\000\004\000\000\000\004'
    awk 'BEGIN { for (i = 0; i < 200; i++) { printf "."; for (j = 1; j < 16; j++) printf "%c", 65 + (i * 7 + j * j) % 50 } }' |
        tr . '\000'
}
labels() {
    printf '\000\000\010\001\000\000\000\310'
    awk 'BEGIN { for (i = 0; i < 200; i++) printf "%c", 65 + i % 10 }' | tr 'A-J' '\000-\011'
}
mkdir dark
for part in train t10k; do
    pixels >dark/$part-images-idx3-ubyte
    labels >dark/$part-labels-idx1-ubyte
done
dark="train --data dark --val-size 0 --epochs 1 --batch 20 --model mlp:hidden=8 --optimizer adam --quiet --force --out darkrun"
expect 0 "on the 1 inputs never lit" $dark
for option in "--normalize meanstd" "--augment shift=1"; do
    expect 0 "finished" $dark $option
    ! grep -q "never lit" out.txt || fail "$option: a pixel that the model sees lit counts as never lit"
done

# ---- accumulation, divergence ----
expect 0 "finished" $train --epochs 1 --accumulate 4 --out parts4 --threads 2
expect 0 "finished" $train --epochs 1 --accumulate 4 --out parts4b --threads 1
same parts4/resume.safetensors parts4b/resume.safetensors "--accumulate with 1 and 2 threads"
expect 1 "is not finite" train $small --quiet --optimizer sgd:lr=1e6,weight_decay=1e6 --checkpoint-every 1 --out diverged
grep -q "diverged" diverged/summary.json || fail "a diverged run is not marked"
"$tern" inspect diverged >out.txt || fail "a diverged run left bad weights"
grep -q "NaN or infinite" out.txt && fail "a diverged run saved what is not finite"

# A terminal gets one live line, a file plain lines.
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
    TERM=xterm script -qec "'$tern' train $small --model mlp:hidden=256 --epochs 30 --out live" /dev/null >live.txt </dev/null
    grep -q "ETA" live.txt || fail "no live progress on a terminal"
fi
"$tern" train $small --epochs 1 --out lines >/dev/null 2>err.txt
grep -q "$(printf '\r')" err.txt && fail "control characters in a file"
[ "$(grep -c '^epoch' err.txt)" -eq 1 ] || fail "not one plain line an epoch"

[ $failed = 0 ] && echo "cli: all right"
exit $failed
