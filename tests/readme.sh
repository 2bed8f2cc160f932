#!/bin/sh
# Runs every ```sh block and compiles and runs every ```c block of README.md, each in an empty folder. A block that a
# test cannot run has an HTML comment with the reason on a line before it: <!-- not run: needs root -->
#
# In that folder build/tern is the program under test, and apps/, data/ and lib/ are the project's. A c block without
# main() is the body of one.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${TERN_BUILD_DIR:-$root/build}
program=${1:-$build/tern}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One file a block: 01.sh, 02.c, ...; 03.skip holds the reason for one that is not run.
awk -v out="$work" '
    /^<!-- not run: .* -->$/ { reason = $0; sub(/^<!-- not run: /, "", reason); sub(/ -->$/, "", reason); next }
    /^```(sh|c)$/ {
        file = sprintf("%s/%02d.%s", out, ++n, substr($0, 4)); line = NR; inside = 1
        print NR > (file ".line")
        if (reason != "") { print reason > (file ".skip") }
        reason = ""; next
    }
    /^```/ { inside = 0; next }
    inside { print > file }
    !inside && NF { reason = "" }
' "$root/README.md"

sanitize=${TERN_SANITIZE:+-fsanitize=$TERN_SANITIZE}
ran=0
for file in "$work"/*.sh "$work"/*.c; do
    [ -f "$file" ] || continue
    where="README.md:$(cat "$file.line")"
    if [ -f "$file.skip" ]; then
        echo "$where: not run: $(cat "$file.skip")"
        continue
    fi
    folder=$file.run
    mkdir -p "$folder/build"
    ln -s "$program" "$folder/build/tern"
    for name in apps data lib; do ln -s "$root/$name" "$folder/$name"; done
    status=0
    case $file in
    *.sh)
        (cd "$folder" && sh -eu "$file") >"$work/log" 2>&1 || status=$?
        ;;
    *.c)
        if ! grep -q 'main(' "$file"; then
            { grep '^#include' "$file" || true; echo 'int main(void) {'; grep -v '^#include' "$file"; echo 'return 0; }'; } \
                >"$file.whole.c"
        else
            cp "$file" "$file.whole.c"
        fi
        # shellcheck disable=SC2086
        (cd "$folder" && ${CC:-cc} -std=c17 -Wall -Wextra -Werror $sanitize "$file.whole.c" -o example \
            -I"$root/lib" -I"$root/models" -I"$root/data" -L"$build" -ltern -lm &&
            LD_LIBRARY_PATH="$build:${LD_LIBRARY_PATH:-}" ./example) >"$work/log" 2>&1 || status=$?
        ;;
    esac
    if [ $status != 0 ]; then
        echo "$where: exit status $status" >&2
        cat "$file" "$work/log" >&2
        exit 1
    fi
    echo "$where: good"
    ran=$((ran + 1))
done
[ $ran -gt 0 ] || { echo "README.md has no block to run" >&2; exit 1; }
