// The bytes of an OpenCL module in an exported library: TVM's own layout, little endian.
//
//   str format, u64 n, n x {str key, str name, u64 na x {u8 code, u8 bits, u16 lanes},
//   u64 nt x str tag, u64 ne x i32 extra}, str code         (str: u64 length, then the bytes)
#ifndef BURNISH_OPENCL_PAYLOAD_H_
#define BURNISH_OPENCL_PAYLOAD_H_

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "kernel_info.h"

namespace burnish::opencl {

struct Payload {
  std::string format, code;
  std::vector<KernelInfo> kernels;
};

// Reads with every length checked against what is left.
class PayloadReader {
 public:
  explicit PayloadReader(const std::string& bytes) : bytes_(bytes) {}

  template <typename T>
  T Number() {
    T value;
    Need(sizeof(T));
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string Text() {
    const uint64_t size = Number<uint64_t>();
    Need(size);
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  // A name is printable ASCII, as it goes into messages.
  std::string Name() {
    std::string name = Text();
    for (char letter : name) {
      if (letter < ' ' || letter > '~') Fail();
    }
    return name;
  }
  // A count of things that take at least `each` bytes.
  uint64_t Count(uint64_t each) {
    const uint64_t count = Number<uint64_t>();
    if (count > (bytes_.size() - at_) / each) Fail();
    return count;
  }
  void End() const {
    if (at_ != bytes_.size()) Fail();
  }

 private:
  void Need(uint64_t size) const {
    if (size > bytes_.size() - at_) Fail();
  }
  void Fail() const {
    TVM_FFI_THROW(ValueError) << "the OpenCL module's bytes are damaged: at byte " << at_ << " of "
                              << bytes_.size() << " they are not what TVM writes";
  }

  const std::string& bytes_;
  size_t at_ = 0;
};

inline Payload ReadPayload(const std::string& bytes) {
  PayloadReader reader(bytes);
  Payload payload;
  payload.format = reader.Name();
  for (uint64_t left = reader.Count(40); left > 0; --left) {
    KernelInfo info;
    info.key = reader.Name();
    info.name = reader.Name();
    for (uint64_t n = reader.Count(4); n > 0; --n) {
      DLDataType type;
      type.code = reader.Number<uint8_t>();
      type.bits = reader.Number<uint8_t>();
      type.lanes = reader.Number<uint16_t>();
      info.arguments.push_back(type);
    }
    for (uint64_t n = reader.Count(8); n > 0; --n) info.tags.push_back(reader.Name());
    for (uint64_t n = reader.Count(4); n > 0; --n) info.extra.push_back(reader.Number<int32_t>());
    payload.kernels.push_back(std::move(info));
  }
  payload.code = reader.Text();
  reader.End();
  return payload;
}

inline std::string WritePayload(const Payload& payload) {
  std::string bytes;
  auto number = [&](auto value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  auto text = [&](const std::string& value) {
    number(static_cast<uint64_t>(value.size()));
    bytes += value;
  };
  text(payload.format);
  number(static_cast<uint64_t>(payload.kernels.size()));
  for (const KernelInfo& info : payload.kernels) {
    text(info.key);
    text(info.name);
    number(static_cast<uint64_t>(info.arguments.size()));
    for (DLDataType type : info.arguments) {
      number(type.code);
      number(type.bits);
      number(type.lanes);
    }
    number(static_cast<uint64_t>(info.tags.size()));
    for (const std::string& tag : info.tags) text(tag);
    number(static_cast<uint64_t>(info.extra.size()));
    for (int32_t extra : info.extra) number(extra);
  }
  text(payload.code);
  return bytes;
}

// TVM writes the line `// Function: NAME` before each kernel's source.
inline std::map<std::string, std::string> SplitSource(const std::string& code) {
  const std::string mark = "// Function: ";
  std::map<std::string, std::string> sources;
  for (size_t at = code.rfind(mark, 0) == 0 ? 0 : code.find("\n" + mark);
       at != std::string::npos;) {
    const size_t name = at + mark.size() + (code[at] == '\n' ? 1 : 0);
    const size_t body = std::min(code.find('\n', name), code.size() - 1) + 1;
    const size_t next = code.find("\n" + mark, name);
    sources[code.substr(name, body - 1 - name)] =
        code.substr(body, next == std::string::npos ? next : next + 1 - body);
    at = next;
  }
  return sources;
}

}  // namespace burnish::opencl

#endif  // BURNISH_OPENCL_PAYLOAD_H_
