// Stands in for libcublasLt, libcudnn and libcuda in tests: on the CPU, by the rules of NVIDIA's
// manuals (column-major matrices with a leading dimension, strided batches, fused epilogues).

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int type, batch;
  int64_t rows, columns, leading, stride;
} Layout;
typedef struct {
  int first, second, epilogue;
  const void* bias;
} Desc;
typedef struct {
  int64_t workspace, alignment[4];
} Preference;

static int64_t launches, heuristics, fail_heuristic;
int64_t stub_launches(void) { return launches; }
int64_t stub_heuristics(void) { return heuristics; }
void stub_fail(int64_t on) { fail_heuristic = on; }

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  *address = (uint64_t)(uintptr_t)malloc(bytes);
  return 0;
}
int cublasLtCreate(void** handle) { return *handle = malloc(1), 0; }
int cublasLtMatmulDescCreate(void** desc, int compute, int scale) {
  if (compute != 68 || scale != 0) return 7;
  Desc* made = calloc(1, sizeof *made);
  made->epilogue = 1;
  return *desc = made, 0;
}
int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value, size_t bytes) {
  Desc* d = desc;
  void* places[] = {[3] = &d->first, [4] = &d->second, [7] = &d->epilogue, [8] = &d->bias};
  if (attribute > 8 || !places[attribute] || bytes != (attribute == 8 ? 8u : 4u)) return 7;
  memcpy(places[attribute], value, bytes);
  return 0;
}
int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  Layout* made = calloc(1, sizeof *made);
  *made = (Layout){type, 1, (int64_t)rows, (int64_t)columns, ld, 0};
  return *layout = made, 0;
}
int cublasLtMatrixLayoutSetAttribute(void* layout, int attribute, const void* value, size_t bytes) {
  Layout* l = layout;
  if (attribute == 5 && bytes == 4) return memcpy(&l->batch, value, 4), 0;
  if (attribute == 6 && bytes == 8) return memcpy(&l->stride, value, 8), 0;
  return 7;
}
int cublasLtMatmulPreferenceCreate(void** pref) { return *pref = calloc(1, sizeof(Preference)), 0; }
int cublasLtMatmulPreferenceSetAttribute(void* pref, int attribute, const void* value, size_t bytes) {
  Preference* p = pref;
  if (attribute == 1 && bytes == 8) return memcpy(&p->workspace, value, 8), 0;
  if (attribute < 5 || attribute > 8 || bytes != 4) return 7;
  p->alignment[attribute - 5] = *(const uint32_t*)value;
  return 0;
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* desc, Layout* a, Layout* b, Layout* c,
                                   Layout* d, Preference* pref, int wanted, char* found, int* count) {
  (void)handle, (void)desc, (void)c;
  ++heuristics;
  memset(found, 0, 96);
  *count = !fail_heuristic && wanted == 1 && pref->workspace == (int64_t)32 << 20 &&
           a->batch == b->batch && b->batch == d->batch;
  found[0] = 77;
  return 0;
}

static float number(const void* data, int type, int64_t at) {
  if (type == 0) return ((const float*)data)[at];
  if (type == 2) return (float)((const _Float16*)data)[at];
  uint32_t bits = (uint32_t)((const uint16_t*)data)[at] << 16;
  float value;
  return memcpy(&value, &bits, 4), value;
}
static void put(void* data, int type, int64_t at, float value) {
  if (type == 0) ((float*)data)[at] = value;
  if (type == 2) ((_Float16*)data)[at] = (_Float16)value;
  if (type != 14) return;
  uint32_t bits;
  memcpy(&bits, &value, 4);
  ((uint16_t*)data)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static float element(const void* data, const Layout* l, int turned, int batch, int64_t i, int64_t j) {
  int64_t row = turned ? j : i, column = turned ? i : j;
  if (row >= l->rows || column >= l->columns || l->leading < l->rows) abort();
  return number(data, l->type, batch * l->stride + row + column * l->leading);
}

int cublasLtMatmul(void* handle, Desc* desc, const float* alpha, const void* a, Layout* la,
                   const void* b, Layout* lb, const float* beta, const void* c, Layout* lc, void* d,
                   Layout* ld, const char* algo, void* space, size_t bytes, void* stream) {
  (void)handle, (void)lc, (void)stream;
  if (algo[0] != 77 || !space || bytes != (size_t)32 << 20 || *beta != 0 || c != d) return 7;
  ++launches;
  int64_t depth = desc->first ? la->rows : la->columns;
  if (depth != (desc->second ? lb->columns : lb->rows)) return 7;
  for (int batch = 0; batch < ld->batch; ++batch)
    for (int64_t i = 0; i < ld->rows; ++i)
      for (int64_t j = 0; j < ld->columns; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < depth; ++k)
          sum += (double)element(a, la, desc->first, batch, i, k) *
                 element(b, lb, desc->second, batch, k, j);
        float value = (float)sum * *alpha;
        if (desc->epilogue & 4) value += number(desc->bias, ld->type, i);
        if (desc->epilogue & 2) value = value > 0 ? value : 0;
        if (desc->epilogue & 32)
          value *= 0.5f * (1 + tanhf(0.7978845608f * (value + 0.044715f * value * value * value)));
        put(d, ld->type, batch * ld->stride + i + j * ld->leading, value);
      }
  return 0;
}

// cuDNN 9: channels last, cross-correlation, by its own legacy interface.

typedef struct {
  int type, n, c, h, w;
} Shape;
typedef struct {
  int pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups, math;
} Conv;
typedef struct {
  int mode;
} Activation;

int cudnnCreate(void** handle) { return *handle = calloc(1, 16), 0; }
int cudnnSetStream(void* handle, void* stream) { return memcpy(handle, &stream, 8), 0; }
int cudnnCreateTensorDescriptor(void** made) { return *made = calloc(1, sizeof(Shape)), 0; }
int cudnnCreateFilterDescriptor(void** made) { return *made = calloc(1, sizeof(Shape)), 0; }
int cudnnCreateConvolutionDescriptor(void** made) { return *made = calloc(1, sizeof(Conv)), 0; }
int cudnnCreateActivationDescriptor(void** made) { return *made = calloc(1, sizeof(Activation)), 0; }
int cudnnSetTensor4dDescriptor(Shape* s, int format, int type, int n, int c, int h, int w) {
  *s = (Shape){type, n, c, h, w};
  return format == 1 ? 0 : 3000;
}
int cudnnSetFilter4dDescriptor(Shape* s, int type, int format, int k, int c, int h, int w) {
  *s = (Shape){type, k, c, h, w};
  return format == 1 ? 0 : 3000;
}
int cudnnSetConvolution2dDescriptor(Conv* conv, int pad_h, int pad_w, int stride_h, int stride_w,
                                    int dilation_h, int dilation_w, int mode, int compute) {
  *conv = (Conv){pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, 1, 0};
  return mode == 1 && compute == 0 ? 0 : 3000;
}
int cudnnSetConvolutionGroupCount(Conv* conv, int groups) { return conv->groups = groups, 0; }
int cudnnSetConvolutionMathType(Conv* conv, int math) { return conv->math = math, 0; }
int cudnnSetActivationDescriptor(Activation* a, int mode, int nan, double coefficient) {
  a->mode = mode;
  return nan == 0 && coefficient == 0 ? 0 : 3000;
}
typedef struct {
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math, reserved[3];
} Performance;
int cudnnGetConvolutionForwardAlgorithm_v7(void* handle, Shape* x, Shape* w, Conv* conv, Shape* y,
                                           int wanted, int* count, Performance* found) {
  (void)handle, (void)x, (void)w, (void)conv, (void)y;
  ++heuristics;
  if (wanted < 4) return 3000;
  memset(found, 0, 4 * sizeof *found);
  found[0] = (Performance){4, 0, 1, 0, 0, 0, {0}};                  // not the same at every run
  found[1] = (Performance){5, 3001, 2, 0, 1, 0, {0}};               // not supported
  found[2] = (Performance){6, 0, 3, (size_t)1 << 40, 1, 0, {0}};    // of too much memory
  found[3] = (Performance){0, 0, 4, 64, 1, 0, {0}};
  return *count = 4, 0;
}
int cudnnGetConvolutionForwardWorkspaceSize(void* handle, Shape* x, Shape* w, Conv* conv, Shape* y,
                                            int algorithm, size_t* bytes) {
  (void)handle, (void)x, (void)w, (void)conv, (void)y;
  *bytes = 64;
  return algorithm == 0 || algorithm == 1 ? 0 : 3000;
}

static int kind(int type) { return type == 9 ? 14 : type; }  // as cuBLAS numbers them

static int convolve(const Shape* xs, const void* x, const Shape* ws, const void* w, const Conv* conv,
                    const void* bias, int relu, const Shape* ys, void* y) {
  if (conv->math != (xs->type == 0 ? 3 : 1)) return 3000;  // float32 without TF32
  if (xs->type != ws->type || xs->type != ys->type || ws->c * conv->groups != xs->c) return 3000;
  int per_group = ys->c / conv->groups;
  ++launches;
  for (int n = 0; n < ys->n; ++n)
    for (int p = 0; p < ys->h; ++p)
      for (int q = 0; q < ys->w; ++q)
        for (int o = 0; o < ys->c; ++o) {
          double sum = 0;
          for (int i = 0; i < ws->h; ++i)
            for (int j = 0; j < ws->w; ++j) {
              int row = p * conv->stride_h - conv->pad_h + i * conv->dilation_h;
              int column = q * conv->stride_w - conv->pad_w + j * conv->dilation_w;
              if (row < 0 || row >= xs->h || column < 0 || column >= xs->w) continue;
              for (int c = 0; c < ws->c; ++c) {
                int64_t at = (((int64_t)n * xs->h + row) * xs->w + column) * xs->c;
                int64_t weight = (((int64_t)o * ws->h + i) * ws->w + j) * ws->c + c;
                sum += (double)number(x, kind(xs->type), at + o / per_group * ws->c + c) *
                       number(w, kind(ws->type), weight);
              }
            }
          if (bias) sum += number(bias, kind(ys->type), o);
          if (relu && sum < 0) sum = 0;
          int64_t at = (((int64_t)n * ys->h + p) * ys->w + q) * ys->c + o;
          put(y, kind(ys->type), at, (float)sum);
        }
  return 0;
}
int cudnnConvolutionForward(void* handle, const float* alpha, Shape* xs, const void* x, Shape* ws,
                            const void* w, Conv* conv, int algorithm, void* space, size_t bytes,
                            const float* beta, Shape* ys, void* y) {
  (void)handle;
  if (*alpha != 1 || *beta != 0 || algorithm != 0 || !space || bytes != 64) return 3000;
  return convolve(xs, x, ws, w, conv, NULL, 0, ys, y);
}
int cudnnConvolutionBiasActivationForward(void* handle, const float* alpha, Shape* xs, const void* x,
                                          Shape* ws, const void* w, Conv* conv, int algorithm,
                                          void* space, size_t bytes, const float* alpha2, Shape* zs,
                                          const void* z, Shape* bs, const void* bias,
                                          Activation* activation, Shape* ys, void* y) {
  (void)handle;
  // Without an activation only the precomputed implicit GEMM will do.
  if (*alpha != 1 || *alpha2 != 0 || algorithm != 1 || !space || bytes != 64) return 3000;
  if (zs != ys || z != y || bs->n != 1 || bs->c != ys->c || bs->h != 1 || bs->w != 1) return 3000;
  if (activation->mode != 1 && activation->mode != 5) return 3000;
  return convolve(xs, x, ws, w, conv, bias, activation->mode == 1, ys, y);
}
