#!/bin/sh
# What the libraries show to a linker: tn_ (float) and tn64_ (double) and nothing else, and every function that a
# public header promises.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${TERN_BUILD_DIR:-$root/build}
cd "$root"
failed=0
fail() {
    echo "symbols: $*" >&2
    failed=1
}

suffix=so
dynamic=-D
if [ "$(uname)" = Darwin ]; then
    suffix=dylib
    dynamic=
fi
# names FILE [-D]: defined global symbols, without those that a compiler or sanitizer adds.
names() {
    nm -g ${2:-} "$1" 2>/dev/null | awk 'NF == 3 && $2 ~ /[A-Z]/ && $2 != "U" && $2 != "w" {print $3}' |
        sed 's/^_\(tn\)/\1/' | grep -Ev '^(_|\.|DW\.ref\.)' | LC_ALL=C sort -u
}

for library in tern tern64; do
    prefix=tn_
    [ $library = tern64 ] && prefix=tn64_
    for file in "$build/lib$library.a" "$build/lib$library.$suffix"; do
        flag=
        [ "${file%.a}" = "$file" ] && flag=$dynamic
        list=$(names "$file" $flag)
        [ -n "$list" ] || fail "$file shows no symbol at all"
        other=$(echo "$list" | grep -v "^$prefix" || true)
        [ -z "$other" ] || fail "$file shows names without $prefix (static, or TN_API and sh tests/names64.sh --write): $other"
    done

    headers="lib/tern.h models/tern_models.h data/tern_data.h"
    [ $library = tern ] && headers="$headers lib/tern_stats.h"
    # shellcheck disable=SC2086
    promised=$(sed -n 's/^TN_API [^(]*[ *]\(tn_[A-Za-z0-9_]*\)(.*/\1/p' $headers | sed "s/^tn_/$prefix/")
    [ -n "$promised" ] || fail "no TN_API function found in $headers"
    shown=" $(echo $list) "
    for name in $promised; do
        case $shown in
        *" $name "*) ;;
        *) fail "$name is in a public header, but lib$library.$suffix does not export it" ;;
        esac
    done
done
exit $failed
