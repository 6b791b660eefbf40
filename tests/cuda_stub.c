/* A stand-in for NVIDIA's driver and its run-time library: memory is the host's, kernels are looked
 * up and their launches written down, none runs. One file is both libraries.
 *
 * BURNISH_STUB_LOG names the file for a line a call: load, kernel, launch, capture, graph.
 * BURNISH_STUB_SM is the GPU's architecture: 90.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID = 1, NOT_FOUND = 500, NAMES = 512, LENGTH = 256 };

typedef struct {
  char name[LENGTH];
  int shared; /* bytes of dynamic shared memory that it was allowed */
} Kernel;
typedef struct {
  const unsigned char* image;
  size_t size;
} Module;
typedef struct {
  unsigned grid[3], block[3], shared;
  void* stream;
} Launch;

static int capturing, captured, in_graph[64], graphs;

static void say(const char* what, const char* name, const Launch* l) {
  const char* path = getenv("BURNISH_STUB_LOG");
  FILE* log = path ? fopen(path, "a") : NULL;
  if (!log) return;
  fprintf(log, "%s %s", what, name);
  if (l)
    fprintf(log, " %u %u %u %u %u %u %u", l->grid[0], l->grid[1], l->grid[2], l->block[0],
            l->block[1], l->block[2], l->shared);
  fprintf(log, "\n");
  fclose(log);
}

static int architecture(void) {
  const char* sm = getenv("BURNISH_STUB_SM");
  return sm ? atoi(sm) : 90;
}

static int attribute(int which) {
  switch (which) {
    case 1: return 1024; /* threads of a block */
    case 2: case 3: return 1024;
    case 4: return 64;
    case 8: return 48 * 1024;
    case 10: return 32;
    case 16: return 132;
    case 75: return architecture() / 10;
    case 76: return architecture() % 10;
    case 97: return 227 * 1024;
    default: return 1;
  }
}

/* The driver. */
int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDeviceGet(int* device, int at) { *device = at; return at ? INVALID : 0; }
int cuDeviceGetAttribute(int* value, int which, int device) {
  (void)device;
  *value = attribute(which);
  return 0;
}
int cuDeviceGetName(char* name, int length, int device) {
  (void)device;
  snprintf(name, length, "stand-in");
  return 0;
}
int cuGetErrorName(int code, const char** name) { (void)code; *name = "ERROR"; return 0; }
int cuGetErrorString(int code, const char** text) { (void)code; *text = "refused"; return 0; }
int cuTensorMapEncodeTiled(void) { return INVALID; }

int cuModuleLoadData(void** out, const void* image) {
  static const unsigned char magic[4] = {0x50, 0xed, 0x55, 0xba};
  if (memcmp(image, magic, 4)) return 200;
  unsigned short head;
  unsigned long size;
  memcpy(&head, (const char*)image + 6, 2);
  memcpy(&size, (const char*)image + 8, 8);
  Module* module = malloc(sizeof *module);
  unsigned char* copy = malloc(head + size);
  memcpy(copy, image, head + size);
  module->image = copy;
  module->size = head + size;
  *out = module;
  say("load", "module", NULL);
  return 0;
}
int cuModuleUnload(void* module) { (void)module; return 0; }

/* A kernel is there if the section of its code is, in machine code of this architecture. */
int cuModuleGetFunction(void** out, void* given, const char* name) {
  Module* module = given;
  char section[LENGTH + 8];
  int length = snprintf(section, sizeof section, ".text.%s", name) + 1;
  unsigned short head;
  memcpy(&head, module->image + 6, 2);
  for (size_t at = head; at + 32 < module->size;) {
    unsigned short kind;
    unsigned skip, number;
    unsigned long size;
    memcpy(&kind, module->image + at, 2);
    memcpy(&skip, module->image + at + 4, 4);
    memcpy(&size, module->image + at + 8, 8);
    memcpy(&number, module->image + at + 28, 4);
    if (kind == 2 && (int)number == architecture() &&
        memmem(module->image + at + skip, size, section, length)) {
      Kernel* kernel = calloc(1, sizeof *kernel);
      snprintf(kernel->name, sizeof kernel->name, "%s", name);
      *out = kernel;
      say("kernel", name, NULL);
      return 0;
    }
    at += skip + size;
  }
  say("missing", name, NULL);
  return NOT_FOUND;
}
int cuFuncSetAttribute(void* given, int which, int value) {
  if (which != 8) return INVALID;
  if (value > attribute(97)) return INVALID;
  ((Kernel*)given)->shared = value;
  return 0;
}
int cuLaunchKernelEx(const Launch* l, void* given, void** arguments, void** extra) {
  Kernel* kernel = given;
  (void)extra;
  unsigned long threads = (unsigned long)l->block[0] * l->block[1] * l->block[2];
  unsigned allowed = kernel->shared ? kernel->shared : 48 * 1024;
  int bad = !arguments || threads < 1 || threads > 1024 || l->shared > allowed || l->grid[0] < 1 ||
            l->grid[1] < 1 || l->grid[2] < 1 || l->grid[1] > 65535 || l->grid[2] > 65535;
  say(bad ? "refused" : capturing ? "captured" : "launch", kernel->name, l);
  captured += capturing;
  return bad ? INVALID : 0;
}

/* The run-time library. */
int cudaDeviceGetAttribute(int* value, int which, int device) {
  return cuDeviceGetAttribute(value, which, device);
}
int cudaGetDevice(int* device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return device ? INVALID : 0; }
int cudaGetDeviceCount(int* count) { *count = 1; return 0; }
int cudaGetDeviceProperties(char* properties, int device) {
  (void)device;
  memset(properties, 0, 512);
  snprintf(properties, 256, "stand-in");
  return 0;
}
const char* cudaGetErrorName(int code) { (void)code; return "ERROR"; }
const char* cudaGetErrorString(int code) { (void)code; return "refused"; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
int cudaMalloc(void** out, size_t size) {
  if (capturing) { say("refused", "malloc", NULL); return INVALID; }
  *out = aligned_alloc(256, (size + 256) / 256 * 256);
  memset(*out, 0, size);
  return 0;
}
int cudaFree(void* memory) { free(memory); return 0; }
int cudaMallocHost(void** out, size_t size) { *out = malloc(size); return 0; }
int cudaFreeHost(void* memory) { free(memory); return 0; }
int cudaMemGetInfo(size_t* left, size_t* all) { *left = *all = 80ul << 30; return 0; }
int cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void* stream) {
  (void)kind, (void)stream;
  memcpy(to, from, size);
  return 0;
}
int cudaMemcpyPeerAsync(void* to, int a, const void* from, int b, size_t size, void* stream) {
  (void)a, (void)b, (void)stream;
  memcpy(to, from, size);
  return 0;
}
int cudaEventCreate(void** event) { *event = malloc(8); return 0; }
int cudaEventDestroy(void* event) { free(event); return 0; }
int cudaEventRecord(void* event, void* stream) { (void)event, (void)stream; return 0; }
int cudaEventSynchronize(void* event) { (void)event; return 0; }
int cudaEventElapsedTime(float* ms, void* a, void* b) { (void)a, (void)b; *ms = 1; return 0; }
int cudaStreamCreate(void** stream) { *stream = malloc(8); return 0; }
int cudaStreamCreateWithFlags(void** stream, unsigned f) { (void)f; return cudaStreamCreate(stream); }
int cudaStreamDestroy(void* stream) { free(stream); return 0; }
int cudaStreamSynchronize(void* stream) { (void)stream; return capturing ? INVALID : 0; }
int cudaStreamWaitEvent(void* stream, void* event, unsigned f) {
  (void)stream, (void)event, (void)f;
  return 0;
}
int cudaStreamBeginCapture(void* stream, int mode) {
  (void)mode;
  if (!stream || capturing) return INVALID;
  capturing = 1;
  captured = 0;
  say("capture", "begin", NULL);
  return 0;
}
int cudaStreamEndCapture(void* stream, void** graph) {
  (void)stream;
  if (!capturing) return INVALID;
  capturing = 0;
  in_graph[graphs % 64] = captured;
  *graph = &in_graph[graphs++ % 64];
  say("capture", "end", NULL);
  return 0;
}
int cudaGraphInstantiate(void** exec, void* graph, unsigned long flags) {
  (void)flags;
  *exec = graph;
  return 0;
}
int cudaGraphLaunch(void* exec, void* stream) {
  char count[16];
  (void)stream;
  snprintf(count, sizeof count, "%d", *(int*)exec);
  say("graph", count, NULL);
  return 0;
}
int cudaGraphDestroy(void* graph) { (void)graph; return 0; }
int cudaGraphExecDestroy(void* exec) { (void)exec; return 0; }
