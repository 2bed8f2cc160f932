# Cross build for 64-bit ARM Linux; tests run under qemu-user where that is installed:
#     cmake --preset arm64 && cmake --build --preset arm64 && ctest --preset arm64
#
# Libraries come from Debian's multiarch packages (dpkg --add-architecture arm64, then libopenblas-dev:arm64 and
# so on), or from a root file system of an ARM machine: -DTERN_SYSROOT=FOLDER.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(AARCH64_CXX aarch64-linux-gnu-g++) # only for tests; may be missing
mark_as_advanced(AARCH64_CXX)
set(CMAKE_CXX_COMPILER ${AARCH64_CXX})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(TERN_SYSROOT "" CACHE PATH "Root file system of the target; empty: multiarch packages of this machine")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TERN_SYSROOT)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
if(TERN_SYSROOT)
    set(CMAKE_SYSROOT ${TERN_SYSROOT})
    set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
    set(ENV{PKG_CONFIG_SYSROOT_DIR} ${TERN_SYSROOT})
endif()
set(ENV{PKG_CONFIG_LIBDIR} ${TERN_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)

find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
mark_as_advanced(QEMU_AARCH64)
if(QEMU_AARCH64)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${QEMU_AARCH64})
    if(TERN_SYSROOT)
        list(APPEND CMAKE_CROSSCOMPILING_EMULATOR -L ${TERN_SYSROOT})
    endif()
endif()
