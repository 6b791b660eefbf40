/* Tensors of the host, and the two files that they come from and go to. */
#pragma once

#include <tvm/ffi/container/tensor.h>

#include <string>
#include <vector>

namespace deploy {

using tvm::ffi::Tensor;

/* A dtype by NumPy's name: "float32", "int64", "bool", "bfloat16". Throws for any other. */
DLDataType dtype_of(const std::string& name);

/* NumPy's name of a dtype. */
std::string name_of(DLDataType dtype);

/* Bytes of all elements of a tensor of this shape. */
size_t bytes_of(const std::vector<int64_t>& shape, DLDataType dtype);

/* A tensor of the CPU, 64-byte aligned as kernels need, its elements not set. */
Tensor make_tensor(const std::vector<int64_t>& shape, DLDataType dtype);

/* Elements from a .npy file: little-endian, in C order; the file states shape and dtype. */
Tensor read_npy(const std::string& path);

/* Elements from a file that holds nothing else. */
Tensor read_raw(const std::string& path, const std::vector<int64_t>& shape, DLDataType dtype);

/* A contiguous tensor as a .npy file; bfloat16 is written as its 16 bits, uint16. */
void write_npy(const std::string& path, const Tensor& tensor);

/* All bytes of a file. Throws where it cannot be read. */
std::string read_file(const std::string& path);

}  // namespace deploy
