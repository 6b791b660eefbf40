/* deploy FOLDER OUT INPUT... [--threads N] [--repeat N]
 *
 * FOLDER is what `burnish inspect NAME.burnish --extract FOLDER` wrote. Each INPUT is a .npy file,
 * or any other file with the elements alone; in the order of the model. The outputs go to
 * OUT0.npy, OUT1.npy, ... With --repeat the model is called so many times more, and the median
 * time of a call is printed.
 */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>

#include "model.h"

namespace {

using deploy::Tensor;

constexpr const char* kUsage = "usage: deploy FOLDER OUT INPUT... [--threads N] [--repeat N]";

int64_t whole(const std::string& word) {
  char* end = nullptr;
  int64_t value = std::strtoll(word.c_str(), &end, 10);
  if (word.empty() || *end || value < 1)
    throw std::runtime_error(word + " is no whole number of 1 or more");
  return value;
}

Tensor read(const std::string& path, const deploy::Input& input) {
  bool npy = path.size() > 4 && path.compare(path.size() - 4, 4, ".npy") == 0;
  if (npy) return deploy::read_npy(path);
  for (int64_t extent : input.shape) {
    if (extent < 0)
      throw std::runtime_error(input.name + " has an open size: give it as a .npy file");
  }
  return deploy::read_raw(path, input.shape, input.dtype);
}

int run(const std::vector<std::string>& words) {
  std::vector<std::string> files;
  int64_t threads = 0, repeat = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    bool option = words[i] == "--threads" || words[i] == "--repeat";
    if (!option) {
      files.push_back(words[i]);
    } else if (i + 1 == words.size()) {
      throw std::runtime_error(words[i] + " needs a number");
    } else {
      (words[i] == "--threads" ? threads : repeat) = whole(words[i + 1]);
      ++i;
    }
  }
  if (files.size() < 2) throw std::runtime_error(kUsage);
  deploy::Model model(files[0]);
  if (threads) model.use_threads(threads);
  if (files.size() - 2 != model.inputs().size()) {
    std::string names;
    for (const deploy::Input& input : model.inputs()) names += " " + input.name;
    throw std::runtime_error("the model takes " + std::to_string(model.inputs().size()) +
                             " inputs:" + names);
  }
  std::vector<Tensor> inputs;
  for (size_t i = 2; i < files.size(); ++i) inputs.push_back(read(files[i], model.inputs()[i - 2]));
  std::vector<Tensor> outputs = model(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    deploy::write_npy(files[1] + std::to_string(i) + ".npy", outputs[i]);
  }
  std::vector<double> times;
  for (int64_t i = 0; i < repeat; ++i) {
    auto start = std::chrono::steady_clock::now();
    model(inputs);
    std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  if (repeat) {
    std::sort(times.begin(), times.end());
    std::printf("%.3f ms a call\n", times[times.size() / 2]);
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    return run({words + 1, words + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "deploy: %s\n", error.what());
    return 2;
  }
}
