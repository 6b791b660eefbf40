// The OpenCL runtime that TVM's wheel lacks: devices, modules and a timer, registered under the
// names by which TVM looks for them. Compiled on the machine it runs on, against the headers of
// the installed TVM (runtime.py); OpenCL itself is opened at run time (api.h).
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/reflection/accessor.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "kernel.h"
#include "moves.h"
#include "payload.h"

namespace burnish::opencl {

thread_local int current_device = 0;

class OpenCLDeviceAPI final : public tvm::runtime::DeviceAPI {
 public:
  // Never destroyed; see Runtime::Get.
  static OpenCLDeviceAPI* Get() {
    static OpenCLDeviceAPI* instance = new OpenCLDeviceAPI();
    return instance;
  }

  void SetDevice(DLDevice dev) final { current_device = dev.device_id; }

  void GetAttr(DLDevice dev, tvm::runtime::DeviceAttrKind kind, ffi::Any* rv) final {
    Runtime* runtime = Runtime::Get();
    if (kind == tvm::runtime::kExist) {
      *rv = static_cast<int>(runtime->Open() && dev.device_id >= 0 &&
                             dev.device_id < static_cast<int>(runtime->devices().size()));
      return;
    }
    const Device& device = *runtime->At(dev.device_id);
    switch (kind) {
      case tvm::runtime::kMaxThreadsPerBlock:
        *rv = static_cast<int64_t>(device.max_group);
        return;
      case tvm::runtime::kWarpSize:
        *rv = 1;  // subgroups are an extension; TVM's own runtime says 1 too
        return;
      case tvm::runtime::kMaxSharedMemoryPerBlock:
        *rv = static_cast<int64_t>(device.local_bytes);
        return;
      case tvm::runtime::kComputeVersion:
      case tvm::runtime::kApiVersion:
        *rv = ffi::String(device.version);
        return;
      case tvm::runtime::kDeviceName:
        *rv = ffi::String(device.name);
        return;
      case tvm::runtime::kMaxClockRate:
        *rv = static_cast<int64_t>(device.clock_mhz) * 1000;  // kHz
        return;
      case tvm::runtime::kMultiProcessorCount:
        *rv = static_cast<int64_t>(device.compute_units);
        return;
      case tvm::runtime::kMaxThreadDimensions: {
        std::ostringstream text;
        text << "[" << device.max_items[0] << ", " << device.max_items[1] << ", "
             << device.max_items[2] << "]";
        *rv = ffi::String(text.str());
        return;
      }
      case tvm::runtime::kDriverVersion:
        *rv = ffi::String(device.driver);
        return;
      case tvm::runtime::kL2CacheSizeBytes:
        *rv = static_cast<int64_t>(device.cache_bytes);
        return;
      case tvm::runtime::kTotalGlobalMemory:
        *rv = static_cast<int64_t>(device.global_bytes);
        return;
      default:
        return;  // not known to OpenCL: None
    }
  }

  void* AllocDataSpace(DLDevice dev, size_t nbytes, size_t, DLDataType) final {
    return Runtime::Get()->Allocate(dev.device_id, nbytes);
  }
  using DeviceAPI::AllocDataSpace;

  void FreeDataSpace(DLDevice, void* data) final {
    Runtime::Get()->Free(static_cast<Buffer*>(data));
  }

  void StreamSync(DLDevice dev, TVMStreamHandle) final {
    Finish(Runtime::Get()->At(dev.device_id));
    Sent::Get()->Settle();
  }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                      size_t bytes, DLDevice dev_from, DLDevice dev_to, DLDataType,
                      TVMStreamHandle) final {
    if (bytes == 0) return;
    const auto* source = static_cast<const Buffer*>(from);
    auto* target = static_cast<Buffer*>(to);
    if (dev_from.device_type != kDLOpenCL) {
      Write(static_cast<const char*>(from) + from_offset, target, to_offset, bytes);
    } else if (dev_to.device_type != kDLOpenCL) {
      Read(source, from_offset, static_cast<char*>(to) + to_offset, bytes);
    } else if (source->device == target->device && source != target) {
      Command command(source->device);
      Check(Runtime::Get()->api.clEnqueueCopyBuffer(command.queue(), source->memory, target->memory,
                                                    from_offset, to_offset, bytes, 0, nullptr,
                                                    command.event()),
            "clEnqueueCopyBuffer");
      command.Given();
    } else {
      // Another device, or places of one buffer that may overlap: by way of the host.
      std::vector<char> between(bytes);
      Read(source, from_offset, between.data(), bytes);
      Write(between.data(), target, to_offset, bytes);
    }
  }
  using DeviceAPI::CopyDataFromTo;

 private:
  // Both wait: the caller may free or read the host's memory at once.
  static void Write(const char* from, Buffer* to, size_t offset, size_t bytes) {
    Runtime::Get()->counters.waits += 1;
    SettleBefore(to->device, Command::QueueOf(to->device));
    Command command(to->device);  // the host's memory is free before the device has written
    Check(Runtime::Get()->api.clEnqueueWriteBuffer(command.queue(), to->memory, CL_TRUE, offset,
                                                   bytes, from, 0, nullptr, command.event()),
          "clEnqueueWriteBuffer");
    command.Given();
  }
  static void Read(const Buffer* from, size_t offset, char* to, size_t bytes) {
    Runtime::Get()->counters.waits += 1;
    Command command(from->device, Command::Read{});
    Check(Runtime::Get()->api.clEnqueueReadBuffer(command.queue(), from->memory, CL_TRUE, offset,
                                                  bytes, to, 0, nullptr, command.event()),
          "clEnqueueReadBuffer");
    command.Given();
  }
};

// TVM's module of OpenCL kernels; each is built when it first runs on a device.
class OpenCLModule final : public ffi::ModuleObj {
 public:
  OpenCLModule(Payload payload, ffi::Map<ffi::String, ffi::String> source)
      : payload_(std::move(payload)), source_(std::move(source)) {
    if (payload_.format != "cl") {
      TVM_FFI_THROW(ValueError) << "this OpenCL module holds code of the format '"
                                << payload_.format << "'; only source ('cl') can be run";
    }
    std::map<std::string, std::string> sources = SplitSource(payload_.code);
    for (const KernelInfo& info : payload_.kernels) {
      CheckInfo(info);
      auto found = sources.find(info.key);
      if (found == sources.end()) {
        TVM_FFI_THROW(ValueError) << "the OpenCL module has no source of its kernel '" << info.key
                                  << "'";
      }
      kernels_[info.key] = std::make_shared<Kernel>(info, found->second);
    }
  }

  const char* kind() const final { return "opencl"; }
  int GetPropertyMask() const final {
    return ffi::Module::kBinarySerializable | ffi::Module::kRunnable;
  }
  bool ImplementsFunction(const ffi::String& name) final { return kernels_.count(name) != 0; }
  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = kernels_.find(name);
    if (found == kernels_.end()) return std::nullopt;
    std::shared_ptr<Kernel> kernel = found->second;
    return ffi::Function::FromPacked([kernel](const ffi::AnyView* args, int32_t count, ffi::Any*) {
      kernel->Launch(reinterpret_cast<const TVMFFIAny*>(args), count, current_device);
    });
  }
  ffi::Bytes SaveToBytes() const final { return ffi::Bytes(WritePayload(payload_)); }
  ffi::String InspectSource(const ffi::String& format) const final {
    auto found = source_.find(format);
    if (found != source_.end()) return (*found).second;
    return format.empty() || format == "cl" ? ffi::String(payload_.code) : ffi::String();
  }

 private:
  Payload payload_;
  ffi::Map<ffi::String, ffi::String> source_;
  std::map<std::string, std::shared_ptr<Kernel>> kernels_;
};

// FunctionInfo has no header in the wheel; its fields are read by name.
KernelInfo ReadInfo(const ffi::String& key, const ffi::ObjectRef& object) {
  static const ffi::reflection::FieldGetter name("runtime.FunctionInfo", "name");
  static const ffi::reflection::FieldGetter arguments("runtime.FunctionInfo", "arg_types");
  static const ffi::reflection::FieldGetter tags("runtime.FunctionInfo", "launch_param_tags");
  static const ffi::reflection::FieldGetter extra("runtime.FunctionInfo", "arg_extra_tags");
  KernelInfo info;
  info.key = key;
  info.name = name(object).cast<ffi::String>();
  for (DLDataType type : arguments(object).cast<ffi::Array<DLDataType>>()) {
    info.arguments.push_back(type);
  }
  for (const ffi::String& tag : tags(object).cast<ffi::Array<ffi::String>>()) {
    info.tags.push_back(tag);
  }
  for (int64_t tag : extra(object).cast<ffi::Array<int64_t>>()) {
    info.extra.push_back(static_cast<int32_t>(tag));
  }
  return info;
}

ffi::Module CreateModule(ffi::Bytes code, ffi::String format,
                         ffi::Map<ffi::String, ffi::ObjectRef> functions,
                         ffi::Map<ffi::String, ffi::String> source) {
  Payload payload;
  payload.format = format;
  payload.code = std::string(code.data(), code.size());
  for (const auto& [key, info] : functions) payload.kernels.push_back(ReadInfo(key, info));
  return ffi::Module(ffi::make_object<OpenCLModule>(std::move(payload), std::move(source)));
}

ffi::Module LoadModule(ffi::Bytes bytes) {
  return ffi::Module(ffi::make_object<OpenCLModule>(
      ReadPayload(std::string(bytes.data(), bytes.size())), ffi::Map<ffi::String, ffi::String>()));
}

ffi::Map<ffi::String, ffi::Any> Described(const Device& device) {
  ffi::Map<ffi::String, ffi::Any> map;
  map.Set("index", static_cast<int64_t>(device.id));
  map.Set("platform", ffi::String(device.platform));
  map.Set("platform_version", ffi::String(device.platform_version));
  map.Set("name", ffi::String(device.name));
  map.Set("vendor", ffi::String(device.vendor));
  map.Set("version", ffi::String(device.version));
  map.Set("driver", ffi::String(device.driver));
  map.Set("extensions", ffi::String(device.extensions));
  map.Set("kind", ffi::String(device.type & CL_DEVICE_TYPE_GPU           ? "gpu"
                              : device.type & CL_DEVICE_TYPE_CPU         ? "cpu"
                              : device.type & CL_DEVICE_TYPE_ACCELERATOR ? "accelerator"
                                                                         : "other"));
  map.Set("compute_units", static_cast<int64_t>(device.compute_units));
  map.Set("max_work_group", static_cast<int64_t>(device.max_group));
  map.Set("local_bytes", static_cast<int64_t>(device.local_bytes));
  map.Set("global_bytes", static_cast<int64_t>(device.global_bytes));
  map.Set("max_alloc_bytes", static_cast<int64_t>(device.max_alloc_bytes));
  map.Set("float_width", static_cast<int64_t>(device.float_width));
  return map;
}

ffi::Map<ffi::String, int64_t> Counted() {
  const Counters& counters = Runtime::Get()->counters;
  ffi::Map<ffi::String, int64_t> map;
  map.Set("live_buffers", counters.live_buffers);
  map.Set("live_bytes", counters.live_bytes);
  map.Set("live_kernels", counters.live_kernels);
  map.Set("live_events", counters.live_events);
  map.Set("live_sends", counters.live_sends);
  map.Set("sent", counters.sent);
  map.Set("waits", counters.waits);
  map.Set("built", counters.built);
  map.Set("from_cache", counters.from_cache);
  map.Set("cache_damaged", counters.cache_damaged);
  map.Set("launched", counters.launched);
  map.Set("timed", counters.timed);
  return map;
}

template <typename F>
void Register(const char* name, F function) {
  // Over the Python functions of the same names that compiled and loaded this library.
  ffi::Function::SetGlobal(name, ffi::Function::FromTyped(function), /*override=*/true);
}

TVM_FFI_STATIC_INIT_BLOCK() {
  Register("device_api.opencl", [] { return static_cast<void*>(OpenCLDeviceAPI::Get()); });
  Register("ffi.Module.create.opencl", CreateModule);
  Register("ffi.Module.load_from_bytes.opencl", LoadModule);
  Register("runtime.timer.opencl", [](DLDevice device) {
    return tvm::runtime::Timer(ffi::make_object<TimerNode>(Runtime::Get()->At(device.device_id)));
  });
  Register("burnish.opencl.configure", [](ffi::Array<ffi::String> libraries, ffi::String remedy) {
    std::vector<std::string> paths;
    for (const ffi::String& path : libraries) paths.push_back(path);
    Runtime::Get()->Configure(std::move(paths), remedy);
  });
  Register("burnish.opencl.set_cache",
           [](ffi::String folder) { Runtime::Get()->SetCache(folder); });
  Register("burnish.opencl.devices", [] {
    ffi::Array<ffi::Map<ffi::String, ffi::Any>> found;
    for (const auto& device : Runtime::Get()->devices()) found.push_back(Described(*device));
    return found;
  });
  Register("burnish.opencl.problem", [] { return ffi::String(Runtime::Get()->Problem()); });
  Register("burnish.opencl.library", [] {
    Runtime::Get()->Open();
    return ffi::String(Runtime::Get()->library());
  });
  Register("burnish.opencl.counters", Counted);
  Register("burnish.opencl.move", Move);
  Register("burnish.opencl.begin", [](int64_t id) {
    // What the device was given is begun, though nothing waits for it yet.
    Check(Runtime::Get()->api.clFlush(Runtime::Get()->At(static_cast<int>(id))->queue), "clFlush");
  });
}

}  // namespace burnish::opencl
