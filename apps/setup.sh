# What apps/demo.sh and tests/run.sh share: installing what is missing, configuring, building. POSIX sh, sourced
# after root is set to the project's folder and tests to yes or no.
#
# On Debian and Ubuntu a part is probed by compiling and linking with it, and only what fails is installed. On
# other systems CMake looks, names what is missing, and we add the command that installs it.

build=$root/build
packages_fedora="gcc make cmake openblas-devel zlib-devel jansson-devel stb-devel"
packages_brew="cmake openblas jansson"
if [ "$tests" = yes ]; then
    packages_fedora="$packages_fedora gcc-c++ pkgconf libcmocka-devel"
    packages_brew="$packages_brew cmocka pkgconf"
fi

say() {
    printf '%s\n' "$*" >&2
}

have() {
    command -v "$1" >/dev/null 2>&1
}

processors() {
    nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2
}

# compiles SOURCE FLAG...: does this C program build and link here?
compiles() {
    compiles_source=$1
    shift
    printf '%b' "$compiles_source" | ${CC:-cc} -x c - -o "$probe/program" "$@" >/dev/null 2>&1
}

# links LIBRARY HEADER...
links() {
    links_library=$1
    shift
    links_source=
    for links_header in "$@"; do links_source="$links_source#include <$links_header>\n"; done
    # shellcheck disable=SC2046
    compiles "${links_source}int main(void) { return 0; }\n" \
        $(pkg-config --cflags "$links_library" 2>/dev/null) "-l$links_library"
}

# Debian packages of what is not there.
missing_on_debian() {
    probe=$(mktemp -d)
    plain='#include <stdio.h>\nint main(void) { return 0; }\n'
    have_cc=yes
    compiles "$plain" || { have_cc=no; echo gcc libc6-dev; }
    have make || have ninja || echo make
    have cmake || echo cmake
    if [ $have_cc = no ]; then # then nothing else can be probed by compiling
        echo libopenblas-dev zlib1g-dev libjansson-dev libstb-dev
        [ "$tests" = yes ] && echo libcmocka-dev g++ pkg-config
    else
        links openblas cblas.h || echo libopenblas-dev
        links z zlib.h || echo zlib1g-dev
        links jansson jansson.h || echo libjansson-dev
        compiles "#include <stb/stb_image.h>\n$plain" || echo libstb-dev
        if [ "$tests" = yes ]; then
            links cmocka stdarg.h stddef.h setjmp.h stdint.h cmocka.h || echo libcmocka-dev
            have c++ || have g++ || have clang++ || echo g++
            have pkg-config || echo pkg-config
        fi
    fi
    rm -rf "$probe"
}

say_without_root() {
    say "Without root: ask whoever looks after this machine to run the command above. Or unpack the libraries in"
    say "a folder of your own (gcc, make and cmake must be there; cmake also comes with: pip install cmake):"
    say ""
    say "    mkdir -p ~/tern-packages && cd ~/tern-packages"
    say "    apt-get download libopenblas-pthread-dev libopenblas0-pthread libgfortran5 libjansson-dev libjansson4 \\"
    say "        zlib1g-dev zlib1g libcmocka-dev libcmocka0"
    say "    for f in *.deb; do dpkg -x \$f .; done"
    say "    export CMAKE_PREFIX_PATH=~/tern-packages/usr"
    say "    folder=\$(dirname ~/tern-packages/usr/lib/*/libjansson.so.4)"
    say "    export LIBRARY_PATH=\$folder:\$folder/openblas-pthread"
    say "    export LD_LIBRARY_PATH=\$LIBRARY_PATH"
    say ""
    say "and go on with: sh $0 --no-install"
}

install_on_debian() {
    # shellcheck disable=SC2046
    set -- $(missing_on_debian)
    [ $# -gt 0 ] || return 0
    say "To be installed: $*"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if ! have sudo; then
            say "This needs root, and there is no sudo:"
            say "    apt-get install $*"
            say_without_root
            exit 1
        fi
        as_root=sudo
        [ -t 0 ] || as_root="sudo -n" # nobody is there to type a password
    fi
    $as_root apt-get update -q >&2 || say "apt-get update failed; going on with the package lists that are here"
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2; then
        say "Installing failed. What is needed:"
        say "    apt-get install $*"
        say_without_root
        exit 1
    fi
}

say_elsewhere() {
    if [ "$(uname)" = Darwin ]; then
        say "On macOS:   xcode-select --install; brew install $packages_brew"
        say "            (stb_image.h and stb_image_write.h: https://github.com/nothings/stb)"
    elif have dnf; then
        say "On Fedora:  sudo dnf install $packages_fedora"
    elif ! have apt-get; then
        say "On Fedora:  sudo dnf install $packages_fedora"
        say "Elsewhere:  the same packages under the names that your system gives them"
    fi
}

require_tools() {
    for tool in "${CC:-cc}" cmake; do
        # shellcheck disable=SC2086
        if ! have ${tool%% *}; then
            say "tern: no $tool here, and it cannot be built without."
            have apt-get && say "Run this command without --no-install, or: apt-get install gcc libc6-dev make cmake"
            say_elsewhere
            exit 1
        fi
    done
    version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p')
    major=${version%%.*}
    minor=${version#*.}
    if [ "$major" -lt 3 ] || { [ "$major" = 3 ] && [ "$minor" -lt 22 ]; }; then
        say "tern: $(command -v cmake) is version $version, and 3.22 or newer is needed. A newer one for your account:"
        say "    python3 -m venv ~/cmake && ~/cmake/bin/pip install cmake && PATH=~/cmake/bin:\$PATH"
        exit 1
    fi
}

# configure CMAKE-OPTION...
configure() {
    require_tools
    # A copied folder brings a cache that speaks of the old one.
    if [ -f "$build/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
        rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
    fi
    generator=
    if [ ! -f "$build/CMakeCache.txt" ]; then
        generator="Unix Makefiles"
        if have ninja; then generator=Ninja; fi
    fi
    mkdir -p "$build"
    if ! cmake -S "$root" -B "$build" ${generator:+-G "$generator"} "$@" >"$build/configure.log" 2>&1; then
        cat "$build/configure.log" >&2
        say_elsewhere
        exit 1
    fi
}

# build_all CMAKE-BUILD-OPTION...
build_all() {
    cmake --build "$build" --parallel "$(processors)" "$@" >&2 || {
        say "tern: the build failed; the message is above."
        exit 1
    }
}

install_missing() {
    if have apt-get; then install_on_debian; fi
}
