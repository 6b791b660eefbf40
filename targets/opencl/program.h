// Programs: built from source, or read from the cache on disk; build logs on failure.
#ifndef BURNISH_OPENCL_PROGRAM_H_
#define BURNISH_OPENCL_PROGRAM_H_

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "device.h"

namespace burnish::opencl {

constexpr const char* kBuildOptions = "";

inline uint64_t Fnv(const std::string& text, uint64_t hash = 0xcbf29ce484222325) {
  for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

// One file an entry: a mark, the whole key, the binary and a checksum of both. The file's name is
// only a hash of the key, so the key is compared. A damaged or foreign entry counts as absent.
class ProgramCache {
 public:
  ProgramCache(const std::string& folder, const Device& device, const std::string& source)
      : folder_(folder) {
    for (const std::string& part :
         {device.platform, device.platform_version, device.name, device.version, device.driver,
          std::string(kBuildOptions), source}) {
      key_ += std::to_string(part.size()) + ":" + part;
    }
    std::ostringstream name;
    name << std::hex << Fnv(key_) << Fnv(key_, key_.size());
    path_ = folder_ + "/" + name.str() + ".clbin";
  }

  // Whether there is a sound entry; a damaged one is counted.
  bool Load(std::string* binary) const {
    if (folder_.empty()) return false;
    std::ifstream file(path_, std::ios::binary);
    if (!file) return false;
    std::stringstream read;
    read << file.rdbuf();
    const std::string text = read.str();
    const size_t head = Mark().size() + 2 * sizeof(uint64_t);
    uint64_t sum = 0, key_size = 0;
    bool sound = text.size() >= head && text.compare(0, Mark().size(), Mark()) == 0;
    if (sound) {
      text.copy(reinterpret_cast<char*>(&sum), sizeof(sum), Mark().size());
      text.copy(reinterpret_cast<char*>(&key_size), sizeof(key_size), Mark().size() + sizeof(sum));
      sound =
          key_size <= text.size() - head && sum == Fnv(text.substr(Mark().size() + sizeof(sum)));
    }
    if (!sound) {
      Runtime::Get()->counters.cache_damaged += 1;
      return false;
    }
    if (text.compare(head, key_size, key_) != 0) return false;
    *binary = text.substr(head + key_size);
    return true;
  }

  // Written whole or not at all. A folder that cannot be written caches nothing and fails nothing.
  void Store(const std::string& binary) const {
    if (folder_.empty() || binary.empty()) return;
    const uint64_t key_size = key_.size();
    std::string body(reinterpret_cast<const char*>(&key_size), sizeof(key_size));
    body += key_ + binary;
    const uint64_t sum = Fnv(body);
    static std::atomic<int> number{0};
    const std::string partial =
        path_ + "." + std::to_string(getpid()) + "-" + std::to_string(number++) + ".part";
    std::ofstream file(partial, std::ios::binary);
    file << Mark();
    file.write(reinterpret_cast<const char*>(&sum), sizeof(sum));
    file << body;
    file.close();
    if (!file || std::rename(partial.c_str(), path_.c_str()) != 0) std::remove(partial.c_str());
  }

 private:
  static const std::string& Mark() {
    static const std::string mark = "burnish opencl program 1\n";
    return mark;
  }

  std::string folder_, key_, path_;
};

inline std::string BuildLog(cl_program program, const Device& device) {
  Api& api = Runtime::Get()->api;
  size_t size = 0;
  api.clGetProgramBuildInfo(program, device.handle, CL_PROGRAM_BUILD_LOG, 0, nullptr, &size);
  std::string log(size, '\0');
  api.clGetProgramBuildInfo(program, device.handle, CL_PROGRAM_BUILD_LOG, size, log.data(),
                            nullptr);
  while (!log.empty() && (log.back() == '\0' || log.back() == '\n')) log.pop_back();
  return log.empty() ? "the driver gives no log" : log;
}

// The source with a number before each line, so that the log's line numbers say something.
inline std::string Numbered(const std::string& source) {
  std::ostringstream text;
  std::istringstream lines(source);
  int number = 0;
  for (std::string line; std::getline(lines, line);) text << ++number << "  " << line << "\n";
  return text.str();
}

inline std::string BinaryOf(cl_program program) {
  Api& api = Runtime::Get()->api;
  size_t size = 0;
  if (api.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof(size), &size, nullptr) !=
          CL_SUCCESS ||
      size == 0) {
    return "";
  }
  std::string binary(size, '\0');
  auto* data = reinterpret_cast<unsigned char*>(binary.data());
  if (api.clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof(data), &data, nullptr) !=
      CL_SUCCESS) {
    return "";
  }
  return binary;
}

// The program of one kernel, built for a device.
inline cl_program BuildProgram(const std::string& name, const std::string& source, Device* device) {
  Runtime* runtime = Runtime::Get();
  Api& api = runtime->api;
  const ProgramCache cache(runtime->Cache(), *device, source);
  cl_int code = CL_SUCCESS;
  std::string binary;
  if (cache.Load(&binary)) {
    const size_t size = binary.size();
    const auto* data = reinterpret_cast<const unsigned char*>(binary.data());
    cl_program program = api.clCreateProgramWithBinary(device->context, 1, &device->handle, &size,
                                                       &data, nullptr, &code);
    if (code == CL_SUCCESS) {
      code = api.clBuildProgram(program, 1, &device->handle, kBuildOptions, nullptr, nullptr);
      if (code == CL_SUCCESS) {
        runtime->counters.from_cache += 1;
        return program;
      }
      api.clReleaseProgram(program);
    }
    runtime->counters.cache_damaged += 1;  // a driver may refuse what it wrote itself
  }
  const char* text = source.c_str();
  const size_t length = source.size();
  cl_program program = api.clCreateProgramWithSource(device->context, 1, &text, &length, &code);
  Check(code, "clCreateProgramWithSource");
  code = api.clBuildProgram(program, 1, &device->handle, kBuildOptions, nullptr, nullptr);
  if (code != CL_SUCCESS) {
    const std::string log = BuildLog(program, *device);
    api.clReleaseProgram(program);
    TVM_FFI_THROW(RuntimeError) << "the kernel '" << name << "' does not build for "
                                << device->Label() << ": " << ErrorName(code) << "\n"
                                << log << "\nIts source:\n"
                                << Numbered(source);
  }
  runtime->counters.built += 1;
  cache.Store(BinaryOf(program));
  return program;
}

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_PROGRAM_H_
