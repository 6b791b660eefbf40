// A kernel: its arguments, its launch sizes, and one built copy a device.
#ifndef BURNISH_OPENCL_KERNEL_H_
#define BURNISH_OPENCL_KERNEL_H_

#include <tvm/ffi/any.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernel_info.h"
#include "program.h"
#include "timer.h"

namespace burnish::opencl {

class Kernel {
 public:
  Kernel(KernelInfo info, std::string source)
      : info_(std::move(info)), source_(WithoutBoolParameters(source, info_)) {
    for (const std::string& tag : info_.tags) {
      places_.push_back(TagPlace(tag));
      dimensions_ = std::max(dimensions_, static_cast<cl_uint>(places_.back() % 3 + 1));
    }
  }
  ~Kernel() {
    Runtime* runtime = Runtime::Get();
    for (auto& [device, copy] : copies_) {
      if (copy->handle == nullptr) continue;
      if (!runtime->leaving()) runtime->api.clReleaseKernel(copy->handle);
      runtime->counters.live_kernels -= 1;
    }
  }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  // The arguments by their types, then one number a launch tag. The kernel runs on the device of
  // its buffers; one without buffers on `current`.
  void Launch(const TVMFFIAny* values, int32_t count, int current) {
    const size_t arguments = info_.arguments.size();
    if (static_cast<size_t>(count) != arguments + places_.size()) {
      TVM_FFI_THROW(TypeError) << "the kernel '" << info_.key << "' takes " << arguments
                               << " arguments and " << places_.size() << " launch sizes; got "
                               << count << " values";
    }
    size_t sizes[6] = {1, 1, 1, 1, 1, 1};
    bool empty = false;
    for (size_t i = 0; i < places_.size(); ++i) {
      const TVMFFIAny& value = values[arguments + i];
      if (value.type_index != ffi::TypeIndex::kTVMFFIInt) {
        TVM_FFI_THROW(TypeError) << "the kernel '" << info_.key << "': launch size "
                                 << info_.tags[i] << " is not an integer";
      }
      // A tensor that came out empty: nothing to do. OpenCL knows no empty grid, and one block more
      // than there are would write beyond the tensor.
      empty = empty || value.v_int64 <= 0;
      sizes[places_[i]] = static_cast<size_t>(value.v_int64);
    }
    std::vector<Scalar> scalars(arguments);
    Device* device = nullptr;
    for (size_t i = 0; i < arguments; ++i) scalars[i] = Convert(i, values[i], &device);
    if (empty) return;
    if (device == nullptr) device = Runtime::Get()->At(current);
    Enqueue(device, scalars, sizes);
  }

 private:
  struct Copy {
    std::mutex mutex;  // OpenCL keeps arguments in the kernel: set and enqueued by one at a time
    cl_kernel handle = nullptr;
  };
  struct Scalar {
    size_t bytes = 0;
    alignas(8) unsigned char data[8] = {};
  };

  template <typename T>
  static Scalar Pack(T value) {
    Scalar scalar;
    scalar.bytes = sizeof(T);
    std::memcpy(scalar.data, &value, sizeof(T));
    return scalar;
  }

  [[noreturn]] void Refuse(size_t i, const std::string& what) const {
    TVM_FFI_THROW(TypeError) << "argument " << i << " of the kernel '" << info_.key << "' " << what;
    TVM_FFI_UNREACHABLE();
  }

  Scalar Convert(size_t i, const TVMFFIAny& value, Device** device) const {
    const DLDataType type = info_.arguments[i];
    if (type.code == kDLOpaqueHandle) return Pack(Memory(i, value, device));
    const bool whole = value.type_index == ffi::TypeIndex::kTVMFFIInt ||
                       value.type_index == ffi::TypeIndex::kTVMFFIBool;
    const bool real = value.type_index == ffi::TypeIndex::kTVMFFIFloat;
    if (type.code == kDLFloat || type.code == kDLBfloat) {
      if (!whole && !real) Refuse(i, "must be a number");
      const double number = real ? value.v_float64 : static_cast<double>(value.v_int64);
      if (type.code == kDLBfloat) return Pack(Narrow(number, 8, 7));
      if (type.bits == 16) return Pack(Narrow(number, 5, 10));
      if (type.bits == 32) return Pack(static_cast<float>(number));
      return Pack(number);
    }
    if (!whole) Refuse(i, "must be a whole number (" + TypeName(type) + ")");
    if (IsBool(type)) return Pack(static_cast<uint8_t>(value.v_int64 != 0));
    // Signed and unsigned are cut to the same bits.
    if (type.bits == 8) return Pack(static_cast<uint8_t>(value.v_int64));
    if (type.bits == 16) return Pack(static_cast<uint16_t>(value.v_int64));
    if (type.bits == 32) return Pack(static_cast<uint32_t>(value.v_int64));
    return Pack(value.v_int64);
  }

  cl_mem Memory(size_t i, const TVMFFIAny& value, Device** device) const {
    const void* data = nullptr;
    if (value.type_index == ffi::TypeIndex::kTVMFFIOpaquePtr) {
      data = value.v_ptr;
    } else if (value.type_index == ffi::TypeIndex::kTVMFFIDLTensorPtr ||
               value.type_index == ffi::TypeIndex::kTVMFFITensor) {
      const DLTensor* tensor = value.type_index == ffi::TypeIndex::kTVMFFITensor
                                   ? TVMFFITensorGetDLTensorPtr(value.v_obj)
                                   : static_cast<const DLTensor*>(value.v_ptr);
      if (tensor->device.device_type != kDLOpenCL) Refuse(i, "is a tensor that is not on OpenCL");
      if (tensor->byte_offset != 0)
        Refuse(i, "is a view with an offset, which a kernel cannot take");
      data = tensor->data;
    } else if (value.type_index != ffi::TypeIndex::kTVMFFINone) {
      Refuse(i, "must be a tensor on OpenCL");
    }
    if (data == nullptr) return nullptr;
    const auto* buffer = static_cast<const Buffer*>(data);
    if (buffer->magic != Buffer::kMagic) Refuse(i, "is no OpenCL buffer, or one that was freed");
    if (*device == nullptr) *device = buffer->device;
    if (*device != buffer->device) {
      Refuse(i, "is on " + buffer->device->Label() + ", others are on " + (*device)->Label());
    }
    return buffer->memory;
  }

  Copy* On(Device* device) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<Copy>& copy = copies_[device];
    if (copy == nullptr) copy = std::make_unique<Copy>();
    return copy.get();
  }

  // Called with the copy's mutex held.
  void Build(Device* device, Copy* copy) {
    Runtime* runtime = Runtime::Get();
    Gate(device, "cl_khr_fp16", "float16");
    Gate(device, "cl_khr_fp64", "float64");
    cl_program program = BuildProgram(info_.key, source_, device);
    cl_int code = CL_SUCCESS;
    copy->handle = runtime->api.clCreateKernel(program, info_.name.c_str(), &code);
    runtime->api.clReleaseProgram(program);  // the kernel holds it
    if (code != CL_SUCCESS) {
      copy->handle = nullptr;
      TVM_FFI_THROW(RuntimeError) << "the program of '" << info_.key << "' has no kernel '"
                                  << info_.name << "' for " << device->Label() << ": "
                                  << ErrorName(code);
    }
    runtime->counters.live_kernels += 1;
  }

  void Gate(Device* device, const char* extension, const char* type) const {
    if (source_.find(std::string("ifdef ") + extension) == std::string::npos) return;
    if (device->Has(extension)) return;
    std::string able;
    for (const auto& other : Runtime::Get()->devices()) {
      if (other->Has(extension)) able += (able.empty() ? "" : ", ") + other->Label();
    }
    TVM_FFI_THROW(RuntimeError) << "the kernel '" << info_.key << "' computes with " << type
                                << ", which " << device->Label() << " cannot (no " << extension
                                << "); give the model in float32 (model.float())"
                                << (able.empty() ? std::string() : ", or run it on " + able);
  }

  void Enqueue(Device* device, const std::vector<Scalar>& scalars, const size_t sizes[6]) {
    Runtime* runtime = Runtime::Get();
    Api& api = runtime->api;
    Copy* copy = On(device);
    const size_t block[3] = {sizes[3], sizes[4], sizes[5]};
    const size_t global[3] = {sizes[0] * block[0], sizes[1] * block[1], sizes[2] * block[2]};
    Command command(device);
    std::lock_guard<std::mutex> lock(copy->mutex);
    if (copy->handle == nullptr) Build(device, copy);
    for (size_t i = 0; i < scalars.size(); ++i) {
      const cl_int code = api.clSetKernelArg(copy->handle, static_cast<cl_uint>(i),
                                             scalars[i].bytes, scalars[i].data);
      if (code != CL_SUCCESS) Refuse(i, "was refused by the driver: " + ErrorName(code));
    }
    const cl_int code =
        api.clEnqueueNDRangeKernel(command.queue(), copy->handle, dimensions_, nullptr, global,
                                   block, 0, nullptr, command.event());
    if (code != CL_SUCCESS) Unlaunched(device, copy->handle, code, sizes);
    command.Given();
    runtime->counters.launched += 1;
  }

  [[noreturn]] void Unlaunched(Device* device, cl_kernel handle, cl_int code,
                               const size_t sizes[6]) const {
    Api& api = Runtime::Get()->api;
    size_t most = 0;
    cl_ulong local = 0;
    api.clGetKernelWorkGroupInfo(handle, device->handle, CL_KERNEL_WORK_GROUP_SIZE, sizeof(most),
                                 &most, nullptr);
    api.clGetKernelWorkGroupInfo(handle, device->handle, CL_KERNEL_LOCAL_MEM_SIZE, sizeof(local),
                                 &local, nullptr);
    TVM_FFI_THROW(RuntimeError) << "the kernel '" << info_.key << "' does not start on "
                                << device->Label() << ": " << ErrorName(code) << "; blocks ("
                                << sizes[0] << ", " << sizes[1] << ", " << sizes[2] << ") of ("
                                << sizes[3] << ", " << sizes[4] << ", " << sizes[5]
                                << ") work items, " << local
                                << " bytes of local memory; this kernel allows " << most
                                << " work items a block here, the device " << device->max_group
                                << " of at most (" << device->max_items[0] << ", "
                                << device->max_items[1] << ", " << device->max_items[2] << ") and "
                                << device->local_bytes << " bytes";
    TVM_FFI_UNREACHABLE();
  }

  const KernelInfo info_;
  const std::string source_;
  std::vector<int> places_;
  cl_uint dimensions_ = 1;
  std::mutex mutex_;
  std::map<Device*, std::unique_ptr<Copy>> copies_;
};

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_KERNEL_H_
