#include "model.h"

#include <tvm/ffi/extra/json.h>

#include <cstring>
#include <stdexcept>

namespace deploy {
namespace {

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;

constexpr int kPooledAllocator = 2; /* of TVM's virtual machine */

json::Object object(const ffi::Any& value) { return value.cast<json::Object>(); }
ffi::Any at(const ffi::Any& value, const char* key) { return object(value)[ffi::String(key)]; }
std::string text(const ffi::Any& value) { return value.cast<ffi::String>(); }

json::Value parsed(const std::string& content, const std::string& path) {
  ffi::String error;
  json::Value value = json::Parse(content, &error);
  if (!error.empty()) throw std::runtime_error(path + ": " + std::string(error));
  return value;
}

/* Open sizes, which the manifest has as text, are -1. */
std::vector<int64_t> sizes(const ffi::Any& shape) {
  std::vector<int64_t> found;
  for (const ffi::Any& extent : shape.cast<json::Array>()) {
    found.push_back(extent.try_cast<int64_t>().value_or(-1));
  }
  return found;
}

DLDataType safetensors_dtype(const std::string& name) {
  static const std::pair<const char*, const char*> names[] = {
      {"BOOL", "bool"},   {"U8", "uint8"},    {"I8", "int8"},       {"U16", "uint16"},
      {"I16", "int16"},   {"U32", "uint32"},  {"I32", "int32"},     {"U64", "uint64"},
      {"I64", "int64"},   {"F16", "float16"}, {"BF16", "bfloat16"}, {"F32", "float32"},
      {"F64", "float64"},
  };
  for (const auto& [theirs, ours] : names) {
    if (name == theirs) return dtype_of(ours);
  }
  throw std::runtime_error("a weight has the dtype " + name);
}

/* The weights in the order in which the library takes them. The format: a u64, so many bytes of
 * JSON {name: {dtype, shape, data_offsets}}, then the elements. */
ffi::Array<Tensor> read_weights(const std::string& path, const json::Array& order) {
  std::string content = read_file(path);
  uint64_t length = 0;
  if (content.size() >= 8) std::memcpy(&length, content.data(), 8);
  if (content.size() < 8 || length > content.size() - 8)
    throw std::runtime_error(path + " is cut off");
  json::Value header = parsed(content.substr(8, length), path);
  ffi::Array<Tensor> found;
  for (const ffi::Any& name : order) {
    ffi::Any entry = object(header)[name];
    std::vector<int64_t> shape = sizes(at(entry, "shape"));
    DLDataType dtype = safetensors_dtype(text(at(entry, "dtype")));
    json::Array span = at(entry, "data_offsets").cast<json::Array>();
    uint64_t start = span[0].cast<int64_t>(), end = span[1].cast<int64_t>();
    if (end > content.size() - 8 - length || end - start != bytes_of(shape, dtype)) {
      throw std::runtime_error(path + " is cut off at " + text(name));
    }
    Tensor weight = make_tensor(shape, dtype);
    std::memcpy(weight.data_ptr(), content.data() + 8 + length + start, end - start);
    found.push_back(weight);
  }
  return found;
}

void flatten(const ffi::Any& value, std::vector<Tensor>* into) {
  if (auto tensor = value.try_cast<Tensor>()) {
    into->push_back(*tensor);
    return;
  }
  for (const ffi::Any& one : value.cast<ffi::Array<ffi::Any>>()) flatten(one, into);
}

std::string shown(const std::vector<int64_t>& shape) {
  std::string said;
  for (int64_t extent : shape) said += (said.empty() ? "" : "x") + std::to_string(extent);
  return said.empty() ? "scalar" : said;
}

}  // namespace

Model::Model(const std::string& folder) {
  std::string path = folder + "/manifest.json";
  json::Value manifest = parsed(read_file(path), path);
  ffi::Any target = at(manifest, "target");
  if (text(at(target, "kind")) != "cpu") {
    throw std::runtime_error(folder + " is for " + text(at(target, "name")) +
                             ": this program runs models for CPUs");
  }
  for (const ffi::Any& one : at(at(manifest, "signature"), "inputs").cast<json::Array>()) {
    inputs_.push_back(
        {text(at(one, "name")), sizes(at(one, "shape")), dtype_of(text(at(one, "dtype")))});
  }
  weights_ =
      read_weights(folder + "/params.safetensors", at(manifest, "params").cast<json::Array>());
  library_.emplace(ffi::Module::LoadFromFile(folder + "/lib.so"));
  /* One thread pool for all models of a process: the first one's. */
  static int64_t pool = 0;
  if (auto join = (*library_)->GetFunction("burnish_join_pool", true)) {
    pool = (*join)(pool).cast<int64_t>();
  }
  use_threads(at(target, "threads").cast<int64_t>());
  ffi::Function load = (*library_)->GetFunction("vm_load_executable", true).value();
  machine_.emplace(load().cast<ffi::Module>());
  ffi::Function start = (*machine_)->GetFunction("vm_initialization", true).value();
  start(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  main_ = (*machine_)->GetFunction("main", true).value();
}

void Model::use_threads(int64_t count) {
  if (auto threads = (*library_)->GetFunction("burnish_threads", true)) (*threads)(count);
}

std::vector<Tensor> Model::operator()(const std::vector<Tensor>& given) {
  if (given.size() != inputs_.size()) {
    throw std::runtime_error("the model takes " + std::to_string(inputs_.size()) + " inputs, not " +
                             std::to_string(given.size()));
  }
  std::vector<ffi::AnyView> arguments;
  for (size_t i = 0; i < given.size(); ++i) {
    const Input& input = inputs_[i];
    std::vector<int64_t> shape(given[i].shape().begin(), given[i].shape().end());
    bool fits =
        shape.size() == input.shape.size() && name_of(given[i].dtype()) == name_of(input.dtype);
    for (size_t axis = 0; fits && axis < shape.size(); ++axis) {
      fits = input.shape[axis] < 0 || input.shape[axis] == shape[axis];
    }
    if (!fits) {
      throw std::runtime_error("the input " + input.name + " is " + name_of(input.dtype) + " " +
                               shown(input.shape) + ", got " + name_of(given[i].dtype()) + " " +
                               shown(shape));
    }
    arguments.emplace_back(given[i]);
  }
  arguments.emplace_back(weights_);
  ffi::Any result;
  main_.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
  std::vector<Tensor> outputs;
  flatten(result, &outputs);
  return outputs;
}

}  // namespace deploy
