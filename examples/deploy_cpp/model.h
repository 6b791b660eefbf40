/* A compiled model, run by TVM's runtime alone. */
#pragma once

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/extra/module.h>

#include <optional>
#include <string>
#include <vector>

#include "tensors.h"

namespace deploy {

/* What an artifact says of one input. Sizes that stay open are -1. */
struct Input {
  std::string name;
  std::vector<int64_t> shape;
  DLDataType dtype;
};

class Model {
 public:
  /* Opens a folder that `burnish inspect NAME.burnish --extract FOLDER` wrote: the library, the
   * weights and the manifest. Throws where one of them is missing or for another machine. */
  explicit Model(const std::string& folder);

  const std::vector<Input>& inputs() const { return inputs_; }

  /* How many threads the model's loops may use; at first as many as it was compiled for. */
  void use_threads(int64_t count);

  /* The outputs, flat, for the inputs in order. They are checked against the manifest. */
  std::vector<Tensor> operator()(const std::vector<Tensor>& given);

 private:
  std::vector<Input> inputs_;
  tvm::ffi::Array<Tensor> weights_;
  std::optional<tvm::ffi::Module> library_, machine_; /* they hold the code: kept to the end */
  tvm::ffi::Function main_;
};

}  // namespace deploy
