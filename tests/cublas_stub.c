// Stands in for libcublasLt and libcuda in tests: products on the CPU, by the rules of NVIDIA's
// manual (column-major matrices with a leading dimension, strided batches, fused epilogues).

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
