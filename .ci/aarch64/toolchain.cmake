# Cross-compiles for aarch64 with Debian's g++-aarch64-linux-gnu. SYSROOT, of the environment: the folder that
# .ci/aarch64/sysroot made. Give CMake its host's Python as Python_EXECUTABLE.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)

# The headers of the target's Python. pyconfig.h leads to the one in the folder that is named after the architecture.
set(Python_INCLUDE_DIR $ENV{SYSROOT}/usr/include/python3.11)
set(CMAKE_CXX_STANDARD_INCLUDE_DIRECTORIES $ENV{SYSROOT}/usr/include)
# What FindPython and nanobind would ask the host's Python.
set(Python_SOABI cpython-311-aarch64-linux-gnu)
set(NB_SUFFIX .cpython-311-aarch64-linux-gnu.so CACHE INTERNAL "")
set(NB_SUFFIX_S .abi3.so CACHE INTERNAL "")
