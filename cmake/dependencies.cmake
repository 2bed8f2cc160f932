# Finds what tern needs. Everything that is missing is named at once, with the package that brings it.
#
#   tern_dependencies       interface target with headers and libraries
#   tern_dependency_names   the same as names (or flags) for a linker, for the installed static library
#   tern_cmocka             interface target, for the tests

include(CheckCSourceCompiles)
include(CMakePushCheckState)
find_package(PkgConfig QUIET)

set(missing "")
# missing_package(what debian fedora homebrew)
function(missing_package what debian fedora brew)
    if(CMAKE_CROSSCOMPILING AND CMAKE_LIBRARY_ARCHITECTURE STREQUAL "aarch64-linux-gnu")
        string(APPEND debian ":arm64")
    endif()
    string(APPEND missing "\n  ${what}\n      Debian/Ubuntu: ${debian}    Fedora: ${fedora}    Homebrew: ${brew}")
    set(missing "${missing}" PARENT_SCOPE)
endfunction()

# find_part(PREFIX pkg-config-name library header): sets PREFIX_INCLUDE and PREFIX_LIBRARY. pkg-config only gives
# hints, so that it is not needed itself.
function(find_part prefix module library header)
    if(PKG_CONFIG_FOUND)
        pkg_check_modules(PC_${prefix} QUIET ${module})
    endif()
    set(folders openblas openblas-pthread openblas-openmp) # Fedora's, Debian's
    find_path(${prefix}_INCLUDE ${header} HINTS ${PC_${prefix}_INCLUDE_DIRS} PATH_SUFFIXES ${folders})
    find_library(${prefix}_LIBRARY ${library} HINTS ${PC_${prefix}_LIBRARY_DIRS} PATH_SUFFIXES ${folders})
    mark_as_advanced(${prefix}_INCLUDE ${prefix}_LIBRARY)
endfunction()

if(APPLE) # Homebrew keeps it out of the usual folders
    list(APPEND CMAKE_PREFIX_PATH /opt/homebrew/opt/openblas /usr/local/opt/openblas)
endif()

add_library(tern_dependencies INTERFACE)
set(tern_dependency_names "")

# For optimizers that are loaded from files.
if(CMAKE_DL_LIBS)
    target_link_libraries(tern_dependencies INTERFACE ${CMAKE_DL_LIBS})
    list(APPEND tern_dependency_names ${CMAKE_DL_LIBS})
endif()

foreach(row "OPENBLAS|openblas|openblas|cblas.h" "ZLIB|zlib|z|zlib.h" "JANSSON|jansson|jansson|jansson.h")
    string(REPLACE "|" ";" row "${row}")
    list(GET row 0 prefix)
    list(GET row 2 name)
    find_part(${row})
    if(${prefix}_INCLUDE AND ${prefix}_LIBRARY)
        target_include_directories(tern_dependencies SYSTEM INTERFACE ${${prefix}_INCLUDE})
        target_link_libraries(tern_dependencies INTERFACE ${${prefix}_LIBRARY})
        list(APPEND tern_dependency_names ${name})
    endif()
endforeach()

# Another BLAS will not do: tern names OpenBLAS's core type in its logs and sets its number of threads.
if(OPENBLAS_INCLUDE AND OPENBLAS_LIBRARY)
    cmake_push_check_state(RESET)
    set(CMAKE_REQUIRED_INCLUDES ${OPENBLAS_INCLUDE})
    set(CMAKE_REQUIRED_LIBRARIES ${OPENBLAS_LIBRARY})
    check_c_source_compiles("#include <cblas.h>
        int main(void) { openblas_set_num_threads(1); return !openblas_get_corename(); }" TERN_HAVE_OPENBLAS)
    cmake_pop_check_state()
endif()
if(NOT TERN_HAVE_OPENBLAS)
    unset(TERN_HAVE_OPENBLAS CACHE) # so that a second run looks again
    missing_package("OpenBLAS, with its cblas.h (openblas_get_corename)" libopenblas-dev openblas-devel openblas)
endif()
if(NOT ZLIB_INCLUDE OR NOT ZLIB_LIBRARY)
    missing_package("zlib (zlib.h)" zlib1g-dev zlib-devel zlib)
endif()
if(NOT JANSSON_INCLUDE OR NOT JANSSON_LIBRARY)
    missing_package("jansson (jansson.h)" libjansson-dev jansson-devel jansson)
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(tern_dependencies INTERFACE Threads::Threads)
list(APPEND tern_dependency_names pthread)

find_library(MATH_LIBRARY m)
mark_as_advanced(MATH_LIBRARY)
if(MATH_LIBRARY)
    target_link_libraries(tern_dependencies INTERFACE m)
    list(APPEND tern_dependency_names m)
endif()

if(TERN_TESTS)
    find_part(CMOCKA cmocka cmocka cmocka.h)
    if(CMOCKA_INCLUDE AND CMOCKA_LIBRARY)
        add_library(tern_cmocka INTERFACE)
        target_include_directories(tern_cmocka SYSTEM INTERFACE ${CMOCKA_INCLUDE})
        target_link_libraries(tern_cmocka INTERFACE ${CMOCKA_LIBRARY})
    else()
        missing_package("cmocka, for the tests (or leave them out: -DTERN_TESTS=OFF)"
                        libcmocka-dev libcmocka-devel cmocka)
    endif()
endif()

# Parts that the build can do without.
find_path(STB_INCLUDE stb/stb_image.h)
find_program(GNUPLOT gnuplot)
mark_as_advanced(STB_INCLUDE GNUPLOT)
if(STB_INCLUDE)
    target_include_directories(tern_dependencies SYSTEM INTERFACE ${STB_INCLUDE})
    target_compile_definitions(tern_dependencies INTERFACE TERN_HAVE_STB)
else()
    message(STATUS "stb not found (Debian/Ubuntu: libstb-dev, Fedora: stb-devel): no reading and writing of pictures")
endif()
if(NOT GNUPLOT AND NOT CMAKE_CROSSCOMPILING)
    message(STATUS "gnuplot not found (Debian/Ubuntu: gnuplot-nox, Fedora and Homebrew: gnuplot): no plots at run time")
endif()

if(missing)
    message(FATAL_ERROR "tern needs what was not found here:${missing}\n"
            "Install these packages and configure again; a library in a folder of your own is found with "
            "-DCMAKE_PREFIX_PATH=FOLDER. On Debian and Ubuntu, sh apps/demo.sh installs what is missing.")
endif()
