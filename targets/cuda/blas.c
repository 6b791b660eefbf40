// Products by cuBLASLt, linked into a library for CUDA beside its kernels.
//
// `burnish_cublas_matmul(a, b, [bias,] flags, out)`: a [.., M, K], b [.., K, N], out [.., M, N], all
// of one type, packed, sums in float32. NVIDIA's libraries are opened by name on the first call;
// nothing here is compiled or linked against them. Numbers of cuBLASLt's enumerations are those of
// its public header, which has kept them from CUDA 11 to 13.
//
// cuBLASLt counts in columns: a packed row-major matrix is its transpose there, so out' = b' a'.

#include <pthread.h>

#include "nvidia.h"

enum { A_TURNED = 1, B_TURNED = 2, BIAS = 4, RELU = 8, GELU_TANH = 16 };
enum { NO_TRANSPOSE = 0, TRANSPOSE = 1 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68 };
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, DESC_EPILOGUE = 7, DESC_BIAS_POINTER = 8 };
enum { LAYOUT_BATCH_COUNT = 5, LAYOUT_BATCH_STRIDE = 6 };
enum { PREF_MAX_WORKSPACE = 1, PREF_MIN_ALIGNMENT_A = 5 };
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_RELU = 2, EPILOGUE_BIAS = 4, EPILOGUE_GELU = 32 };

#define WORKSPACE ((size_t)32 << 20)
#define FULL_ALIGNMENT 256u

typedef struct {
  uint64_t algorithm[8];
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
} Heuristic;

static struct {
  int (*create)(void**);
  int (*desc_create)(void**, int, int);
  int (*desc_set)(void*, int, const void*, size_t);
  int (*layout_create)(void**, int, uint64_t, uint64_t, int64_t);
  int (*layout_set)(void*, int, const void*, size_t);
  int (*pref_create)(void**);
  int (*pref_set)(void*, int, const void*, size_t);
  int (*heuristic)(void*, void*, void*, void*, void*, void*, void*, int, Heuristic*, int*);
  int (*matmul)(void*, void*, const void*, const void*, void*, const void*, void*, const void*,
                const void*, void*, void*, void*, const void*, void*, size_t, void*);
  int (*allocate)(uint64_t*, size_t);
} api;

// What decides a plan: the plan of a call is found again by comparing these bytes.
typedef struct {
  int64_t m, n, k, batch, a_stride, b_stride;
  int64_t device;
  uint64_t stream;
  int64_t type, flags;
  int64_t alignment[4];
} Problem;

typedef struct Plan {
  Problem problem;
  void *handle, *desc, *first, *second, *out;
  Heuristic found;
  struct Plan* next;
} Plan;

typedef struct Space {
  int64_t device;
  uint64_t stream, address;
  void* handle;
  struct Space* next;
} Space;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Plan* plans;
static Space* spaces;

static int open_libraries(void) {
  static const char* const blas_names[] = {"libcublasLt.so.13", "libcublasLt.so.12", NULL};
  if (api.matmul) return 0;
  void* blas = opened("BURNISH_CUBLASLT", blas_names);
  if (!blas)
    return fail("RuntimeError",
                "this model calls cuBLASLt, which is not to be opened (%s): pip install "
                "nvidia-cublas, or say where it is in BURNISH_CUBLASLT",
                dlerror());
  void* driver = opened_driver();
  if (!driver) return fail("RuntimeError", "no NVIDIA driver is to be opened (%s)", dlerror());
  const Wanted wanted[] = {
      {blas, "cublasLtCreate", &api.create},
      {blas, "cublasLtMatmulDescCreate", &api.desc_create},
      {blas, "cublasLtMatmulDescSetAttribute", &api.desc_set},
      {blas, "cublasLtMatrixLayoutCreate", &api.layout_create},
      {blas, "cublasLtMatrixLayoutSetAttribute", &api.layout_set},
      {blas, "cublasLtMatmulPreferenceCreate", &api.pref_create},
      {blas, "cublasLtMatmulPreferenceSetAttribute", &api.pref_set},
      {blas, "cublasLtMatmulAlgoGetHeuristic", &api.heuristic},
      {driver, "cuMemAlloc_v2", &api.allocate},
      // The last one, as `api.matmul` says that all are there.
      {blas, "cublasLtMatmul", &api.matmul},
  };
  return find_all(wanted, sizeof wanted / sizeof *wanted);
}

static int64_t outer(const DLTensor* tensor) {
  int64_t count = 1;
  for (int i = 0; i + 2 < tensor->ndim; ++i) count *= tensor->shape[i];
  return count;
}

static int64_t alignment(const void* address) {
  uintptr_t low = (uintptr_t)address & -(uintptr_t)address;
  return low == 0 || low > FULL_ALIGNMENT ? FULL_ALIGNMENT : (int64_t)low;
}

static int type_of(const DLTensor* tensor) { return by_type(tensor, R_32F, R_16F, R_16BF); }

#define TRY(call)                                                                        \
  do {                                                                                   \
    int status_ = (call);                                                                \
    if (status_) return fail("RuntimeError", "cuBLASLt: %s gives status %d", #call, status_); \
  } while (0)

// The handle and workspace of a stream: two streams may run at once, so they share neither.
static int find_space(const Problem* problem, Space** found) {
  for (Space* at = spaces; at; at = at->next)
    if (at->device == problem->device && at->stream == problem->stream) return *found = at, 0;
  Space* made = calloc(1, sizeof *made);
  if (!made) return fail("MemoryError", "no memory");
  made->device = problem->device, made->stream = problem->stream;
  int status = api.create(&made->handle);
  if (!status) status = api.allocate(&made->address, WORKSPACE);
  if (status) {
    free(made);
    return fail("RuntimeError", "cuBLASLt does not start (status %d)", status);
  }
  made->next = spaces;
  spaces = made;
  return *found = made, 0;
}

static int layout(void** made, const Problem* p, int64_t rows, int64_t columns, int64_t stride) {
  int32_t count = (int32_t)p->batch;
  TRY(api.layout_create(made, (int)p->type, (uint64_t)rows, (uint64_t)columns, rows));
  if (p->batch == 1) return 0;
  TRY(api.layout_set(*made, LAYOUT_BATCH_COUNT, &count, sizeof count));
  TRY(api.layout_set(*made, LAYOUT_BATCH_STRIDE, &stride, sizeof stride));
  return 0;
}

static int fill_plan(Plan* plan, const void* bias) {
  const Problem* p = &plan->problem;
  int a_turned = p->flags & A_TURNED, b_turned = p->flags & B_TURNED;
  int32_t first = b_turned ? TRANSPOSE : NO_TRANSPOSE, second = a_turned ? TRANSPOSE : NO_TRANSPOSE;
  int32_t epilogue = (p->flags & RELU ? EPILOGUE_RELU : 0) | (p->flags & BIAS ? EPILOGUE_BIAS : 0) |
                     (p->flags & GELU_TANH ? EPILOGUE_GELU : 0);
  if (!epilogue) epilogue = EPILOGUE_DEFAULT;
  TRY(api.desc_create(&plan->desc, COMPUTE_32F, R_32F));
  TRY(api.desc_set(plan->desc, DESC_TRANSA, &first, sizeof first));
  TRY(api.desc_set(plan->desc, DESC_TRANSB, &second, sizeof second));
  TRY(api.desc_set(plan->desc, DESC_EPILOGUE, &epilogue, sizeof epilogue));
  if (bias) TRY(api.desc_set(plan->desc, DESC_BIAS_POINTER, &bias, sizeof bias));
  if (layout(&plan->first, p, b_turned ? p->k : p->n, b_turned ? p->n : p->k, p->b_stride)) return -1;
  if (layout(&plan->second, p, a_turned ? p->m : p->k, a_turned ? p->k : p->m, p->a_stride)) return -1;
  if (layout(&plan->out, p, p->n, p->m, p->m * p->n)) return -1;
  void* preference;
  uint64_t space = WORKSPACE;
  int count = 0;
  TRY(api.pref_create(&preference));
  TRY(api.pref_set(preference, PREF_MAX_WORKSPACE, &space, sizeof space));
  for (int i = 0; i < 4; ++i) {
    uint32_t bytes = (uint32_t)p->alignment[i];
    TRY(api.pref_set(preference, PREF_MIN_ALIGNMENT_A + i, &bytes, sizeof bytes));
  }
  TRY(api.heuristic(plan->handle, plan->desc, plan->first, plan->second, plan->out, plan->out,
                    preference, 1, &plan->found, &count));
  if (count < 1 || plan->found.status)
    return fail("RuntimeError", "cuBLASLt has no algorithm for %lld x %lld x %lld (batch %lld)",
                (long long)p->m, (long long)p->n, (long long)p->k, (long long)p->batch);
  return 0;
}

// Plans are few, one for each product of a model and stream, and live as long as the process.
static int find_plan(const Problem* problem, void* handle, const void* bias, Plan** found) {
  for (Plan* at = plans; at; at = at->next)
    if (!memcmp(&at->problem, problem, sizeof *problem)) return *found = at, 0;
  Plan* made = calloc(1, sizeof *made);
  if (!made) return fail("MemoryError", "no memory");
  made->problem = *problem, made->handle = handle;
  if (fill_plan(made, bias)) return free(made), -1;
  made->next = plans;
  plans = made;
  return *found = made, 0;
}

static int run(const Problem* problem, const char* a, const char* b, const char* bias, char* out) {
  const float one = 1, zero = 0;
  Space* space = NULL;
  Plan* plan = NULL;
  if (open_libraries() || find_space(problem, &space)) return -1;
  if (find_plan(problem, space->handle, bias, &plan)) return -1;
  if (bias) TRY(api.desc_set(plan->desc, DESC_BIAS_POINTER, &bias, sizeof bias));
  TRY(api.matmul(plan->handle, plan->desc, &one, b, plan->first, a, plan->second, &zero, out,
                 plan->out, out, plan->out, plan->found.algorithm, (void*)(uintptr_t)space->address,
                 WORKSPACE, (void*)(uintptr_t)problem->stream));
  return 0;
}

__attribute__((visibility("default"))) int __tvm_ffi_burnish_cublas_matmul(
    void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  (void)self;
  const TVMFFIAny* last = count > 1 ? &args[count - 2] : NULL;
  if (count < 4 || last->type_index != kTVMFFIInt)
    return fail("TypeError", "burnish_cublas_matmul takes (a, b, [bias,] flags, out)");
  int64_t flags = last->v_int64;
  int has_bias = (flags & BIAS) != 0;
  if (count != 4 + has_bias)
    return fail("TypeError", "burnish_cublas_matmul: %d arguments do not fit the flags %lld", count,
                (long long)flags);
  const DLTensor* tensors[4] = {tensor_of(&args[0]), tensor_of(&args[1]), tensor_of(&args[count - 1]),
                                has_bias ? tensor_of(&args[2]) : NULL};
  for (int i = 0; i < 3 + has_bias; ++i) {
    if (!tensors[i] || tensors[i]->ndim < (i < 3 ? 2 : 1) || !packed(tensors[i]))
      return fail("TypeError", "burnish_cublas_matmul: tensor %d is not a packed matrix", i);
    if (!same_type(tensors[i], tensors[0]))
      return fail("TypeError", "burnish_cublas_matmul: tensor %d is of another type", i);
  }
  const DLTensor *a = tensors[0], *b = tensors[1], *out = tensors[2], *bias = tensors[3];
  if (type_of(a) < 0) return fail("TypeError", "burnish_cublas_matmul: unsupported type");
  int a_turned = (flags & A_TURNED) != 0, b_turned = (flags & B_TURNED) != 0;
  Problem p;
  memset(&p, 0, sizeof p);
  p.m = a->shape[a->ndim - 2 + a_turned], p.k = a->shape[a->ndim - 1 - a_turned];
  p.n = b->shape[b->ndim - 1 - b_turned];
  int64_t a_count = outer(a), b_count = outer(b);
  p.batch = outer(out), p.type = type_of(a), p.flags = flags;
  if (b->shape[b->ndim - 2 + b_turned] != p.k || out->shape[out->ndim - 2] != p.m ||
      out->shape[out->ndim - 1] != p.n || (a_count != p.batch && a_count != 1) ||
      (b_count != p.batch && b_count != 1) || (bias && (outer(bias) != 1 || bias->shape[bias->ndim - 1] != p.n)))
    return fail("ValueError", "burnish_cublas_matmul: shapes do not fit");
  p.a_stride = a_count == 1 ? 0 : p.m * p.k, p.b_stride = b_count == 1 ? 0 : p.k * p.n;
  // One matrix for all: its many left sides are the rows of one.
  if (b_count == 1 && a_count == p.batch && !a_turned) p.m *= p.batch, p.batch = 1;
  result->type_index = kTVMFFINone;
  if (p.m == 0 || p.n == 0 || p.batch == 0) return 0;
  p.device = out->device.device_id;
  p.stream = (uint64_t)(uintptr_t)TVMFFIEnvGetStream(out->device.device_type, out->device.device_id);
  const char* at_bias = bias ? start(bias) : NULL;
  p.alignment[0] = alignment(start(b)), p.alignment[1] = alignment(start(a));
  p.alignment[2] = p.alignment[3] = alignment(start(out));
  pthread_mutex_lock(&lock);
  int failed = run(&p, start(a), start(b), at_bias, start(out));
  pthread_mutex_unlock(&lock);
  return failed;
}
