#!/bin/sh
# Pictures from outside: tern train on a folder of them, --augment, tern predict, contact sheets.
set -u
tern=$(cd "$(dirname "$1")" && pwd -P)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
unset TERN_DATA TERN_SIMD NO_COLOR
failed=0

fail() {
    echo "predict: $*" >&2
    failed=1
}

# expect CODE TEXT ARGUMENT...: the exit code; with code 0 TEXT is in stdout, else in stderr, with code 2 in one line.
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

# bar FILE SIZE 0|1 GROUND INK: a picture in PGM with a bar that lies (0) or stands (1); three octal digits a grey.
bar() {
    awk -v n="$2" 'BEGIN {printf "P5 %d %d 255\n", n, n}' >"$1"
    awk -v n="$2" -v up="$3" -v g="$4" -v i="$5" 'BEGIN {
        for (y = 0; y < n; y++) for (x = 0; x < n; x++) {
            a = up ? y : x; b = up ? x : y
            ink = (a >= 0.2 * n && a < 0.8 * n && b >= 0.45 * n && b < 0.55 * n)
            printf "%s", ("\\" (ink ? i : g))
        }
    }' | while IFS= read -r text || [ -n "$text" ]; do printf "$text"; done >>"$1"
}

bar probe.pgm 28 1 000 377
"$tern" predict --checkpoint nothing probe.pgm 2>&1 | grep -q "nothing" || fail "no word of a checkpoint that is not there"
if "$tern" data --data synthetic:n=20,test=10 --val-size 0 --png probe.png 2>&1 | grep -q "without stb"; then
    echo "skipped: built without stb"
    exit 77
fi

# ---- a folder of pictures ----
mkdir -p set/lying set/standing
for i in 0 1 2 3 4 5 6 7; do
    bar set/lying/$i.pgm 2$i 0 01$i 36$i
    bar set/standing/$i.pgm 2$i 1 01$i 36$i
done
train="train --data images:set --val-size 0 --batch 4 --model mlp:hidden=16 --optimizer adam:lr=1e-2 --quiet"
expect 0 "accuracy 100.00%" $train --epochs 30 --out bars
grep -q "images:$work/set" bars/config.json || fail "config.json has a relative folder"
expect 0 "classes: lying, standing" data --data images:set --val-size 0
expect 0 '"class_names"' data --data set --val-size 0 --json

bar new.pgm 64 1 005 350
expect 0 "new.pgm: standing" predict --checkpoint bars --quiet new.pgm
expect 0 "probability" predict --checkpoint bars new.pgm
grep -q "standing" out.txt && grep -q "lying" out.txt || fail "a table without the classes' names"
expect 0 '"class": "standing"' predict --checkpoint bars/last.safetensors --json new.pgm
expect 1 "28 x 28" predict --checkpoint bars --raw new.pgm
expect 0 "standing" predict --checkpoint bars --raw --quiet probe.pgm

# ---- pictures that cannot be read: named, the others done ----
echo "no picture" >bad.png
: >empty.jpg
expect 1 "bad.png" predict --checkpoint bars --quiet bad.png new.pgm nothere.png empty.jpg
grep -q "new.pgm: standing" out.txt || fail "a bad picture stops the others"
for name in bad.png nothere.png empty.jpg; do
    [ "$(grep -c "$name" err.txt)" = 1 ] || fail "not one line about $name: $(cat err.txt)"
done
[ "$(wc -l <err.txt)" -eq 3 ] || fail "other lines than those of three files: $(cat err.txt)"
expect 1 "bad.png" predict --checkpoint bars --json bad.png new.pgm
grep -q '"error"' out.txt && grep -q '"probabilities"' out.txt || fail "--json with a bad picture: $(cat out.txt)"
cp bad.png set/lying/x.png
expect 1 "set/lying/x.png" data --data images:set --val-size 0
expect 0 "1 broken picture left out" data --data images:set,skip_broken=on --val-size 0
expect 2 "skip_broken" data --data images:set,skip_broke=on --val-size 0
expect 1 "nowhere" data --data images:nowhere
rm set/lying/x.png
mkdir set/none
expect 1 "set/none" train --data images:set --val-size 0 --quiet
rmdir set/none
[ ! -e runs ] || fail "a refused folder left the directory runs"

# ---- digits: prepared as MNIST's, dark or light ground ----
small="--data synthetic:n=300,test=50 --val-size 30 --batch 32 --model mlp:hidden=8 --quiet"
expect 0 "accuracy" train $small --epochs 1 --out digits
bar light.pgm 90 1 350 020
bar dark.pgm 90 1 020 350
for file in light dark; do
    "$tern" predict --checkpoint digits $file.pgm >$file.txt || fail "predict $file.pgm"
    sed 1d $file.txt >$file.rest
done
same light.rest dark.rest "the same digit on light and on dark ground"
[ "$(wc -l <dark.txt)" -eq 26 ] || fail "a name, 14 lines of picture, a head and ten classes: $(wc -l <dark.txt) lines"
expect 0 "class" predict --checkpoint digits --top 3 dark.pgm
[ "$(wc -l <out.txt)" -eq 19 ] || fail "--top 3: $(wc -l <out.txt) lines"
bar blank.pgm 40 1 200 200
expect 1 "blank.pgm: no digit" predict --checkpoint digits blank.pgm
expect 0 "blank.pgm" predict --checkpoint digits --as picture --quiet blank.pgm
expect 2 "--checkpoint" predict dark.pgm
expect 2 "pictures" predict --checkpoint digits
expect 2 "--raw" predict --checkpoint digits --raw --as digit dark.pgm
expect 2 "--model" predict --checkpoint digits --model mlp:hidden=8 dark.pgm
expect 1 "digits" predict --checkpoint digits/resume.safetensors dark.pgm

# ---- augmentation: part of the run, same bits on any threads and through a stop ----
aug="train $small --epochs 2 --augment shift=2,rotate=10,elastic=1"
expect 0 "finished" $aug --out aug1 --threads 1
expect 0 "finished" $aug --out aug4 --threads 4
same aug1/resume.safetensors aug4/resume.safetensors "1 and 4 threads with --augment"
expect 0 "stopped" $aug --out augp --max-steps 5
expect 0 "finished" train --resume augp --quiet
same aug1/resume.safetensors augp/resume.safetensors "--augment, --max-steps and --resume"
expect 2 "contradicts" train --resume aug1 --augment shift=1
expect 0 "finished" train $small --epochs 2 --out plain
cmp -s aug1/last.safetensors plain/last.safetensors && fail "--augment changed nothing"
expect 2 "did you mean" train $small --augment shft=1
expect 0 "rotate" list augment

# ---- contact sheets ----
expect 0 "sheet.png" data --data images:set --val-size 0 --png sheet.png --zoom 2
expect 0 "sheet of 62 x 302" data --data synthetic:n=300,test=50 --val-size 0 --png made.png --samples 2
expect 0 "made.png: " predict --checkpoint digits --as picture --quiet made.png
cp made.png before.png
expect 0 "sheet" data --data synthetic:n=300,test=50 --val-size 0 --png made.png --samples 2 --augment rotate=9
cmp -s made.png before.png && fail "--augment changed nothing on the sheet"
expect 1 "none/made.png" data --data synthetic:n=30,test=5 --val-size 0 --png none/made.png
expect 1 "too large" data --data synthetic:n=900,test=9000 --val-size 0 --png made.png --samples 1000 --zoom 16 --split test
exit $failed
