/* Runs kernels of the TVM FFI ABI on one block of memory, without any TVM runtime.
 *
 *   driver ARENA PLAN
 *
 * ARENA is read whole, 64-byte aligned, and written back at the end. PLAN is text, one word or
 * number after the other:
 *
 *   tensor CODE BITS RANK EXTENT... OFFSET   declares the next tensor, at OFFSET bytes in the arena
 *   call KERNEL COUNT (t NUMBER | i VALUE)...   calls a kernel with tensors and integers
 *
 * kernels.inc lists the kernels: a line KERNEL(name) for each.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tvm/ffi/c_api.h>

typedef int (*Kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
#define KERNEL(name) int __tvm_ffi_##name(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
#include "kernels.inc"
#undef KERNEL

static const struct { const char* name; Kernel run; } kernels[] = {
#define KERNEL(name) {#name, __tvm_ffi_##name},
#include "kernels.inc"
#undef KERNEL
};

static void fail(const char* what, const char* which) {
  fprintf(stderr, "%s: %s\n", what, which);
  exit(1);
}

static const char* running = "none";

static void crashed(int number) {
  fprintf(stderr, "signal %d in kernel %s\n", number, running);
  _Exit(2);
}

/* What generated code asks of the runtime. */

typedef struct { void* sync; int32_t count; } Group;
typedef int (*Task)(int, Group*, void*);

enum { TASKS = 3 }; /* one after the other: as many as a machine of three cores would run at once */

static int launch(Task task, void* data, int count) {
  Group group = {NULL, count ? count : TASKS};
  for (int i = 0; i < group.count; ++i) {
    int code = task(i, &group, data);
    if (code) return code;
  }
  return 0;
}

static void* allocate(int type, int id, uint64_t bytes, int code, int bits) {
  (void)type, (void)id, (void)code, (void)bits;
  void* block = aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (block) memset(block, 0xff, bytes);
  return block;
}

static int release(int type, int id, void* block) {
  (void)type, (void)id;
  free(block);
  return 0;
}

int (*__TVMBackendParallelLaunch)(Task, void*, int) = launch;
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

/* The plan. */

static char* arena;
static DLTensor* tensors;
static size_t tensor_count;

static long long number(FILE* plan) {
  long long value;
  if (fscanf(plan, "%lld", &value) != 1) fail("plan", "a number is missing");
  return value;
}

static void read_tensor(FILE* plan) {
  tensors = realloc(tensors, (tensor_count + 1) * sizeof *tensors);
  DLTensor* tensor = &tensors[tensor_count++];
  memset(tensor, 0, sizeof *tensor);
  tensor->device.device_type = kDLCPU;
  tensor->dtype.code = (uint8_t)number(plan);
  tensor->dtype.bits = (uint8_t)number(plan);
  tensor->dtype.lanes = 1;
  tensor->ndim = (int32_t)number(plan);
  tensor->shape = malloc((tensor->ndim + 1) * sizeof(int64_t));
  tensor->strides = malloc((tensor->ndim + 1) * sizeof(int64_t));
  for (int i = 0; i < tensor->ndim; ++i) tensor->shape[i] = number(plan);
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; i >= 0; --i) {
    tensor->strides[i] = stride;
    stride *= tensor->shape[i];
  }
  tensor->data = arena + number(plan);
}

static void call(FILE* plan) {
  char name[256], kind[2];
  if (fscanf(plan, "%255s", name) != 1) fail("plan", "a kernel is missing");
  int count = (int)number(plan);
  TVMFFIAny* arguments = calloc(count + 1, sizeof *arguments);
  for (int i = 0; i < count; ++i) {
    if (fscanf(plan, "%1s", kind) != 1) fail("plan", "an argument is missing");
    long long value = number(plan);
    if (kind[0] == 't') {
      if ((size_t)value >= tensor_count) fail("plan", "a tensor is missing");
      arguments[i].type_index = kTVMFFIDLTensorPtr;
      arguments[i].v_ptr = &tensors[value];
    } else {
      arguments[i].type_index = kTVMFFIInt;
      arguments[i].v_int64 = value;
    }
  }
  TVMFFIAny result;
  memset(&result, 0, sizeof result);
  for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; ++k) {
    if (strcmp(kernels[k].name, name)) continue;
    running = kernels[k].name;
    if (kernels[k].run(NULL, arguments, count, &result)) fail("kernel failed", name);
    free(arguments);
    return;
  }
  fail("no such kernel", name);
}

int main(int argc, char** argv) {
  if (argc != 3) fail("usage", "driver ARENA PLAN");
  signal(SIGSEGV, crashed);
  signal(SIGILL, crashed);
  signal(SIGBUS, crashed);
  FILE* file = fopen(argv[1], "r+b");
  FILE* plan = fopen(argv[2], "r");
  if (!file || !plan) fail("cannot open", file ? argv[2] : argv[1]);
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  arena = aligned_alloc(64, (size + 127) / 64 * 64);
  if (!arena || fread(arena, 1, size, file) != (size_t)size) fail("cannot read", argv[1]);
  char word[16];
  while (fscanf(plan, "%15s", word) == 1) {
    if (!strcmp(word, "tensor")) read_tensor(plan);
    else if (!strcmp(word, "call")) call(plan);
    else fail("plan: no such word", word);
  }
  rewind(file);
  if (fwrite(arena, 1, size, file) != (size_t)size || fclose(file)) fail("cannot write", argv[1]);
  return 0;
}
