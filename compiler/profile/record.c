/* An instrument of the virtual machine: notes the time before and after each function it calls. */

#include <stdint.h>
#include <time.h>
#include <tvm/ffi/c_api.h>

static int64_t* stamps = 0;
static int64_t capacity = 0;
static int64_t count = 0;
static const int8_t* waits = 0;
static void (*wait)(void) = 0;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* (address of int64 stamps, how many fit, address of an int8 for each, address of a function):
   start anew. The function is called in front of each stamp whose int8 is not 0. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_start(void* self, const TVMFFIAny* args, int32_t n,
                                       TVMFFIAny* result) {
  stamps = (int64_t*)(intptr_t)args[0].v_int64;
  capacity = args[1].v_int64;
  waits = (const int8_t*)(intptr_t)args[2].v_int64;
  wait = (void (*)(void))(intptr_t)args[3].v_int64;
  count = 0;
  result->type_index = kTVMFFINone;
  return 0;
}

/* () -> stamps taken since the start, perhaps more than fit. */
TVM_FFI_DLL_EXPORT int __tvm_ffi_count(void* self, const TVMFFIAny* args, int32_t n,
                                       TVMFFIAny* result) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = count;
  return 0;
}

TVM_FFI_DLL_EXPORT int __tvm_ffi_record(void* self, const TVMFFIAny* args, int32_t n,
                                        TVMFFIAny* result) {
  if (count < capacity && waits[count]) wait();
  int64_t time = now();
  if (count < capacity) stamps[count] = time;
  ++count;
  result->type_index = kTVMFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  return 0;
}
