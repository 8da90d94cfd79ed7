/* Loaded with ASan's run time into a program that is not sanitized, and initialised before its
   libraries (-z initfirst). ASan starts at the first malloc of a process; with nbdkit that would be
   the newlocale() in p11-kit's constructor, which holds the C library's lock of locales, and ASan's
   start releases that lock once too often (dlerror). A later strerror() and the freelocale() at exit
   then wait for each other for ever. */
#include <stdlib.h>

__attribute__((constructor)) static void start_asan(void) {
  void* volatile first = malloc(1);
  free(first);
}
