# cmake --install: program, libraries, headers, data, and what find_package(tern) and pkg-config need.

include(CMakePackageConfigHelpers)

install(TARGETS tern tern_static tern64 tern64_static EXPORT tern-targets
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET tern_program)
    install(TARGETS tern_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES lib/tern.h lib/tern64.h lib/tern_stats.h models/tern_models.h data/tern_data.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY data/mnist DESTINATION ${CMAKE_INSTALL_DATADIR}/tern OPTIONAL)
install(DIRECTORY tests/golden/optim DESTINATION ${CMAKE_INSTALL_DATADIR}/tern
        FILES_MATCHING PATTERN "*.json" PATTERN "README.md" PATTERN "adapter.py" PATTERN cases EXCLUDE)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY apps/examples DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.c")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tern)
install(EXPORT tern-targets NAMESPACE tern:: DESTINATION ${package_dir})
file(WRITE ${PROJECT_BINARY_DIR}/package/tern-config.cmake
     "include(\"\${CMAKE_CURRENT_LIST_DIR}/tern-targets.cmake\")\n")
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/tern-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/tern-config.cmake
              ${PROJECT_BINARY_DIR}/package/tern-config-version.cmake DESTINATION ${package_dir})

# tern.pc and tern64.pc: relative to where they lie, so that an install can be moved.
file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${pc_prefix}")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
endif()
list(TRANSFORM tern_dependency_names REPLACE "^([a-z].*)" "-l\\1" OUTPUT_VARIABLE pc_private)
if(APPLE) # OpenBLAS lies in a folder of its own
    get_filename_component(openblas_dir ${OPENBLAS_LIBRARY} DIRECTORY)
    list(PREPEND pc_private "-L${openblas_dir}")
endif()
list(JOIN pc_private " " pc_private)
foreach(pc_name tern tern64)
    set(pc_what "")
    if(pc_name STREQUAL "tern64")
        set(pc_what ", in double precision: define TN_DOUBLE before its headers")
    endif()
    configure_file(cmake/tern.pc.in package/${pc_name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/package/${pc_name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
