#!/bin/sh
# All tests from a fresh clone: installs what is missing, builds, and runs ctest.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
tests=yes

usage() {
    cat <<END
Usage: sh tests/run.sh [--no-install] [OPTION...]

Builds tern and its tests in build/ and runs them. On Debian and Ubuntu it first installs what is missing (apt-get,
with sudo if you are not root); elsewhere it says what to install.

  --no-install   install nothing
  --help         this text
  OPTION...      goes to ctest, for example -R optim (tests whose name matches) or -N (lists them)
END
}

install=yes
while [ $# -gt 0 ]; do
    case $1 in
    --no-install) install=no ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) break ;;
    esac
    shift
done

. "$root/apps/setup.sh"
if [ $install = yes ]; then install_missing; fi
configure -DTERN_TESTS=ON
build_all
cd "$build"
exec ctest --output-on-failure -j "$(processors)" "$@"
