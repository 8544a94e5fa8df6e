// Lets a library that was linked on a newer Linux run with glibc 2.28, the oldest that manylinux_2_28 stands for. What
// our code and a static libstdc++ take from glibc has had newer versions since, and a linker takes the newest: here are
// those names, hidden in the library, each a jump to the version that every glibc has. auditwheel tells which are missing.
#if defined(__x86_64__)
#define FIRST GLIBC_2.2.5
#define JUMP jmp
#define SUFFIX @PLT
#elif defined(__aarch64__)
#define FIRST GLIBC_2.17
#define JUMP b
#define SUFFIX
#endif

.macro from_the_first name
  .symver first_\name, \name@FIRST
  .globl \name
  .hidden \name
  .type \name, %function
\name:
  JUMP first_\name SUFFIX
  .size \name, . - \name
.endm

.text
from_the_first exp
from_the_first log
from_the_first pthread_create
from_the_first pthread_detach

// Since 2.32: nonzero while there is one thread. Zero is always right.
.section .rodata
.globl __libc_single_threaded
.hidden __libc_single_threaded
.type __libc_single_threaded, %object
.size __libc_single_threaded, 1
__libc_single_threaded:
  .byte 0

.section .note.GNU-stack, "", %progbits
