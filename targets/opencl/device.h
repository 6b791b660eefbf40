// The devices of every platform of the OpenCL implementation found, and buffers on them.
#ifndef BURNISH_OPENCL_DEVICE_H_
#define BURNISH_OPENCL_DEVICE_H_

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "api.h"

namespace burnish::opencl {

// A device with a context and two in-order queues of its own: commands go to `queue`, and to
// `profiling` while the calling thread has a timer running.
struct Device {
  int id = 0;
  cl_device_id handle = nullptr;
  cl_context context = nullptr;
  cl_command_queue queue = nullptr;
  cl_command_queue profiling = nullptr;
  cl_bitfield type = 0;
  std::string platform, platform_version, name, vendor, version, driver, extensions;
  size_t max_group = 0;
  size_t max_items[3] = {1, 1, 1};
  cl_uint compute_units = 0, clock_mhz = 0, float_width = 0;
  cl_ulong local_bytes = 0, global_bytes = 0, cache_bytes = 0, max_alloc_bytes = 0;
  // Commands that are to go to `queue` or went there, those that went, and those known to be done.
  std::atomic<int64_t> asked{0}, given{0}, settled{0};
  // Whether it let a limit pass: it is not waited for again.
  std::atomic<bool> hangs{false};

  void Settled(int64_t count) {
    int64_t known = settled;
    while (known < count && !settled.compare_exchange_weak(known, count)) {
    }
  }

  bool Has(const std::string& extension) const {
    return (" " + extensions + " ").find(" " + extension + " ") != std::string::npos;
  }
  std::string Label() const {
    return "opencl:" + std::to_string(id) + " (" + name + ", " + platform + ")";
  }
};

// What DLTensor.data points to: never a raw address, so that no host arithmetic is done on it.
struct Buffer {
  static constexpr uint64_t kMagic = 0x6275726e69736821;
  uint64_t magic = kMagic;
  cl_mem memory = nullptr;
  size_t bytes = 0;
  Device* device = nullptr;
};

struct Counters {
  std::atomic<int64_t> live_buffers{0}, live_bytes{0}, live_kernels{0}, live_events{0};
  std::atomic<int64_t> live_sends{0}, sent{0}, waits{0};
  std::atomic<int64_t> built{0}, from_cache{0}, cache_damaged{0}, launched{0}, timed{0};
};

class Runtime {
 public:
  // Never destroyed: TVM may free tensors after static objects are gone.
  static Runtime* Get() {
    static Runtime* instance = new Runtime();
    return instance;
  }

  // Libraries to try in order, the first with a device wins; and what to say if there is none.
  // Set before the first use; later calls change nothing.
  void Configure(std::vector<std::string> libraries, std::string remedy) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (opened_) return;
    libraries_ = std::move(libraries);
    remedy_ = std::move(remedy);
  }
  // The folder of built programs; empty for none.
  void SetCache(std::string folder) {
    std::lock_guard<std::mutex> lock(mutex_);
    cache_ = std::move(folder);
  }
  std::string Cache() {
    std::lock_guard<std::mutex> lock(mutex_);
    return cache_;
  }

  // Opens OpenCL once. Whether there is a device; `Problem()` says why not.
  bool Open() {
    std::call_once(once_, [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      opened_ = true;
      for (const std::string& library : libraries_) {
        problem_ += (problem_.empty() ? "" : "; ") + Try(library);
        if (!devices_.empty()) break;
      }
      // Registered after the driver's own handlers, so run before them: what is released later
      // than that is left to the system.
      std::atexit([] { Get()->leaving_ = true; });
    });
    return !devices_.empty();
  }

  const std::string& Problem() {
    Open();
    return problem_;
  }
  const std::string& library() const { return library_; }
  const std::vector<std::unique_ptr<Device>>& devices() {
    Open();
    return devices_;
  }

  Device* At(int id) {
    if (!Open()) {
      TVM_FFI_THROW(RuntimeError) << "no OpenCL device here: " << problem_
                                  << ". Remedy: " << remedy_;
    }
    if (id < 0 || id >= static_cast<int>(devices_.size())) {
      std::ostringstream known;
      for (const auto& device : devices_) known << (device->id ? ", " : "") << device->Label();
      TVM_FFI_THROW(ValueError) << "no device opencl:" << id << " here; known: " << known.str();
    }
    return devices_[id].get();
  }

  // Whether the process is ending, when the driver must not be called any more.
  bool leaving() const { return leaving_; }

  Buffer* Allocate(int id, size_t bytes) {
    Device* device = At(id);
    const size_t wanted = bytes == 0 ? 1 : bytes;  // OpenCL knows no empty buffer
    cl_int code = CL_SUCCESS;
    cl_mem memory = nullptr;
    if (wanted <= device->max_alloc_bytes) {
      memory = api.clCreateBuffer(device->context, CL_MEM_READ_WRITE, wanted, nullptr, &code);
    }
    if (memory == nullptr || code != CL_SUCCESS) {
      TVM_FFI_THROW(MemoryError) << device->Label() << " has no room for a buffer of " << bytes
                                 << " bytes"
                                 << (code == CL_SUCCESS ? std::string() : ": " + ErrorName(code))
                                 << "; its largest buffer is " << device->max_alloc_bytes
                                 << " bytes, its memory " << device->global_bytes
                                 << ", in use here " << counters.live_bytes;
    }
    auto* buffer = new Buffer{Buffer::kMagic, memory, wanted, device};
    counters.live_buffers += 1;
    counters.live_bytes += static_cast<int64_t>(wanted);
    return buffer;
  }

  // The memory goes when the commands that use it are done; OpenCL sees to that.
  void Free(Buffer* buffer) {
    if (buffer == nullptr) return;
    if (!leaving_) api.clReleaseMemObject(buffer->memory);
    counters.live_buffers -= 1;
    counters.live_bytes -= static_cast<int64_t>(buffer->bytes);
    buffer->magic = 0;
    delete buffer;
  }

  Api api;
  Counters counters;

 private:
  // Fills `devices_`, or says why there is none.
  std::string Try(const std::string& path) {
    Api found;
    std::string problem = found.Open(path);
    if (!problem.empty()) return problem;
    api = found;
    cl_uint count = 0;
    cl_int code = api.clGetPlatformIDs(0, nullptr, &count);
    if (code == CL_PLATFORM_NOT_FOUND_KHR || (code == CL_SUCCESS && count == 0)) {
      return path + " lists no platform (no driver is installed)";
    }
    if (code != CL_SUCCESS) return path + ": clGetPlatformIDs: " + ErrorName(code);
    std::vector<cl_platform_id> platforms(count);
    api.clGetPlatformIDs(count, platforms.data(), nullptr);
    std::string said;
    for (cl_platform_id platform : platforms) {
      cl_uint number = 0;
      code = api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &number);
      if (code != CL_SUCCESS || number == 0) {
        said += "; " + PlatformText(platform, CL_PLATFORM_NAME) + ": " +
                (code == CL_DEVICE_NOT_FOUND || code == CL_SUCCESS ? "no device" : ErrorName(code));
        continue;
      }
      std::vector<cl_device_id> handles(number);
      api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, number, handles.data(), nullptr);
      for (cl_device_id handle : handles) {
        std::string why = Add(platform, handle);
        if (!why.empty()) said += "; " + why;
      }
    }
    library_ = devices_.empty() ? "" : path;
    return devices_.empty() ? path + " has no usable device" + said : "";
  }

  std::string Add(cl_platform_id platform, cl_device_id handle) {
    auto device = std::make_unique<Device>();
    device->handle = handle;
    device->platform = PlatformText(platform, CL_PLATFORM_NAME);
    device->platform_version = PlatformText(platform, CL_PLATFORM_VERSION);
    device->name = DeviceText(handle, CL_DEVICE_NAME);
    device->vendor = DeviceText(handle, CL_DEVICE_VENDOR);
    device->version = DeviceText(handle, CL_DEVICE_VERSION);
    device->driver = DeviceText(handle, CL_DRIVER_VERSION);
    device->extensions = DeviceText(handle, CL_DEVICE_EXTENSIONS);
    auto number = [&](cl_uint what, auto* into) {
      api.clGetDeviceInfo(handle, what, sizeof(*into), into, nullptr);
    };
    number(CL_DEVICE_TYPE, &device->type);
    number(CL_DEVICE_MAX_WORK_GROUP_SIZE, &device->max_group);
    number(CL_DEVICE_MAX_COMPUTE_UNITS, &device->compute_units);
    number(CL_DEVICE_MAX_CLOCK_FREQUENCY, &device->clock_mhz);
    number(CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, &device->float_width);
    number(CL_DEVICE_LOCAL_MEM_SIZE, &device->local_bytes);
    number(CL_DEVICE_GLOBAL_MEM_SIZE, &device->global_bytes);
    number(CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, &device->cache_bytes);
    number(CL_DEVICE_MAX_MEM_ALLOC_SIZE, &device->max_alloc_bytes);
    cl_uint dimensions = 0;
    number(CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS, &dimensions);
    std::vector<size_t> items(dimensions < 3 ? 3 : dimensions, 1);
    api.clGetDeviceInfo(handle, CL_DEVICE_MAX_WORK_ITEM_SIZES, items.size() * sizeof(size_t),
                        items.data(), nullptr);
    for (int i = 0; i < 3; ++i) device->max_items[i] = items[i];

    cl_int code = CL_SUCCESS;
    device->context = api.clCreateContext(nullptr, 1, &handle, nullptr, nullptr, &code);
    if (code == CL_SUCCESS) {
      device->queue = api.clCreateCommandQueue(device->context, handle, 0, &code);
    }
    if (code != CL_SUCCESS) return device->name + ": " + ErrorName(code);
    device->id = static_cast<int>(devices_.size());
    devices_.push_back(std::move(device));
    return "";
  }

  static std::string Trimmed(std::string text) {
    while (!text.empty() && (text.back() == '\0' || text.back() == ' ')) text.pop_back();
    return text;
  }
  std::string PlatformText(cl_platform_id platform, cl_uint what) {
    size_t size = 0;
    if (api.clGetPlatformInfo(platform, what, 0, nullptr, &size) != CL_SUCCESS) return "";
    std::string text(size, '\0');
    api.clGetPlatformInfo(platform, what, size, text.data(), nullptr);
    return Trimmed(text);
  }
  std::string DeviceText(cl_device_id device, cl_uint what) {
    size_t size = 0;
    if (api.clGetDeviceInfo(device, what, 0, nullptr, &size) != CL_SUCCESS) return "";
    std::string text(size, '\0');
    api.clGetDeviceInfo(device, what, size, text.data(), nullptr);
    return Trimmed(text);
  }

  std::mutex mutex_;
  std::once_flag once_;
  bool opened_ = false;
  std::atomic<bool> leaving_{false};
  std::vector<std::string> libraries_{"libOpenCL.so.1", "libOpenCL.so"};
  std::string remedy_, cache_, problem_, library_;
  std::vector<std::unique_ptr<Device>> devices_;
};

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_DEVICE_H_
