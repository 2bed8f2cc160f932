#!/bin/sh
# The main job from a fresh clone: installs what is missing, builds, and runs `tern compare`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
tests=no

usage() {
    cat <<END
Usage: sh apps/demo.sh [--no-install] [OPTION...]

Builds tern in build/ and runs its main job, build/tern compare: Adam, AdamL2 and AdamW on the MNIST files that
are in data/mnist, under paired seeds. On Debian and Ubuntu it first installs what is missing (apt-get, with sudo
if you are not root); elsewhere it says what to install.

  --no-install   install nothing
  --help         this text
  OPTION...      goes to tern compare; see build/tern help compare
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
if [ -f "$build/build.ninja" ] || [ -f "$build/Makefile" ]; then
    configure
else
    configure -DTERN_TESTS=OFF
fi
build_all --target tern_program
cd "$root"
exec build/tern compare "$@"
