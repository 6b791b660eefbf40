// LD_PRELOAD: a machine where no OpenCL library is installed. Other libraries open as ever.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

void* dlopen(const char* name, int flags) {
  static void* (*real)(const char*, int);
  if (!real) real = (void* (*)(const char*, int))dlsym(RTLD_NEXT, "dlopen");
  int opencl = name && (strstr(name, "OpenCL") || strstr(name, "libintelocl"));
  // The loader's own words for a file that is not there.
  return real(opencl ? "libOpenCL.so.1.is.not.installed" : name, flags);
}
