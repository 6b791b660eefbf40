/* Calls the kernel add_one on eight floats; the exit code is 0 where the answer
 * is right. */
#include <tvm/ffi/c_api.h>

#include <cstdint>
#include <cstring>

extern "C" {
int __tvm_ffi_add_one(void *, const TVMFFIAny *, int32_t, TVMFFIAny *);
/* What generated code asks of TVM's runtime, for a wrong argument. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *, const char **, int32_t) {}
}

int main() {
  alignas(64) float given[8], made[8] = {};
  int64_t shape = 8, stride = 1;
  float *data[2] = {given, made};
  DLTensor tensors[2];
  TVMFFIAny arguments[2], result;
  std::memset(tensors, 0, sizeof tensors);
  std::memset(arguments, 0, sizeof arguments);
  std::memset(&result, 0, sizeof result);
  for (int i = 0; i < 8; ++i)
    given[i] = static_cast<float>(i);
  for (int i = 0; i < 2; ++i) {
    tensors[i].data = data[i];
    tensors[i].device = {kDLCPU, 0};
    tensors[i].ndim = 1;
    tensors[i].dtype = {kDLFloat, 32, 1};
    tensors[i].shape = &shape;
    tensors[i].strides = &stride;
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[i];
  }
  if (__tvm_ffi_add_one(nullptr, arguments, 2, &result))
    return 2;
  for (int i = 0; i < 8; ++i) {
    if (made[i] != given[i] + 1.0f)
      return 1;
  }
  return 0;
}
