#!/bin/sh
# The folder list is the architecture: each folder includes only from itself and from those below it.
set -eu
cd "$(dirname "$0")/.."
failed=0

# check FOLDER ALLOWED...: every #include "x" of a file in FOLDER is found in one of ALLOWED.
check() {
    folder=$1
    shift
    list=$(find "$folder" -name '*.[ch]' -exec grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' {} +) || true
    [ -n "$list" ] || { echo "layering: nothing found in $folder/" >&2; failed=1; }
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        file=${line%%:*}
        name=$(echo "$line" | sed 's/^[^"]*"//; s/".*//')
        case $name in
        *..*)
            echo "layering: $line: no .. in an include" >&2
            failed=1
            continue
            ;;
        esac
        found=0
        for place in "$(dirname "$file")" "$@"; do
            [ -f "$place/$name" ] && found=1
        done
        [ $found = 1 ] || { echo "layering: $line: not in $folder/ or below" >&2; failed=1; }
    done <<END
$list
END
}

check lib lib lib/kernels
check data data lib
check models models data lib
check apps apps models data lib

# Angle brackets would get around the rule.
if grep -rnE '#[[:space:]]*include[[:space:]]*<(tern|internal|kernels|\.\.)' lib data models; then
    echo "layering: headers of the project are included with quotes" >&2
    failed=1
fi
exit $failed
