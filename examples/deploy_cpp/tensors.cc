#include "tensors.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>

namespace deploy {
namespace {

struct Named {
  const char* name;
  DLDataType dtype;
  const char* npy; /* how a .npy file spells it; none for bfloat16, which NumPy has not */
};

const Named kDtypes[] = {
    {"bool", {kDLBool, 8, 1}, "|b1"},          {"uint8", {kDLUInt, 8, 1}, "|u1"},
    {"int8", {kDLInt, 8, 1}, "|i1"},           {"uint16", {kDLUInt, 16, 1}, "<u2"},
    {"int16", {kDLInt, 16, 1}, "<i2"},         {"uint32", {kDLUInt, 32, 1}, "<u4"},
    {"int32", {kDLInt, 32, 1}, "<i4"},         {"uint64", {kDLUInt, 64, 1}, "<u8"},
    {"int64", {kDLInt, 64, 1}, "<i8"},         {"float16", {kDLFloat, 16, 1}, "<f2"},
    {"float32", {kDLFloat, 32, 1}, "<f4"},     {"float64", {kDLFloat, 64, 1}, "<f8"},
    {"bfloat16", {kDLBfloat, 16, 1}, nullptr},
};

const Named& known(DLDataType dtype) {
  for (const Named& one : kDtypes) {
    if (one.dtype.code == dtype.code && one.dtype.bits == dtype.bits && dtype.lanes == 1) {
      return one;
    }
  }
  throw std::runtime_error("a tensor has a dtype that NumPy has not");
}

struct Aligned {
  void AllocData(DLTensor* tensor) {
    size_t bytes = (tvm::ffi::GetDataSize(*tensor) + 127) / 64 * 64;
    tensor->data = std::aligned_alloc(64, bytes);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

/* The text after KEY in the header of a .npy file, a Python dict: {'descr': '<f4', ...}. */
std::string value_of(const std::string& header, const std::string& key, const std::string& path) {
  size_t found = header.find("'" + key + "':");
  if (found == std::string::npos) throw std::runtime_error(path + ": its header lacks " + key);
  size_t start = header.find_first_not_of(' ', found + key.size() + 3);
  size_t end = header[start] == '(' ? header.find(')', start) + 1 : header.find(',', start);
  return header.substr(start, end - start);
}

}  // namespace

DLDataType dtype_of(const std::string& name) {
  for (const Named& one : kDtypes) {
    if (name == one.name) return one.dtype;
  }
  throw std::runtime_error("the dtype " + name + " is none of NumPy's");
}

std::string name_of(DLDataType dtype) { return known(dtype).name; }

size_t bytes_of(const std::vector<int64_t>& shape, DLDataType dtype) {
  size_t count = 1;
  for (int64_t extent : shape) count *= static_cast<size_t>(extent);
  return count * ((dtype.bits + 7) / 8);
}

Tensor make_tensor(const std::vector<int64_t>& shape, DLDataType dtype) {
  tvm::ffi::ShapeView view(shape.data(), shape.size());
  return Tensor::FromNDAlloc(Aligned(), view, dtype, DLDevice{kDLCPU, 0});
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) throw std::runtime_error("cannot read " + path);
  return content.str();
}

Tensor read_npy(const std::string& path) {
  std::string content = read_file(path);
  if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0) {
    throw std::runtime_error(path + " is no .npy file");
  }
  size_t width = content[6] == 1 ? 2 : 4, length = 0;
  for (size_t i = 0; i < width; ++i) length |= size_t{uint8_t(content[8 + i])} << (8 * i);
  std::string header = content.substr(8 + width, length);
  if (value_of(header, "fortran_order", path) != "False") {
    throw std::runtime_error(path + " is in Fortran order: save numpy.ascontiguousarray(it)");
  }
  std::string spelled = value_of(header, "descr", path);
  const Named* dtype = nullptr;
  for (const Named& one : kDtypes) {
    if (one.npy && spelled == std::string("'") + one.npy + "'") dtype = &one;
  }
  if (!dtype) throw std::runtime_error(path + " holds the dtype " + spelled);
  std::vector<int64_t> shape;
  std::istringstream extents(value_of(header, "shape", path).substr(1));
  for (int64_t extent; extents >> extent; extents.ignore(1)) shape.push_back(extent);
  Tensor made = make_tensor(shape, dtype->dtype);
  size_t bytes = bytes_of(shape, dtype->dtype), start = 8 + width + length;
  if (content.size() != start + bytes) throw std::runtime_error(path + " is cut off");
  std::memcpy(made.data_ptr(), content.data() + start, bytes);
  return made;
}

Tensor read_raw(const std::string& path, const std::vector<int64_t>& shape, DLDataType dtype) {
  std::string content = read_file(path);
  size_t bytes = bytes_of(shape, dtype);
  if (content.size() != bytes) {
    throw std::runtime_error(path + " holds " + std::to_string(content.size()) + " bytes, not " +
                             std::to_string(bytes));
  }
  Tensor made = make_tensor(shape, dtype);
  std::memcpy(made.data_ptr(), content.data(), bytes);
  return made;
}

void write_npy(const std::string& path, const Tensor& tensor) {
  const char* spelled = known(tensor.dtype()).npy;
  std::vector<int64_t> extents(tensor.shape().begin(), tensor.shape().end());
  std::string shape;
  for (int64_t extent : extents) shape += std::to_string(extent) + ", ";
  std::string header = std::string("{'descr': '") + (spelled ? spelled : "<u2") +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  const char sizes[2] = {char(header.size() & 255), char(header.size() >> 8)};
  file.write("\x93NUMPY\x01\x00", 8).write(sizes, 2) << header;
  const char* elements = static_cast<const char*>(tensor.data_ptr()) + tensor.byte_offset();
  file.write(elements, static_cast<std::streamsize>(bytes_of(extents, tensor.dtype())));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace deploy
