/* The peak rates of this machine: what no program on it can pass.
 *
 *     cc -O3 -march=native -pthread peaks.c -o peaks && ./peaks THREADS SECONDS BYTES
 *
 * Prints one JSON object: billions of operations a second of float32 fused multiply-adds, of
 * bfloat16 dot products into float32 and of int8 dot products into int32 (null where the CPU has
 * no such instruction; a multiply-add counts as two), and GB/s of memory read. Each is the best
 * of the shots that fit in SECONDS. BYTES is the size of the buffer read, all threads together;
 * it must be larger than the last cache. Tile instructions (AMX) are not tried.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

/* Chains of dependent operations: more than latency times units, fewer than registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define CHAINS 20
#else
#define CHAINS 12
#endif

#define UNROLLED _Pragma("GCC unroll 32")
#define SHOT_S 0.02

typedef float floats __attribute__((vector_size(WIDTH)));
typedef int32_t ints __attribute__((vector_size(WIDTH)));
typedef int64_t words __attribute__((vector_size(WIDTH)));

static volatile float sink_f;
static volatile int32_t sink_i;
static volatile int64_t sink_w;
static volatile float one = 0.999f;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Each kernel does `count` steps on thread `index` and returns its operations, or bytes. */
typedef double kernel(long count, int index);

static double fp32(long count, int index) {
  floats a, b, acc[CHAINS];
  for (int i = 0; i < (int)(WIDTH / sizeof(float)); i++) a[i] = one, b[i] = one;
  UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = b * (float)(i + index);
  for (long n = 0; n < count; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + b;
  }
  UNROLLED for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
  sink_f = acc[0][0];
  return 2.0 * CHAINS * (WIDTH / sizeof(float)) * count;
}

#if defined(__AVX512BF16__)
#define BF16
static double bf16(long count, int index) {
  __m512 acc[CHAINS];
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(one), _mm512_set1_ps(one));
  UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_set1_ps((float)(i + index));
  for (long n = 0; n < count; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_dpbf16_ps(acc[i], a, a);
  }
  UNROLLED for (int i = 1; i < CHAINS; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  sink_f = _mm512_cvtss_f32(acc[0]);
  return 2.0 * CHAINS * 32 * count;
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define BF16
static double bf16(long count, int index) {
  float32x4_t acc[CHAINS];
  bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f7f));
  UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_f32((float)(i + index));
  for (long n = 0; n < count; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = vbfdotq_f32(acc[i], a, a);
  }
  UNROLLED for (int i = 1; i < CHAINS; i++) acc[0] = vaddq_f32(acc[0], acc[i]);
  sink_f = vgetq_lane_f32(acc[0], 0);
  return 2.0 * CHAINS * 8 * count;
}
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#define INT8
#define DOT(acc, a) (ints) _mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(a), (__m512i)(a))
#elif defined(__AVXVNNI__)
#define INT8
#define DOT(acc, a) (ints) _mm256_dpbusd_avx_epi32((__m256i)(acc), (__m256i)(a), (__m256i)(a))
#elif defined(__ARM_FEATURE_DOTPROD)
#define INT8
#define DOT(acc, a) (ints) vdotq_s32((int32x4_t)(acc), (int8x16_t)(a), (int8x16_t)(a))
#endif

#ifdef INT8
static double int8(long count, int index) {
  ints a, acc[CHAINS];
  for (int i = 0; i < (int)(WIDTH / sizeof(int32_t)); i++) a[i] = (int32_t)one + 0x01010101;
  UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = a * (i + index);
  for (long n = 0; n < count; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) acc[i] = DOT(acc[i], a);
  }
  UNROLLED for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
  sink_i = acc[0][0];
  return 2.0 * CHAINS * WIDTH * count;
}
#endif

static words *buffer;
static size_t slice; /* bytes a thread reads */

static double memory(long count, int index) {
  const words *from = (const words *)((const char *)buffer + slice * index);
  size_t length = slice / WIDTH / 8 * 8;
  words acc[8];
  UNROLLED for (int i = 0; i < 8; i++) acc[i] = (words){0};
  for (long n = 0; n < count; n++) {
    for (size_t at = 0; at < length; at += 8) {
      UNROLLED for (int i = 0; i < 8; i++) acc[i] ^= from[at + i];
    }
    __asm__ volatile("" ::: "memory");
  }
  UNROLLED for (int i = 1; i < 8; i++) acc[0] ^= acc[i];
  sink_w = acc[0][0];
  return (double)length * WIDTH * count;
}

static atomic_int waiting;
static int threads;

struct share {
  kernel *run;
  long count;
  int index;
  double begin, end, work;
};

static void *work(void *given) {
  struct share *share = given;
  atomic_fetch_sub(&waiting, 1);
  while (atomic_load(&waiting) > 0) {
  }
  share->begin = now();
  share->work = share->run(share->count, share->index);
  share->end = now();
  return NULL;
}

/* One shot on all threads, started together: seconds in `*seconds`, work done as the result. */
static double shot(kernel *run, long count, double *seconds) {
  struct share *shares = calloc(threads, sizeof *shares);
  pthread_t *ids = calloc(threads, sizeof *ids);
  if (shares == NULL || ids == NULL) exit(3);
  atomic_store(&waiting, threads);
  for (int i = 0; i < threads; i++) {
    shares[i] = (struct share){run, count, i, 0, 0, 0};
    if (i > 0 && pthread_create(&ids[i], NULL, work, &shares[i]) != 0) exit(3);
  }
  work(&shares[0]);
  double begin = shares[0].begin, end = shares[0].end, done = shares[0].work;
  for (int i = 1; i < threads; i++) {
    pthread_join(ids[i], NULL);
    if (shares[i].begin < begin) begin = shares[i].begin;
    if (shares[i].end > end) end = shares[i].end;
    done += shares[i].work;
  }
  free(shares);
  free(ids);
  *seconds = end - begin;
  return done;
}

/* The best rate, in billions a second. */
static double peak(kernel *run, double limit) {
  long count = 1;
  double seconds, best = 0, stop = now() + limit;
  while (shot(run, count, &seconds), seconds < SHOT_S && count < (1L << 40)) count *= 2;
  do {
    double rate = shot(run, count, &seconds) / seconds;
    if (rate > best) best = rate;
  } while (now() < stop);
  return best / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 4 || (threads = atoi(argv[1])) < 1 || atof(argv[2]) <= 0 || atoll(argv[3]) < 1) {
    fprintf(stderr, "usage: peaks THREADS SECONDS BYTES\n");
    return 2;
  }
  double limit = atof(argv[2]);
  size_t page = 1 << 21;
  slice = ((size_t)atoll(argv[3]) / threads / page + 1) * page;
  buffer = aligned_alloc(page, slice * threads);
  if (buffer == NULL) return 3;
#ifdef MADV_HUGEPAGE
  madvise(buffer, slice * threads, MADV_HUGEPAGE);
#endif
  memset(buffer, 1, slice * threads);
  printf("{\"threads\": %d, \"fp32\": %.3f", threads, peak(fp32, limit));
#ifdef BF16
  printf(", \"bf16\": %.3f", peak(bf16, limit));
#else
  printf(", \"bf16\": null");
#endif
#ifdef INT8
  printf(", \"int8\": %.3f", peak(int8, limit));
#else
  printf(", \"int8\": null");
#endif
  printf(", \"read\": %.3f}\n", peak(memory, limit));
  return 0;
}
