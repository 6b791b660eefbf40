// What is known of a kernel before it is built, what can never be launched, and numbers as bits.
#ifndef BURNISH_OPENCL_KERNEL_INFO_H_
#define BURNISH_OPENCL_KERNEL_INFO_H_

#include <tvm/ffi/dtype.h>
#include <tvm/ffi/error.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace burnish::opencl {

namespace ffi = tvm::ffi;

// What the module's payload says of a kernel.
struct KernelInfo {
  std::string key, name;
  std::vector<DLDataType> arguments;
  std::vector<std::string> tags;
  std::vector<int32_t> extra;
};

// A launch tag's place in {grid x, y, z, block x, y, z}; unknown ones have none.
inline int TagPlace(const std::string& tag) {
  static const char* const known[] = {"blockIdx.x",  "blockIdx.y",  "blockIdx.z",
                                      "threadIdx.x", "threadIdx.y", "threadIdx.z"};
  for (int place = 0; place < 6; ++place) {
    if (tag == known[place]) return place;
  }
  return -1;
}

inline bool IsBool(DLDataType type) {
  return type.code == kDLBool || (type.code == kDLUInt && type.bits == 1);
}

// A dtype's name, also of what is none. Nothing that may raise stands in a TVM_FFI_THROW: its
// stream raises when it is destroyed, and a second error then ends the process.
inline std::string TypeName(DLDataType type) {
  try {
    return ffi::DLDataTypeToString(type);
  } catch (const ffi::Error&) {
    return "code " + std::to_string(type.code) + " of " + std::to_string(type.bits) + " bits";
  }
}

// Raises for what can never be launched with OpenCL.
inline void CheckInfo(const KernelInfo& info) {
  for (const std::string& tag : info.tags) {
    if (TagPlace(tag) >= 0) continue;
    TVM_FFI_THROW(ValueError)
        << "the kernel '" << info.key << "' has the launch tag '" << tag
        << "', which OpenCL has no counterpart for; known are blockIdx.x/y/z and threadIdx.x/y/z"
        << (tag == "tirx.use_dyn_shared_memory"
                ? ": give the buffers of scope 'shared.dyn' the scope 'shared'"
                : "");
  }
  for (size_t i = 0; i < info.arguments.size(); ++i) {
    const DLDataType type = info.arguments[i];
    const bool scalar =
        IsBool(type) ||
        ((type.code == kDLInt || type.code == kDLUInt) &&
         (type.bits == 8 || type.bits == 16 || type.bits == 32 || type.bits == 64)) ||
        (type.code == kDLFloat && (type.bits == 16 || type.bits == 32 || type.bits == 64)) ||
        (type.code == kDLBfloat && type.bits == 16);
    if (type.lanes == 1 && (scalar || type.code == kDLOpaqueHandle)) continue;
    TVM_FFI_THROW(TypeError) << "argument " << i << " of the kernel '" << info.key
                             << "' is of type " << TypeName(type)
                             << ", which cannot be passed to an OpenCL kernel by value";
  }
  for (int32_t extra : info.extra) {
    if (extra == 0) continue;
    TVM_FFI_THROW(ValueError) << "the kernel '" << info.key
                              << "' takes a tensor map, which OpenCL has no counterpart for";
  }
}

// A number as IEEE half (5, 10) or bfloat16 (8, 7), rounded once, to nearest even.
inline uint16_t Narrow(double value, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
  const uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(value);
  if (std::isnan(size)) return static_cast<uint16_t>(sign | infinity | (1u << (mantissa_bits - 1)));
  if (std::isinf(size)) return static_cast<uint16_t>(sign | infinity);
  if (size == 0) return static_cast<uint16_t>(sign);
  const int exponent = std::max(std::ilogb(size), 1 - bias);
  const double steps = std::nearbyint(std::ldexp(size, mantissa_bits - exponent));
  // `steps` holds the leading one of a normal number, and may carry into the exponent.
  const double bits = std::ldexp(exponent + bias - 1, mantissa_bits) + steps;
  return static_cast<uint16_t>(sign | (bits >= infinity ? infinity : static_cast<uint32_t>(bits)));
}

// OpenCL C has no kernel parameter of type bool: the kernel's own are made uchar.
inline std::string WithoutBoolParameters(const std::string& source, const KernelInfo& info) {
  bool any = false;
  for (DLDataType type : info.arguments) any = any || IsBool(type);
  if (!any) return source;
  std::string text = source;
  for (size_t at = text.find("__kernel"); at != std::string::npos; at = text.find("__kernel", at)) {
    size_t end = text.find(')', at);
    if (end == std::string::npos) break;
    for (size_t word = text.find("bool ", at); word < end; word = text.find("bool ", word + 1)) {
      if (text[word - 1] != ' ' && text[word - 1] != '(' && text[word - 1] != ',') continue;
      text.replace(word, 4, "uchar");
      end += 1;
    }
    at = end;
  }
  return text;
}

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_KERNEL_INFO_H_
