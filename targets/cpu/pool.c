/* Threads of compiled models: linked into each library, in place of TVM's pool.

   A parallel loop is cut into many more tasks than there are threads. Each thread owns a run of
   neighbouring tasks, and takes from the others' when its own are done: a thread that gets little
   of its core does little, and none is waited for but those in the middle of a task. Threads that
   wait spin for a while, then sleep, so that they take no core from anything else. They are bound
   to no core: two pools in a process that bind their threads bind them to the same cores.

   One pool serves all libraries of a process: the first one loaded lends its `run` to the rest.
   A second caller while the pool is busy runs its loop alone, and so does a loop inside a loop.
   A thread may have a pool of its own for the loops of a library: regions of one model that run at
   the same time. Its workers inherit what cores the thread is bound to.

   Linux only (futex). Layouts from TVM's c_backend_api.h and tvm-ffi's c_api.h. */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <tvm/ffi/c_api.h>

#define MOST_THREADS 1024
#define TASKS_PER_THREAD 64
#define IDLE_SPIN_NS 100000
#define JOIN_SPIN_NS 20000
#define EXPORT __attribute__((visibility("default")))

typedef struct {
  void *sync_handle;
  int32_t num_task;
} Group;
typedef int (*Lambda)(int task, Group *group, void *data);
typedef int (*Run)(Lambda lambda, void *data, int tasks, int threads);

typedef struct {
  _Alignas(64) _Atomic int next;
  int end;
} Share;

#define OPEN (1u << 31)
#define WAITING (1u << 30)
#define COUNT (WAITING - 1)

typedef struct Pool Pool;
typedef struct {
  Pool *pool;
  int id;
  uint32_t seen; /* the epoch when it was started */
  pthread_t thread;
} Worker;

struct Pool {
  _Alignas(64) _Atomic uint32_t epoch; /* one more for each job; what idle threads watch */
  _Alignas(64) _Atomic uint32_t state; /* OPEN: may be entered; how many are inside; WAITING */
  _Alignas(64) _Atomic uint32_t sleepers;
  _Atomic uint32_t busy;
  _Atomic uint32_t stopped;
  /* The job: written while closed and empty, read inside. */
  Lambda lambda;
  void *data;
  Group group;
  int threads;
  _Atomic(TVMFFIObjectHandle) error;
  _Atomic int failed;
  int started;
  int most; /* threads of a pool of one thread's own */
  Pool *next;
  Worker workers[MOST_THREADS];
  Share shares[MOST_THREADS];
};

static Pool everyones;
/* Of the calling thread: the pool of its own, if it has one. A worker has that of its pool, so
   that a loop inside a loop finds it busy. */
static _Thread_local Pool *own;

static void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void sleep_on(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void do_tasks(Pool *pool, int id) {
  int threads = pool->threads;
  for (int k = 0; k < threads; k++) {
    Share *share = &pool->shares[(id + k) % threads];
    while (atomic_load_explicit(&share->next, memory_order_relaxed) < share->end) {
      int task = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
      if (task >= share->end) break;
      if (pool->lambda(task, &pool->group, pool->data) != 0) {
        TVMFFIObjectHandle raised = NULL, none = NULL;
        TVMFFIErrorMoveFromRaised(&raised); /* errors are kept per thread */
        if (!atomic_compare_exchange_strong(&pool->error, &none, raised) && raised)
          TVMFFIObjectDecRef(raised);
        atomic_store(&pool->failed, 1);
      }
    }
  }
}

/* The epoch once it is another than `seen`, or `seen` itself when the pool stops. */
static uint32_t next_epoch(Pool *pool, uint32_t seen) {
  int64_t limit = 0;
  for (unsigned spins = 1;; spins++) {
    uint32_t epoch = atomic_load_explicit(&pool->epoch, memory_order_acquire);
    if (epoch != seen || atomic_load(&pool->stopped)) return epoch;
    rest();
    if (spins % 32 == 0) {
      int64_t now = now_ns();
      if (limit == 0) limit = now + IDLE_SPIN_NS;
      if (now > limit) break;
    }
  }
  atomic_fetch_add(&pool->sleepers, 1);
  uint32_t epoch;
  while ((epoch = atomic_load(&pool->epoch)) == seen && !atomic_load(&pool->stopped))
    sleep_on(&pool->epoch, seen);
  atomic_fetch_sub(&pool->sleepers, 1);
  return epoch;
}

static void *work(void *argument) {
  const Worker *worker = argument;
  Pool *pool = worker->pool;
  int id = worker->id;
  uint32_t seen = worker->seen;
  if (pool != &everyones) own = pool;
  for (;;) {
    seen = next_epoch(pool, seen);
    if (atomic_load(&pool->stopped)) return NULL;
    uint32_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);
    while (state & OPEN) {
      if (!atomic_compare_exchange_weak(&pool->state, &state, state + 1)) continue;
      if (id < pool->threads) do_tasks(pool, id);
      if (atomic_fetch_sub(&pool->state, 1) - 1 == WAITING) wake(&pool->state);
      break;
    }
  }
}

static int start_workers(Pool *pool, int threads) {
  while (pool->started < threads - 1) {
    int id = pool->started + 1;
    Worker *worker = &pool->workers[id];
    worker->pool = pool;
    worker->id = id;
    worker->seen = atomic_load(&pool->epoch);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the caller's, not the workers' */
    int error = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) {
      TVMFFIErrorSetRaisedFromCStr(
          "RuntimeError", "the system starts no more threads: compile the model with fewer");
      return -1;
    }
    pthread_setname_np(worker->thread, "burnish");
    pool->started = id;
  }
  return 0;
}

static void close_job(Pool *pool) {
  uint32_t state = atomic_fetch_and(&pool->state, ~OPEN) & ~OPEN;
  int64_t limit = 0;
  for (unsigned spins = 1; state & COUNT; spins++) {
    rest();
    state = atomic_load(&pool->state);
    if (spins % 32 == 0) {
      int64_t now = now_ns();
      if (limit == 0) limit = now + JOIN_SPIN_NS;
      if (now > limit) break;
    }
  }
  if (state & COUNT) state = atomic_fetch_or(&pool->state, WAITING) | WAITING;
  while (state & COUNT) {
    sleep_on(&pool->state, state);
    state = atomic_load(&pool->state);
  }
}

static int run_in(Pool *pool, Lambda lambda, void *data, int tasks, int threads) {
  if (threads > tasks) threads = tasks;
  if (threads <= 1 || atomic_load(&pool->stopped) || atomic_exchange(&pool->busy, 1)) {
    Group alone = {NULL, 1};
    return lambda(0, &alone, data);
  }
  int failed = start_workers(pool, threads);
  if (!failed) {
    pool->lambda = lambda;
    pool->data = data;
    pool->group = (Group){NULL, tasks};
    pool->threads = threads;
    for (int i = 0; i < threads; i++) {
      atomic_store_explicit(&pool->shares[i].next, (int)((int64_t)tasks * i / threads),
                            memory_order_relaxed);
      pool->shares[i].end = (int)((int64_t)tasks * (i + 1) / threads);
    }
    atomic_store(&pool->state, OPEN);
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers)) wake(&pool->epoch);
    do_tasks(pool, 0);
    close_job(pool);
    if (atomic_load_explicit(&pool->failed, memory_order_relaxed)) {
      failed = -1;
      atomic_store(&pool->failed, 0);
      TVMFFIObjectHandle error = atomic_exchange(&pool->error, NULL);
      if (error) {
        TVMFFIErrorSetRaised(error);
        TVMFFIObjectDecRef(error);
      }
    }
  }
  atomic_store_explicit(&pool->busy, 0, memory_order_release);
  return failed;
}

static int run(Lambda lambda, void *data, int tasks, int threads) {
  return run_in(&everyones, lambda, data, tasks, threads);
}

/* Of this library: whose pool runs its loops, and on how many threads; of a calling thread: the
   iterations of the loop that it is about to launch, which TVM does not tell. */
static Run runs = run;
static _Atomic int allowed = 1;
static _Thread_local int64_t iterations;

int32_t burnish_iterations(int64_t extent) {
  iterations = extent;
  return 0;
}

static int launch(Lambda lambda, void *data, int tasks) {
  int threads = own ? own->most : atomic_load_explicit(&allowed, memory_order_relaxed);
  if (tasks == 0) {
    int64_t most = (int64_t)threads * TASKS_PER_THREAD;
    tasks = (int)(iterations <= 0 ? threads : iterations < most ? iterations : most);
  }
  iterations = 0;
  return own ? run_in(own, lambda, data, tasks, threads) : runs(lambda, data, tasks, threads);
}

/* What generated code calls. Hidden, so that TVM does not find it to put its own there. */
int (*__TVMBackendParallelLaunch)(Lambda, void *, int) = launch;

/* join_pool(address of another library's `run`, or 0) -> address of the one used */
EXPORT int __tvm_ffi_burnish_join_pool(void *self, const TVMFFIAny *args, int32_t count,
                                       TVMFFIAny *result) {
  (void)self;
  (void)count;
  if (args[0].v_int64) runs = (Run)(intptr_t)args[0].v_int64;
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = (int64_t)(intptr_t)runs;
  return 0;
}

/* threads(n): how many threads the loops of this library may use */
EXPORT int __tvm_ffi_burnish_threads(void *self, const TVMFFIAny *args, int32_t count,
                                     TVMFFIAny *result) {
  (void)self;
  (void)count;
  (void)result;
  int64_t threads = args[0].v_int64 < MOST_THREADS ? args[0].v_int64 : MOST_THREADS;
  atomic_store_explicit(&allowed, (int)threads, memory_order_relaxed);
  return 0;
}

/* on_core(core) -> whether the calling thread is on this core now; loops of this library run on one
   thread from here on */
EXPORT int __tvm_ffi_burnish_on_core(void *self, const TVMFFIAny *args, int32_t count,
                                     TVMFFIAny *result) {
  (void)self;
  (void)count;
  atomic_store_explicit(&allowed, 1, memory_order_relaxed);
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = sched_getcpu() == args[0].v_int64;
  return 0;
}

/* Pools of threads' own, of this library; and who may change which there are. */
static Pool *pools;
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

static void stop(Pool *pool) {
  atomic_store(&pool->stopped, 1);
  atomic_fetch_add(&pool->epoch, 1);
  wake(&pool->epoch);
  for (int id = 1; id <= pool->started; id++) pthread_join(pool->workers[id].thread, NULL);
  pool->started = 0;
}

static void give_up_own(void) {
  Pool *pool = own;
  if (!pool) return;
  own = NULL;
  pthread_mutex_lock(&changing);
  stop(pool);
  Pool **at = &pools;
  while (*at != pool) at = &(*at)->next;
  *at = pool->next;
  pthread_mutex_unlock(&changing);
  free(pool);
}

/* own_pool(n) -> the pool's address: loops of this library that the calling thread launches run on
   a pool of n threads that is for it alone, itself among them; 0 takes the pool away, which a
   thread does before it ends */
EXPORT int __tvm_ffi_burnish_own_pool(void *self, const TVMFFIAny *args, int32_t count,
                                      TVMFFIAny *result) {
  (void)self;
  (void)count;
  int64_t threads = args[0].v_int64 < MOST_THREADS ? args[0].v_int64 : MOST_THREADS;
  give_up_own();
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = 0;
  if (threads < 1) return 0;
  Pool *pool = aligned_alloc(_Alignof(Pool), sizeof(Pool));
  if (!pool) {
    TVMFFIErrorSetRaisedFromCStr("MemoryError", "no memory for a pool of threads");
    return -1;
  }
  memset(pool, 0, sizeof(Pool));
  pool->most = (int)threads;
  pthread_mutex_lock(&changing);
  pool->next = pools;
  pools = pool;
  pthread_mutex_unlock(&changing);
  own = pool;
  result->v_int64 = (int64_t)(intptr_t)pool;
  return 0;
}

/* lend_pool(address of such a pool, or 0): the calling thread's loops run there until the next of
   these calls; threads that use one pool take turns with it */
EXPORT int __tvm_ffi_burnish_lend_pool(void *self, const TVMFFIAny *args, int32_t count,
                                       TVMFFIAny *result) {
  (void)self;
  (void)count;
  (void)result;
  own = (Pool *)(intptr_t)args[0].v_int64;
  return 0;
}

static void forget(Pool *pool) { /* a forked child has none of its parent's threads */
  pool->started = 0;
  atomic_store(&pool->busy, 0);
  atomic_store(&pool->state, 0);
  atomic_store(&pool->sleepers, 0);
}

static void before_fork(void) { pthread_mutex_lock(&changing); }

static void after_fork(void) { pthread_mutex_unlock(&changing); }

static void in_child(void) {
  forget(&everyones);
  for (Pool *pool = pools; pool; pool = pool->next) forget(pool);
  pthread_mutex_unlock(&changing);
}

__attribute__((constructor)) static void open_library(void) {
  pthread_atfork(before_fork, after_fork, in_child);
}

__attribute__((destructor)) static void close_library(void) {
  stop(&everyones);
  pthread_mutex_lock(&changing);
  for (Pool *pool = pools; pool; pool = pool->next) stop(pool);
  pthread_mutex_unlock(&changing);
}
