// Convolutions by cuDNN, linked into a library for CUDA beside its kernels.
//
// `burnish_cudnn_conv2d(x, w, [bias,] pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w,
// groups, relu, out)`: x [N, H, W, C], w [O, KH, KW, C / groups], bias of O elements, out [N, P, Q, O],
// all of one type, packed, sums in float32; products of float32 are never of TF32. cuDNN is opened by
// name on the first call. Numbers of its enumerations are those of the public header of version 9.

#include <pthread.h>

#include "nvidia.h"

enum { DATA_FLOAT = 0, DATA_HALF = 2, DATA_BFLOAT16 = 9, NHWC = 1 };
enum { CROSS_CORRELATION = 1, TENSOR_OP_MATH = 1, FMA_MATH = 3, DETERMINISTIC = 1 };
enum { PRECOMPUTED_GEMM = 1, ACTIVATION_RELU = 1, ACTIVATION_IDENTITY = 5 };
enum { MOST_ALGORITHMS = 8, NUMBERS = 8 };

#define MOST_WORKSPACE ((size_t)256 << 20)

typedef struct {
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math;
  int reserved[3];
} Found;

static struct {
  int (*create)(void**);
  int (*set_stream)(void*, void*);
  int (*tensor_create)(void**);
  int (*tensor_set)(void*, int, int, int, int, int, int);
  int (*filter_create)(void**);
  int (*filter_set)(void*, int, int, int, int, int, int);
  int (*conv_create)(void**);
  int (*conv_set)(void*, int, int, int, int, int, int, int, int);
  int (*conv_groups)(void*, int);
  int (*conv_math)(void*, int);
  int (*activation_create)(void**);
  int (*activation_set)(void*, int, int, double);
  int (*choose)(void*, void*, void*, void*, void*, int, int*, Found*);
  int (*workspace)(void*, void*, void*, void*, void*, int, size_t*);
  int (*fused)(void*, const void*, void*, const void*, void*, const void*, void*, int, void*, size_t,
               const void*, void*, const void*, void*, const void*, void*, void*, void*);
  int (*forward)(void*, const void*, void*, const void*, void*, const void*, void*, int, void*,
                 size_t, const void*, void*, void*);
  int (*allocate)(uint64_t*, size_t);
} api;

// What decides a plan: the plan of a call is found again by comparing these bytes.
typedef struct {
  int64_t x[4], w[4], out[4];
  int64_t numbers[NUMBERS];
  int64_t type, bias, device;
  uint64_t stream;
} Problem;

typedef struct Plan {
  Problem problem;
  void *handle, *x, *w, *bias, *out, *conv, *activation;
  int algorithm;
  uint64_t space;
  size_t bytes;
  struct Plan* next;
} Plan;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Plan* plans;

#define TRY(call)                                                                             \
  do {                                                                                        \
    int status_ = (call);                                                                     \
    if (status_) return fail("RuntimeError", "cuDNN: %s gives status %d", #call, status_);    \
  } while (0)

static int open_libraries(void) {
  static const char* const names[] = {"libcudnn.so.9", NULL};
  if (api.forward) return 0;
  void* dnn = opened("BURNISH_CUDNN", names);
  if (!dnn)
    return fail("RuntimeError",
                "this model calls cuDNN 9, which is not to be opened (%s): pip install "
                "nvidia-cudnn-cu13, or say where it is in BURNISH_CUDNN",
                dlerror());
  void* driver = opened_driver();
  if (!driver) return fail("RuntimeError", "no NVIDIA driver is to be opened (%s)", dlerror());
  const Wanted wanted[] = {
      {dnn, "cudnnCreate", &api.create},
      {dnn, "cudnnSetStream", &api.set_stream},
      {dnn, "cudnnCreateTensorDescriptor", &api.tensor_create},
      {dnn, "cudnnSetTensor4dDescriptor", &api.tensor_set},
      {dnn, "cudnnCreateFilterDescriptor", &api.filter_create},
      {dnn, "cudnnSetFilter4dDescriptor", &api.filter_set},
      {dnn, "cudnnCreateConvolutionDescriptor", &api.conv_create},
      {dnn, "cudnnSetConvolution2dDescriptor", &api.conv_set},
      {dnn, "cudnnSetConvolutionGroupCount", &api.conv_groups},
      {dnn, "cudnnSetConvolutionMathType", &api.conv_math},
      {dnn, "cudnnCreateActivationDescriptor", &api.activation_create},
      {dnn, "cudnnSetActivationDescriptor", &api.activation_set},
      {dnn, "cudnnGetConvolutionForwardAlgorithm_v7", &api.choose},
      {dnn, "cudnnGetConvolutionForwardWorkspaceSize", &api.workspace},
      {dnn, "cudnnConvolutionBiasActivationForward", &api.fused},
      {driver, "cuMemAlloc_v2", &api.allocate},
      // The last one, as `api.forward` says that all are there.
      {dnn, "cudnnConvolutionForward", &api.forward},
  };
  return find_all(wanted, sizeof wanted / sizeof *wanted);
}

// The fastest that gives the same sums at every run. With a bias it is the one that fuses with any
// activation.
static int choose(Plan* plan) {
  Found found[MOST_ALGORITHMS];
  int count = 0;
  plan->algorithm = PRECOMPUTED_GEMM;
  if (!plan->problem.bias) {
    TRY(api.choose(plan->handle, plan->x, plan->w, plan->conv, plan->out, MOST_ALGORITHMS, &count,
                   found));
    int at = 0;
    while (at < count && (found[at].status || found[at].determinism != DETERMINISTIC ||
                          found[at].memory > MOST_WORKSPACE))
      ++at;
    if (at < count) plan->algorithm = found[at].algorithm;
  }
  TRY(api.workspace(plan->handle, plan->x, plan->w, plan->conv, plan->out, plan->algorithm,
                    &plan->bytes));
  if (plan->bytes) TRY(api.allocate(&plan->space, plan->bytes));
  return 0;
}

static int fill_plan(Plan* plan) {
  const Problem* p = &plan->problem;
  const int64_t *x = p->x, *w = p->w, *out = p->out, *given = p->numbers;
  int type = (int)p->type;
  TRY(api.create(&plan->handle));
  TRY(api.set_stream(plan->handle, (void*)(uintptr_t)p->stream));
  TRY(api.tensor_create(&plan->x));
  TRY(api.tensor_set(plan->x, NHWC, type, (int)x[0], (int)x[3], (int)x[1], (int)x[2]));
  TRY(api.filter_create(&plan->w));
  TRY(api.filter_set(plan->w, type, NHWC, (int)w[0], (int)w[3], (int)w[1], (int)w[2]));
  TRY(api.tensor_create(&plan->out));
  TRY(api.tensor_set(plan->out, NHWC, type, (int)out[0], (int)out[3], (int)out[1], (int)out[2]));
  TRY(api.conv_create(&plan->conv));
  TRY(api.conv_set(plan->conv, (int)given[0], (int)given[1], (int)given[2], (int)given[3],
                   (int)given[4], (int)given[5], CROSS_CORRELATION, DATA_FLOAT));
  TRY(api.conv_groups(plan->conv, (int)given[6]));
  TRY(api.conv_math(plan->conv, type == DATA_FLOAT ? FMA_MATH : TENSOR_OP_MATH));
  if (p->bias) {
    TRY(api.tensor_create(&plan->bias));
    TRY(api.tensor_set(plan->bias, NHWC, type, 1, (int)out[3], 1, 1));
    TRY(api.activation_create(&plan->activation));
    TRY(api.activation_set(plan->activation, given[7] ? ACTIVATION_RELU : ACTIVATION_IDENTITY, 0, 0));
  }
  return choose(plan);
}

// Plans are few, one for each convolution of a model and stream, and live as long as the process.
// Each has a handle and a workspace of its own: two streams may run at once.
static int find_plan(const Problem* problem, Plan** found) {
  for (Plan* at = plans; at; at = at->next)
    if (!memcmp(&at->problem, problem, sizeof *problem)) return *found = at, 0;
  Plan* made = calloc(1, sizeof *made);
  if (!made) return fail("MemoryError", "no memory");
  made->problem = *problem;
  if (fill_plan(made)) return free(made), -1;
  made->next = plans;
  plans = made;
  return *found = made, 0;
}

static int run(const Problem* problem, const char* x, const char* w, const char* bias, char* out) {
  const float one = 1, zero = 0;
  Plan* plan = NULL;
  if (open_libraries() || find_plan(problem, &plan)) return -1;
  void* space = (void*)(uintptr_t)plan->space;
  if (bias)
    TRY(api.fused(plan->handle, &one, plan->x, x, plan->w, w, plan->conv, plan->algorithm, space,
                  plan->bytes, &zero, plan->out, out, plan->bias, bias, plan->activation, plan->out,
                  out));
  else
    TRY(api.forward(plan->handle, &one, plan->x, x, plan->w, w, plan->conv, plan->algorithm, space,
                    plan->bytes, &zero, plan->out, out));
  return 0;
}

static int fits(const Problem* p, const DLTensor* bias) {
  const int64_t *x = p->x, *w = p->w, *out = p->out, *given = p->numbers;
  for (int i = 0; i < 2; ++i) {
    int64_t span = x[1 + i] + 2 * given[i] - given[4 + i] * (w[1 + i] - 1) - 1;
    if (given[i] < 0 || given[2 + i] < 1 || given[4 + i] < 1 || span < 0 ||
        out[1 + i] != span / given[2 + i] + 1)
      return 0;
  }
  int64_t count = 1;
  for (int i = 0; bias && i < bias->ndim; ++i) count *= bias->shape[i];
  return given[6] >= 1 && out[0] == x[0] && out[3] == w[0] && w[3] * given[6] == x[3] &&
         w[0] % given[6] == 0 && (!bias || count == w[0]) && (bias || !given[7]);
}

__attribute__((visibility("default"))) int __tvm_ffi_burnish_cudnn_conv2d(
    void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  (void)self;
  int has_bias = count == 4 + NUMBERS;
  if (count != 3 + NUMBERS + has_bias)
    return fail("TypeError", "burnish_cudnn_conv2d takes (x, w, [bias,] 8 numbers, out), not %d",
                count);
  const DLTensor* tensors[4] = {tensor_of(&args[0]), tensor_of(&args[1]), tensor_of(&args[count - 1]),
                                has_bias ? tensor_of(&args[2]) : NULL};
  for (int i = 0; i < 3 + has_bias; ++i) {
    if (!tensors[i] || (i < 3 && tensors[i]->ndim != 4) || !packed(tensors[i]))
      return fail("TypeError", "burnish_cudnn_conv2d: tensor %d is not packed, of four axes", i);
    if (!same_type(tensors[i], tensors[0]))
      return fail("TypeError", "burnish_cudnn_conv2d: tensor %d is of another type", i);
  }
  const DLTensor *x = tensors[0], *w = tensors[1], *out = tensors[2], *bias = tensors[3];
  Problem p;
  memset(&p, 0, sizeof p);
  for (int i = 0; i < NUMBERS; ++i) {
    if (args[2 + has_bias + i].type_index != kTVMFFIInt)
      return fail("TypeError", "burnish_cudnn_conv2d: number %d is none", i);
    p.numbers[i] = args[2 + has_bias + i].v_int64;
  }
  memcpy(p.x, x->shape, sizeof p.x), memcpy(p.w, w->shape, sizeof p.w);
  memcpy(p.out, out->shape, sizeof p.out);
  p.type = by_type(x, DATA_FLOAT, DATA_HALF, DATA_BFLOAT16), p.bias = has_bias;
  if (p.type < 0) return fail("TypeError", "burnish_cudnn_conv2d: unsupported type");
  if (!fits(&p, bias)) return fail("ValueError", "burnish_cudnn_conv2d: shapes do not fit");
  result->type_index = kTVMFFINone;
  if (p.x[0] == 0) return 0;
  p.device = out->device.device_id;
  p.stream = (uint64_t)(uintptr_t)TVMFFIEnvGetStream(out->device.device_type, out->device.device_id);
  pthread_mutex_lock(&lock);
  int failed = run(&p, start(x), start(w), bias ? start(bias) : NULL, start(out));
  pthread_mutex_unlock(&lock);
  return failed;
}
