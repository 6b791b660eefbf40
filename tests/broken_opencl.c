// The system's OpenCL library (this one is linked to it) with a device that is lost after as many
// kernels as BROKEN_AFTER says: kernels do not start any more, and with BROKEN_READS nothing is
// read back either.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

static int started = 0;
static int lost(void) { return started > atoi(getenv("BROKEN_AFTER")); }

int clEnqueueNDRangeKernel(void* queue, void* kernel, unsigned dimensions, const size_t* offset,
                           const size_t* global, const size_t* local, unsigned count,
                           const void* waits, void* event) {
  int (*real)(void*, void*, unsigned, const size_t*, const size_t*, const size_t*, unsigned,
              const void*, void*) = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
  ++started;
  if (lost() && !getenv("BROKEN_READS") && !getenv("BROKEN_HANGS")) return -5;
  return real(queue, kernel, dimensions, offset, global, local, count, waits, event);
}

// With BROKEN_HANGS nothing that it is given ends.
static int hangs(void) { return lost() && getenv("BROKEN_HANGS"); }

int clGetEventInfo(void* event, unsigned what, size_t size, void* value, size_t* written) {
  int (*real)(void*, unsigned, size_t, void*, size_t*) = dlsym(RTLD_NEXT, "clGetEventInfo");
  const int found = real(event, what, size, value, written);
  if (what == 0x11D3 && hangs()) *(int*)value = 1;
  return found;
}

int clSetEventCallback(void* event, int status, void* called, void* given) {
  int (*real)(void*, int, void*, void*) = dlsym(RTLD_NEXT, "clSetEventCallback");
  return hangs() ? 0 : real(event, status, called, given);
}

int clEnqueueReadBuffer(void* queue, void* buffer, unsigned blocking, size_t offset, size_t size,
                        void* to, unsigned count, const void* waits, void* event) {
  int (*real)(void*, void*, unsigned, size_t, size_t, void*, unsigned, const void*, void*) =
      dlsym(RTLD_NEXT, "clEnqueueReadBuffer");
  if (lost() && getenv("BROKEN_READS")) return -36;
  return real(queue, buffer, blocking, offset, size, to, count, waits, event);
}
