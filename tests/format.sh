#!/bin/sh
# Every C file is as clang-format leaves it. The public headers are laid out in columns by hand.
set -eu
cd "$(dirname "$0")/.."
if ! command -v clang-format >/dev/null 2>&1; then
    echo "skipped: no clang-format here (Debian/Ubuntu: clang-format)"
    exit 77
fi
# Other versions lay out some lines in another way.
if ! clang-format --version | grep -q 'version 14\.'; then
    echo "skipped: the layout is that of clang-format 14, this is $(clang-format --version)"
    exit 77
fi
find lib models data apps tests \( -name '*.[ch]' -o -name '*.cpp' \) ! -name 'tern*.h' -exec clang-format --dry-run -Werror {} +
