// Runs a kernel written in CUDA C++ on this CPU, a block at a time, each thread a fiber, with the
// instructions in PTX that are named here doing what NVIDIA's PTX manual says of them (sections
// "Data Movement: cp.async" and "Asynchronous Warpgroup Level Matrix Instructions").
//
// What is asynchronous is done as early as the manual lets it be, or as late (`late`): a kernel is
// right only if it comes to the same with both. The first thread that can run does, the first by
// either order (`backward`), so that warp groups run as far apart as barriers let them. Shared memory holds not-a-number at first.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
typedef unsigned int uint;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef _Float16 half;
struct half2 { half x, y; };
struct nv_bfloat16 {
  uint16_t bits;
  nv_bfloat16() = default;
  nv_bfloat16(float value) {
    uint32_t whole;
    memcpy(&whole, &value, 4);
    bits = (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
  }
  operator float() const {
    uint32_t whole = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &whole, 4);
    return value;
  }
};
struct nv_bfloat162 { nv_bfloat16 x, y; };
struct alignas(8) half4 { half x, y, z, w; };
struct alignas(8) nv_bfloat164 { nv_bfloat16 x, y, z, w; };
#define VECTORS(name, type) \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; }; \
  struct alignas(sizeof(type) > 4 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(int, int)
VECTORS(uint, unsigned)
VECTORS(char, signed char)
inline half __float2half_rn(float x) { return half(x); }
inline half __float2half(float x) { return half(x); }
inline float __half2float(half x) { return float(x); }
inline nv_bfloat16 __float2bfloat16_rn(float x) { return nv_bfloat16(x); }
inline nv_bfloat16 __float2bfloat16(float x) { return nv_bfloat16(x); }
inline float __bfloat162float(nv_bfloat16 x) { return float(x); }
template <typename T> unsigned pair_of(T x, T y) {
  uint16_t low, high;
  memcpy(&low, &x, 2);
  memcpy(&high, &y, 2);
  return unsigned(high) << 16 | low;
}
inline unsigned __pack_half2(half x, half y) { return pair_of(x, y); }
inline unsigned __pack_nv_bfloat162(nv_bfloat16 x, nv_bfloat16 y) { return pair_of(x, y); }
struct Index { int x, y, z; };
static Index threadIdx, blockIdx, blockDim;

namespace emulator {

constexpr unsigned WARP = 32, GROUP = 128, WINDOW = 1 << 18;
constexpr unsigned RESERVED = 1024;  // of each block's shared memory, by the system
typedef unsigned long long Word;

static bool late;
static unsigned alignment = 16, shared_bytes;
alignas(1 << 18) static unsigned char window[WINDOW];
static std::string failure;

// No more aligned than the source asks for.
inline unsigned char* shared(unsigned asked) {
  alignment = asked;
  unsigned start = (RESERVED + asked - 1) / asked * asked;
  if (start % (2 * asked) == 0) start += asked;
  return window + start;
}

inline Word address(const void* pointer) {
  ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - window;
  if (offset < 0 || offset >= WINDOW) throw std::runtime_error("a generic address not of shared memory");
  return offset;
}

// ---- threads

struct Copy { unsigned to; const void* from; unsigned bytes; };
struct Multiply { std::string kind; std::vector<void*> sums; Word a, b; bool adds, turned; };
enum State { RUNS, AT_BARRIER, AT_GROUP, DONE };

struct Thread {
  ucontext_t context;
  std::vector<char> stack;
  State state = RUNS;
  int rank = 0;
  std::vector<std::vector<Copy>> copies{1};          // the last is open
  std::vector<std::vector<Multiply>> multiplies{1};  // the last is open
  bool fenced = false, proxy_fenced = false;
};

static std::vector<Thread> threads;
static Thread* current;
static ucontext_t scheduler;

inline void fail(const std::string& why) {
  if (failure.empty()) failure = why;
  current->state = DONE;
  swapcontext(&current->context, &scheduler);
}

inline void pause(State state) {
  current->state = state;
  swapcontext(&current->context, &scheduler);
}

// ---- copies

inline void deliver(const Copy& copy) { memcpy(window + copy.to, copy.from, copy.bytes); }

inline void wait_copies(unsigned pending) {
  auto& groups = current->copies;
  while (groups.size() > pending + 1) {
    if (late) for (auto& copy : groups.front()) deliver(copy);
    groups.erase(groups.begin());
  }
}

// ---- products of a warp group

// Manual, "Matrix descriptor format" and "Strides": fields in units of 16 bytes.
struct Descriptor {
  unsigned start, leading, stride, base, mode;
  explicit Descriptor(Word bits)
      : start((bits & 0x3fff) << 4), leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4), base(bits >> 49 & 7), mode(bits >> 62) {}

  // Of byte `along` of the line `line`: K-major, lines are rows (or columns) and run along k.
  // MN-major, lines are k and run along rows (or columns), 128 bytes of them, then `leading` on.
  unsigned at(unsigned line, unsigned along, bool turned) const {
    if (mode != 1) throw std::runtime_error("only swizzling of 128 bytes is emulated");
    unsigned linear = start + line / 8 * stride + line % 8 * 128;
    linear += turned ? along / 128 * leading + along % 128 : along;
    unsigned phase = ((linear >> 7) - base) & 7;
    return linear ^ phase << 4;
  }
};

template <typename T> double number(unsigned at) {
  if (at + sizeof(T) > WINDOW) throw std::runtime_error("an operand beyond shared memory");
  T value;
  memcpy(&value, window + at, sizeof(T));
  return double(value);
}

template <typename T, typename Sum>
void multiply(const std::vector<Multiply*>& all, unsigned columns, unsigned depth) {
  Descriptor a(all[0]->a), b(all[0]->b);
  std::vector<double> x(64 * depth), y(columns * depth);
  for (unsigned row = 0; row < 64; ++row)
    for (unsigned k = 0; k < depth; ++k)
      x[row * depth + k] = number<T>(a.at(row, k * sizeof(T), false));
  bool turned = all[0]->turned;
  for (unsigned column = 0; column < columns; ++column)
    for (unsigned k = 0; k < depth; ++k)
      y[column * depth + k] = number<T>(turned ? b.at(k, column * sizeof(T), true)
                                               : b.at(column, k * sizeof(T), false));
  // Manual, "Matrix Fragments for wgmma.mma_async.m64nNk16", accumulator D.
  for (unsigned thread = 0; thread < GROUP; ++thread) {
    unsigned warp = thread / WARP, lane = thread % WARP;
    for (unsigned i = 0; i < columns / 2; ++i) {
      unsigned row = 16 * warp + lane / 4 + (i % 4 < 2 ? 0 : 8);
      unsigned column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
      double sum = 0;
      for (unsigned k = 0; k < depth; ++k) sum += x[row * depth + k] * y[column * depth + k];
      Sum* to = static_cast<Sum*>(all[thread]->sums[i]);
      *to = Sum((all[thread]->adds ? double(*to) : 0.0) + sum);
    }
  }
}

inline void multiply_together(Thread* group, size_t which, size_t one) {
  std::vector<Multiply*> all;
  for (unsigned n = 0; n < GROUP; ++n) all.push_back(&group[n].multiplies.at(which).at(one));
  for (auto* each : all)
    if (each->a != all[0]->a || each->b != all[0]->b || each->kind != all[0]->kind)
      throw std::runtime_error("threads of a warp group name different operands");
  unsigned columns, depth;
  char from[8], sums[8];
  if (sscanf(all[0]->kind.c_str(), "m64n%uk%u.%7[a-z0-9].%7[a-z0-9].", &columns, &depth, sums, from) != 4)
    throw std::runtime_error("no such product: " + all[0]->kind);
  if (all[0]->sums.size() != columns / 2) throw std::runtime_error("another number of sums");
  std::string operands = from, result = sums;
  if (operands == "f16" && result == "f32" && depth == 16) multiply<half, float>(all, columns, depth);
  else if (operands == "bf16" && result == "f32" && depth == 16) multiply<nv_bfloat16, float>(all, columns, depth);
  else if (operands == "s8" && result == "s32" && depth == 32) multiply<signed char, int>(all, columns, depth);
  else throw std::runtime_error("no such product: " + all[0]->kind);
}

inline Thread* group_of(Thread* thread) { return &threads[thread->rank / GROUP * GROUP]; }

// A barrier of the warp group; the last thread to come does `what`.
static std::vector<unsigned> arrived;
inline void together(const std::function<void(Thread*)>& what) {
  unsigned group = current->rank / GROUP;
  if (++arrived[group] < GROUP) return pause(AT_GROUP);
  arrived[group] = 0;
  Thread* first = group_of(current);
  try { what(first); } catch (const std::exception& error) { return fail(error.what()); }
  for (unsigned n = 0; n < GROUP; ++n)
    if (first[n].state == AT_GROUP) first[n].state = RUNS;
}

inline void wait_multiplies(unsigned pending) {
  together([=](Thread* group) {
    size_t count = group->multiplies.size();
    for (unsigned n = 0; n < GROUP; ++n)
      if (group[n].multiplies.size() != count) throw std::runtime_error("threads of a warp group part");
    while (group->multiplies.size() > pending + 1) {
      if (late) for (size_t one = 0; one < group->multiplies[0].size(); ++one) multiply_together(group, 0, one);
      for (unsigned n = 0; n < GROUP; ++n) group[n].multiplies.erase(group[n].multiplies.begin());
    }
  });
  current->fenced = false;
}

// ---- instructions

inline bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// `text` is one asm statement: outputs by address, inputs by value.
inline void execute(const std::string& text, std::vector<void*> out, std::vector<Word> in) {
  auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  unsigned count = 0;
  if (sscanf(text.c_str(), "cp.async.wait_group %u;", &count) == 1) return wait_copies(count);
  if (text == "cp.async.commit_group;") return current->copies.emplace_back(), void();
  if (text == "fence.proxy.async.shared::cta;") return current->proxy_fenced = true, void();
  if (text == "wgmma.fence.sync.aligned;") return current->fenced = true, void();
  if (text == "wgmma.commit_group.sync.aligned;") return current->multiplies.emplace_back(), void();
  if (sscanf(text.c_str(), "wgmma.wait_group.sync.aligned %u;", &count) == 1) return wait_multiplies(count);
  if (has("cp.async.cg.shared.global [%0], [%1], %2;") || has("cp.async.ca.shared.global [%0], [%1], %2;")) {
    bool guarded = has("@p cp.async");
    if (guarded && !has("setp.eq.u32 p, %3, 1;") && !has("setp.ne.b32 p, %3, 0;")) return fail("unknown guard: " + text);
    if (guarded && (has("setp.eq") ? in[3] != 1 : in[3] == 0)) {
      if (!has("@!p st.shared")) return fail("a guarded copy with nothing in its stead");
      return memset(window + in[0], 0, in[2]), void();
    }
    if (in[0] % in[2] || in[1] % in[2]) return fail("a copy of 16 bytes that is not aligned");
    Copy copy{unsigned(in[0]), reinterpret_cast<const void*>(in[1]), unsigned(in[2])};
    if (!late) deliver(copy);
    return current->copies.back().push_back(copy);
  }
  size_t at = text.find("wgmma.mma_async.sync.aligned.");
  if (at != std::string::npos) {
    if (!current->fenced) return fail("wgmma with no wgmma.fence since its registers were used");
    if (!current->proxy_fenced) return fail("wgmma of what was stored, with no fence.proxy.async since the barrier");
    at += strlen("wgmma.mma_async.sync.aligned.");
    std::string kind = text.substr(at, text.find(' ', at) - at);
    size_t end = text.find('}', at);
    std::string rest = text.substr(end + 1, text.find(';', end) - end - 1);
    bool turned = rest.size() > 2 && rest.substr(rest.size() - 3) == ", 1";
    if (rest.find("1, 1, 1, ") != std::string::npos) return fail("A turned");
    current->multiplies.back().push_back({kind, out, in[0], in[1], in[2] != 0, turned});
    if (!late) {
      size_t one = current->multiplies.back().size() - 1;
      together([=](Thread* group) { multiply_together(group, group->multiplies.size() - 1, one); });
    }
    return;
  }
  fail("an instruction that is not emulated: " + text);
}

inline void barrier() {
  current->proxy_fenced = false;
  pause(AT_BARRIER);
}

static std::function<void()> kernel;
inline void enter() {
  try { kernel(); } catch (const std::exception& error) { if (failure.empty()) failure = error.what(); }
  if (late && failure.empty())
    for (auto& group : current->multiplies) if (!group.empty()) failure = "a product is never waited for";
  current->state = DONE;
  swapcontext(&current->context, &scheduler);
}

inline const char* run(std::function<void()> what, const int* grid, const int* block, int is_late, int backward) {
  kernel = what;
  late = is_late;
  failure.clear();
  blockDim = {block[0], block[1], block[2]};
  int count = block[0] * block[1] * block[2];
  for (int z = 0; z < grid[2]; ++z) for (int y = 0; y < grid[1]; ++y) for (int x = 0; x < grid[0]; ++x) {
    memset(window, 0xff, WINDOW);
    blockIdx = {x, y, z};
    std::vector<std::vector<char>> stacks;
    for (auto& thread : threads) stacks.push_back(std::move(thread.stack));
    threads.clear();
    threads.resize(count);
    arrived.assign((count + GROUP - 1) / GROUP, 0);
    for (int n = 0; n < count; ++n) {
      Thread& thread = threads[n];
      thread.rank = n;
      if (n < int(stacks.size())) thread.stack = std::move(stacks[n]);
      thread.stack.resize(1 << 17);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = thread.stack.size();
      makecontext(&thread.context, enter, 0);
    }
    for (int done = 0; done < count;) {
      bool moved = false;
      for (int m = 0; m < count && !moved; ++m) {
        int n = backward ? count - 1 - m : m;
        current = &threads[n];
        if (current->state != RUNS) continue;
        threadIdx = {n % block[0], n / block[0] % block[1], n / block[0] / block[1]};
        swapcontext(&scheduler, &current->context);
        moved = true;
        done += current->state == DONE;
        if (!failure.empty()) return failure.c_str();
      }
      if (moved) continue;
      int waiting = 0;
      for (auto& thread : threads) waiting += thread.state == AT_BARRIER;
      if (waiting != count - done || done) return (failure = "threads wait for each other forever").c_str();
      for (auto& thread : threads) thread.state = RUNS;
    }
  }
  return "";
}

}  // namespace emulator

inline void __syncthreads() { emulator::barrier(); }
inline unsigned long long __cvta_generic_to_shared(const void* p) { return emulator::address(p); }
