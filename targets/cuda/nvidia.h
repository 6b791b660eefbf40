// What the functions that call NVIDIA's libraries share: opening them, errors, reading tensors.

#pragma once

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>

typedef struct {
  void* library;
  const char* name;
  void* place;
} Wanted;

static int fail(const char* kind, const char* format, ...) {
  char said[512];
  va_list rest;
  va_start(rest, format);
  vsnprintf(said, sizeof said, format, rest);
  va_end(rest);
  TVMFFIErrorSetRaisedFromCStr(kind, said);
  return -1;
}

// The file that the environment names, else the first of `names` that can be opened.
static void* opened(const char* variable, const char* const* names) {
  const char* own = getenv(variable);
  if (own && *own) return dlopen(own, RTLD_NOW | RTLD_LOCAL);
  for (; *names; ++names) {
    void* found = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
    if (found) return found;
  }
  return NULL;
}

static void* opened_driver(void) {
  static const char* const names[] = {"libcuda.so.1", NULL};
  return opened("BURNISH_CUDA_DRIVER", names);
}

static int find_all(const Wanted* wanted, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    void* found = dlsym(wanted[i].library, wanted[i].name);
    if (!found) return fail("RuntimeError", "NVIDIA's library has no function %s", wanted[i].name);
    memcpy(wanted[i].place, &found, sizeof found);
  }
  return 0;
}

static int packed(const DLTensor* tensor) {
  int64_t stride = 1;
  if (!tensor->strides) return 1;
  for (int i = tensor->ndim - 1; i >= 0; --i) {
    if (tensor->shape[i] != 1 && tensor->strides[i] != stride) return 0;
    stride *= tensor->shape[i];
  }
  return 1;
}

static char* start(const DLTensor* tensor) { return (char*)tensor->data + tensor->byte_offset; }

static const DLTensor* tensor_of(const TVMFFIAny* value) {
  if (value->type_index == kTVMFFIDLTensorPtr) return value->v_ptr;
  // A tensor object is its header, then the tensor.
  if (value->type_index == kTVMFFITensor)
    return (const DLTensor*)((const char*)value->v_obj + sizeof(TVMFFIObject));
  return NULL;
}

static int same_type(const DLTensor* one, const DLTensor* other) {
  return one->dtype.code == other->dtype.code && one->dtype.bits == other->dtype.bits &&
         one->dtype.lanes == other->dtype.lanes;
}

// Choose by the type of a tensor's elements; -1 for others than these three.
static int by_type(const DLTensor* tensor, int float32, int float16, int bfloat16) {
  DLDataType dtype = tensor->dtype;
  if (dtype.lanes != 1) return -1;
  if (dtype.code == kDLFloat && dtype.bits == 32) return float32;
  if (dtype.code == kDLFloat && dtype.bits == 16) return float16;
  if (dtype.code == kDLBfloat && dtype.bits == 16) return bfloat16;
  return -1;
}
