// Copies of tensors between the host and a device that the host waits for only where it must.
#ifndef BURNISH_OPENCL_MOVES_H_
#define BURNISH_OPENCL_MOVES_H_

#include <tvm/ffi/container/tensor.h>

#include <cstdlib>
#include <deque>
#include <mutex>
#include <vector>

#include "timer.h"

namespace burnish::opencl {

// Tensors of the host whose bytes a device has still to read: each is held until it has.
class Sent {
 public:
  static Sent* Get() {  // never destroyed; see Runtime::Get
    static Sent* instance = new Sent();
    return instance;
  }

  // Takes over one reference to the event.
  void Add(cl_event event, ffi::Tensor tensor) {
    Runtime::Get()->counters.live_events += 1;
    Runtime::Get()->counters.live_sends += 1;
    std::lock_guard<std::mutex> lock(mutex_);
    held_.push_back({event, std::move(tensor)});
  }

  // Lets go of what was read by now.
  void Settle() {
    Runtime* runtime = Runtime::Get();
    if (runtime->leaving()) return;
    std::vector<ffi::Tensor> done;  // let go without the lock: that may run the owner's code
    cl_int failed = CL_SUCCESS;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      std::deque<Held> left;
      for (Held& one : held_) {
        cl_int status = CL_COMPLETE;
        const cl_int code = runtime->api.clGetEventInfo(
            one.event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, nullptr);
        if (code == CL_SUCCESS && status > CL_COMPLETE) {
          left.push_back(std::move(one));
          continue;
        }
        if (code != CL_SUCCESS || status < 0) failed = code != CL_SUCCESS ? code : status;
        runtime->api.clReleaseEvent(one.event);
        runtime->counters.live_events -= 1;
        runtime->counters.live_sends -= 1;
        done.push_back(std::move(one.tensor));
      }
      held_.swap(left);
    }
    Check(failed, "a copy to the device");
  }

 private:
  struct Held {
    cl_event event;
    ffi::Tensor tensor;
  };
  std::mutex mutex_;
  std::deque<Held> held_;
};

struct DeviceMemory {
  void AllocData(DLTensor* tensor) {
    tensor->data = Runtime::Get()->Allocate(tensor->device.device_id, ffi::GetDataSize(*tensor));
  }
  void FreeData(DLTensor* tensor) { Runtime::Get()->Free(static_cast<Buffer*>(tensor->data)); }
};

struct HostMemory {
  static constexpr size_t kAlignment = 64;
  void AllocData(DLTensor* tensor) {
    const size_t bytes = ffi::GetDataSize(*tensor) / kAlignment * kAlignment + kAlignment;
    tensor->data = std::aligned_alloc(kAlignment, bytes);
    if (tensor->data == nullptr) {
      TVM_FFI_THROW(MemoryError) << "no memory on the host for " << bytes << " bytes";
    }
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// A copy of a tensor of the host on a device. It is in the queue when this returns, before all
// that is given to the device later; the host does not wait. Nothing may write to `tensor` before
// the device has done what follows it.
inline ffi::Tensor Send(const ffi::Tensor& tensor, int id) {
  Runtime* runtime = Runtime::Get();
  Device* device = runtime->At(id);
  Sent::Get()->Settle();
  ffi::Tensor sent = ffi::Tensor::FromNDAlloc(DeviceMemory(), tensor.shape(), tensor.dtype(),
                                              DLDevice{kDLOpenCL, id});
  const DLTensor* from = tensor.GetDLTensorPtr();
  const size_t bytes = ffi::GetDataSize(*from);
  if (bytes == 0) return sent;
  Command command(device);
  cl_event event = nullptr;
  Check(runtime->api.clEnqueueWriteBuffer(
            command.queue(), static_cast<Buffer*>(sent.GetDLTensorPtr()->data)->memory, CL_FALSE, 0,
            bytes, static_cast<const char*>(from->data) + from->byte_offset, 0, nullptr, &event),
        "clEnqueueWriteBuffer");
  // Held before anything that may raise: the device has still to read it.
  runtime->api.clRetainEvent(event);
  Sent::Get()->Add(event, tensor);
  try {
    command.Given(event);
  } catch (...) {
    runtime->api.clReleaseEvent(event);
    throw;
  }
  runtime->api.clReleaseEvent(event);
  runtime->counters.sent += 1;
  Check(runtime->api.clFlush(command.queue()), "clFlush");
  return sent;
}

// A copy of a tensor of a device on the host. Waits until it is there.
inline ffi::Tensor Fetch(const ffi::Tensor& tensor, int id) {
  Runtime* runtime = Runtime::Get();
  ffi::Tensor found = ffi::Tensor::FromNDAlloc(HostMemory(), tensor.shape(), tensor.dtype(),
                                               DLDevice{kDLCPU, id});
  const DLTensor* from = tensor.GetDLTensorPtr();
  const size_t bytes = ffi::GetDataSize(*from);
  if (bytes == 0) return found;
  const auto* buffer = static_cast<const Buffer*>(from->data);
  Command command(buffer->device, Command::Read{});
  runtime->counters.waits += 1;
  Check(runtime->api.clEnqueueReadBuffer(command.queue(), buffer->memory, CL_TRUE,
                                         from->byte_offset, bytes, found.GetDLTensorPtr()->data, 0,
                                         nullptr, command.event()),
        "clEnqueueReadBuffer");
  command.Given();
  Sent::Get()->Settle();
  return found;
}

// A tensor on another device: (tensor, type of the device, its number).
inline ffi::Tensor Move(ffi::Tensor tensor, int64_t type, int64_t id) {
  const int here = tensor.device().device_type;
  if (!tensor.IsContiguous()) {
    TVM_FFI_THROW(ValueError) << "a tensor that is moved to or from OpenCL must be contiguous";
  }
  if (type == kDLOpenCL && here == kDLCPU) return Send(tensor, static_cast<int>(id));
  if (type == kDLCPU && here == kDLOpenCL) return Fetch(tensor, static_cast<int>(id));
  TVM_FFI_THROW(ValueError) << "tensors are moved between the host and OpenCL, not from device "
                            << "type " << here << " to " << type;
  TVM_FFI_UNREACHABLE();
}

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_MOVES_H_
