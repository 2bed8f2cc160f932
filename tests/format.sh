#!/bin/sh
# Every C file is as clang-format leaves it. The public headers are laid out in columns by hand.
set -eu
cd "$(dirname "$0")/.."
# Other versions lay out some lines in another way. Debian's package of one version has only the name with a number.
for tool in clang-format-14 clang-format ""; do
    if [ -n "$tool" ] && "$tool" --version 2>/dev/null | grep -q 'version 14\.'; then break; fi
done
if [ -z "$tool" ]; then
    echo "skipped: no clang-format 14 here (Debian/Ubuntu: clang-format-14)"
    exit 77
fi
find lib models data apps tests \( -name '*.[ch]' -o -name '*.cpp' \) ! -name 'tern*.h' -exec "$tool" --dry-run -Werror {} +
