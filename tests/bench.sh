#!/bin/sh
# tern bench from outside: each part runs, prints a row a case within 80 columns, writes JSON with the keys that
# scripts read, refuses what it does not know. No speed is judged here.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TERN_DATA TERN_SIMD
failed=0
short="--seconds 0.001 --repeat 1"

fail() {
    echo "bench: $*" >&2
    failed=1
}

# refused TEXT ARGUMENT...: exit code 2 and one line with TEXT.
refused() {
    text=$1
    shift
    "$tern" bench "$@" >out.txt 2>err.txt
    got=$?
    [ $got = 2 ] || fail "tern bench $*: exit code $got instead of 2"
    [ ! -s out.txt ] || fail "tern bench $*: refused, yet it printed: $(head -n 1 out.txt)"
    [ "$(wc -l <err.txt)" -eq 1 ] || fail "tern bench $*: not one line: $(cat err.txt)"
    grep -qF -- "$text" err.txt || fail "tern bench $*: no '$text' in: $(cat err.txt)"
}

# prints ROWS PATTERN ARGUMENT...: it succeeds, ROWS lines match PATTERN, no line is over 80 columns.
prints() {
    rows=$1
    pattern=$2
    shift 2
    "$tern" bench "$@" >out.txt 2>err.txt || fail "tern bench $*: exit code $?: $(cat err.txt)"
    got=$(grep -c -- "$pattern" out.txt)
    [ "$got" = "$rows" ] || fail "tern bench $*: $got lines with '$pattern' instead of $rows: $(cat out.txt)"
    awk 'length($0) > 80 {print "  " length($0) " columns: " $0; bad = 1} END {exit bad}' out.txt >&2 ||
        fail "tern bench $*: lines above"
    grep -q "OpenBLAS core" out.txt || fail "tern bench $*: the head does not name OpenBLAS' core"
    ! grep -qi "nan\|inf[^o]" out.txt || fail "tern bench $*: not a number: $(cat out.txt)"
}

# json "KEY KEY ..." ARGUMENT...: it succeeds, its output is JSON and has the keys.
json() {
    keys=$1
    shift
    "$tern" bench "$@" --json >out.json 2>err.txt || fail "tern bench $* --json: exit code $?: $(cat err.txt)"
    # train --config is a parser that every machine has: it knows what is JSON, and that this is no configuration
    "$tern" train --config out.json 2>&1 | grep -q "unknown key 'bench'" || fail "tern bench $* --json: not JSON"
    for key in bench host openblas_core simd results threads other_cores short_of_cores warning $keys; do
        grep -q "\"$key\": " out.json || fail "tern bench $* --json: no key $key"
    done
}

# ---- help and wrong words ----
for part in train gemm conv infer optim; do
    "$tern" bench --help | grep -q "^  $part " || fail "bench --help does not name $part"
    "$tern" bench $part --help >out.txt || fail "bench $part --help: exit code $?"
    grep -q "^usage: tern bench $part" out.txt || fail "bench $part --help: no usage"
    awk 'length($0) > 80 {bad = 1} END {exit bad}' out.txt || fail "bench $part --help: over 80 columns"
    "$tern" help bench $part | cmp -s - out.txt || fail "help bench $part is not bench $part --help"
done
"$tern" help bench | grep -q "^  infer " || fail "help bench does not name the parts"
refused "did you mean train?" trian
refused "unknown part 'fastest'" fastest
refused "did you mean --repeat?" gemm --repaet 3
refused "unexpected argument 'conv'" gemm conv
refused "--threads" infer --threads 1/x
refused "--threads" --threads 0
refused "--batch" train --batch 32,128
refused "--batch" train --batch 0
refused "--shape" gemm --shape 64x128
refused "--shape" gemm --shape 64x128x0
refused "--shape" gemm --shape 64x128x784t
refused "--shape" conv --shape 1x28x28x6x29
refused "--shape" conv --shape 1x28x28x6x5s0
refused "--shape" conv --shape 1x28x28x6x5q2
refused "--gemm" gemm --gemm own
refused "did you mean" gemm --model lenett
refused "--batch" gemm --batch x
refused "--parameters" optim --parameters 1e6
"$tern" bench --model nosuch >out.txt 2>err.txt
[ $? = 2 ] || fail "--model nosuch: not refused"
"$tern" bench --optimizer adamv --model mlp >out.txt 2>err.txt
[ $? = 2 ] && grep -q adamw err.txt || fail "--optimizer adamv: not refused, or no nearest word"

# ---- each part, with rows that are as wide as they get ----
prints 4 "^mlp:hidden=8 " --model mlp:hidden=8 --batch 16/64 --threads 1/2 $short
prints 1 "^mlp:hidden=8/8/8/8/8/8/8/8/8$" train --model mlp:hidden=8/8/8/8/8/8/8/8/8 --batch 10000 --threads 1 $short
prints 1 "openblas kernels" --model mlp:hidden=8 --batch 16 --threads 1 --gemm openblas $short
prints 1 "openblas kernels" infer --model mlp:hidden=8 --threads 1 --gemm openblas $short
prints 7 "  1 .*% *reference" gemm --threads 1 $short
[ "$(grep -c "  1 .*%" out.txt)" -ge 80 ] || fail "bench gemm: too few shapes: $(cat out.txt)"
for product in "128x512tx784 " "256tx512x32 .* mlp fc2 dw" "128x128x512 .* lstm hh dx" "512tx28x896 .* lstm ih dw" "3584x512tx28 .* lstm ih"; do
    grep -q "^$product" out.txt || fail "bench gemm: no product '$product'"
done
prints 5 "  1 .*%  mlp fc" gemm --model mlp:hidden=8 --batch 16 --threads 1 $short
prints 2 "^512tx33x9 " gemm --shape 512tx33x9 $short
prints 12 "^[lcr].*  1 .*[0-9]" conv --batch 8 --threads 1 $short
prints 2 "^3x9x8x5x3s2p1 " conv --batch 9 --shape 3x9x8x5x3s2p1 $short
prints 1 "^2x5x5x3x1 " conv --batch 1 --shape 2x5x5x3x1 --threads 1 $short
prints 2 "^mlp:hidden=8 " infer --model mlp:hidden=8 $short

prints 22 '^[a-z].* 2/1 \|^[a-z].* [3456]/[2345] ' optim --parameters 5000 --threads 1 $short
prints 2 '^adamw:weight_decay=0.1 *5056 .* 4/3 ' optim --optimizer adamw:weight_decay=0.1 --parameters 5000 $short
json "optimizer parameters arrays_read arrays_written ns_per_parameter bytes_per_second copy_bytes_per_second
    percent_of_copy spread" optim --optimizer sgd --parameters 5000 $short
refused adamw optim --optimizer adamv $short
refused parameters optim --parameters 0 $short
prints 4 "   4096  *[12]  *[23]/[12] " optim --optimizer sgd --optimizer sgd:momentum=0.9,nesterov=on --parameters 4096 $short
json "optimizer data limit_gflops model batch images_per_second ms_per_step gflops percent_of_limit operations_per_step spread
    share forward backward optimizer data speedup allocations" train --model mlp:hidden=8 --threads 1/2 $short
[ "$(grep -c '"allocations": 0,' out.json)" = 4 ] || fail "a warm training step allocates: $(grep allocations out.json)"
json "shape limit_gflops m n k packed unpacked openblas percent_of_limit spread" gemm --shape 5x7x9 $short
json "layer limit_gflops batch channels filters kernel stride padding pooled forward input_gradient weight_gradient own im2col_openblas
    percent_of_limit" conv --batch 2 --shape 2x6x6x3x3 $short
json "model limit_gflops images images_per_second percent_of_limit operations_per_image latency_us latency_p99_us
    latency_percent_of_limit" infer --model mlp:hidden=8 --threads 1 $short

# With no MNIST anywhere near, pictures are made by formula, and the head says so; damaged files are an error.
mkdir empty
if TERN_DATA=$work/empty "$tern" bench --model mlp:hidden=8 $short >out.txt 2>err.txt; then
    fail "TERN_DATA names a directory without data: exit code 0"
fi
grep -q empty err.txt || fail "TERN_DATA names a directory without data: $(cat err.txt)"

# ---- tern train --profile ----
small="--data synthetic:n=300,test=20,height=12,width=12 --val-size 20 --batch 32 --epochs 2 --threads 1 --quiet"
"$tern" train $small --model mlp:hidden=8 --out plain >plain.txt 2>err.txt || fail "train: $(cat err.txt)"
"$tern" train $small --model mlp:hidden=8 --out profiled --profile >out.txt 2>err.txt || fail "--profile: $(cat err.txt)"
cmp -s plain/resume.safetensors profiled/resume.safetensors || fail "--profile changed the run"
grep -q '"event":"profile"' profiled/log.jsonl || fail "--profile: no event in the log"
! grep -q '"event":"profile"' plain/log.jsonl || fail "a profile nobody asked for is in the log"
! grep -q '^op  ' plain.txt || fail "a profile nobody asked for was printed"
for line in 'linear fc1 *forward *18 ' 'linear fc1 *backward *18 ' 'linear fc2 *forward *18 ' 'cross_entropy *forward *18 ' \
    'data *20 ' 'optimizer *18 ' 'gradient norm *18 ' 'evaluation *2 ' 'checkpoint *2 ' 'log *18 ' 'in all '; do
    grep -q "^$line" out.txt || fail "--profile: no line '$line' in: $(cat out.txt)"
done
awk 'length($0) > 80 {bad = 1} END {exit bad}' out.txt || fail "--profile: over 80 columns"
# the shares of all lines add up to the whole, but for what rounding may leave
sed -n '/^op  /,/^in all/p' out.txt | sed '1d;$d' | awk '
    {for (i = 1; i <= NF; i++) if ($i ~ /%$/) sum += $i} END {exit sum < 98.5 || sum > 101.5}' ||
    fail "--profile: the shares do not add up: $(cat out.txt)"
"$tern" train $small --model mlp:hidden=8 --out profiled2 --profile --json >out.json 2>err.txt || fail "--profile --json: $(cat err.txt)"
"$tern" train --config out.json 2>&1 | grep -q "unknown key" || fail "--profile --json: not JSON"
grep -q '"pass": "backward"' out.json || fail "--profile --json: no lines"

[ $failed = 0 ] && echo "bench: all right"
exit $failed
