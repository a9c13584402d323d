/* Decoding steps of transformers on the processor: a team of threads, the kernels for several instruction sets, and
   the functions that Python calls through ctypes. */

#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define PAUSE() _mm_pause()
#else
#define PAUSE() atomic_thread_fence(memory_order_acquire)
#endif

#define API __attribute__((visibility("default")))

/* -- a team of threads that work on one call at a time --------------------------------------------------------- */

enum { MOST = 64, PATIENCE = 2000 };

struct team {
    int members;
    atomic_int arrived, round;
    struct {
        _Alignas(64) atomic_int units; /* of a member's share that were claimed since the last meeting */
    } claimed[MOST];
};

static void unclaim(team_t *team) {
    for (int m = 0; m < team->members; m++) atomic_store_explicit(&team->claimed[m].units, 0, memory_order_relaxed);
}

int64_t team_claim(team_t *team, int member, int64_t units) {
    for (int i = 0; i < team->members; i++) {
        const int64_t of = (member + i) % team->members;
        const int64_t from = units * of / team->members, size = units * (of + 1) / team->members - from;
        atomic_int *claimed = &team->claimed[of].units;
        if (atomic_load_explicit(claimed, memory_order_relaxed) >= size) continue;
        const int64_t at = atomic_fetch_add_explicit(claimed, 1, memory_order_relaxed);
        if (at < size) return from + at;
    }
    return -1;
}

/* All members wait for each other. */
void team_meet(team_t *team, int member) {
    (void)member;
    if (team->members == 1) {
        unclaim(team);
        return;
    }
    int round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->members) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        unclaim(team);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; i++) {
        if (i < PATIENCE) PAUSE();
        else sched_yield(); /* another process may need the processor that the others wait for */
    }
}

typedef void (*work_t)(void *, team_t *, int member, int members);

static struct {
    pthread_mutex_t in_use, lock;
    pthread_cond_t wake;
    atomic_int call, finished, sleeping;
    int workers;
    work_t work;
    void *argument;
    team_t team;
} crew = {.in_use = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void *worker(void *argument) {
    const int member = (int)(intptr_t)argument >> 16, from = (int)(intptr_t)argument & 0xffff;
    int seen = from;
    for (;;) {
        int i = 0;
        while ((atomic_load_explicit(&crew.call, memory_order_acquire) & 0xffff) == seen && i++ < PATIENCE) PAUSE();
        if ((atomic_load(&crew.call) & 0xffff) == seen) {
            pthread_mutex_lock(&crew.lock);
            atomic_fetch_add(&crew.sleeping, 1);
            while ((atomic_load(&crew.call) & 0xffff) == seen) pthread_cond_wait(&crew.wake, &crew.lock);
            atomic_fetch_sub(&crew.sleeping, 1);
            pthread_mutex_unlock(&crew.lock);
        }
        seen = atomic_load_explicit(&crew.call, memory_order_acquire) & 0xffff;
        if (member < crew.team.members) crew.work(crew.argument, &crew.team, member, crew.team.members);
        atomic_fetch_add_explicit(&crew.finished, 1, memory_order_release);
    }
    return NULL;
}

/* A forked child has none of the threads. */
static void forget_workers(void) {
    crew.workers = 0;
    atomic_store(&crew.sleeping, 0);
    pthread_mutex_init(&crew.in_use, NULL), pthread_mutex_init(&crew.lock, NULL), pthread_cond_init(&crew.wake, NULL);
}

static void hire(int members) {
    static int watched = 0;
    if (!watched) watched = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (crew.workers < members - 1) {
        pthread_t thread;
        intptr_t argument = (intptr_t)(crew.workers + 1) << 16 | (atomic_load(&crew.call) & 0xffff);
        if (pthread_create(&thread, NULL, worker, (void *)argument)) return;
        pthread_detach(thread);
        crew.workers++;
    }
}

/* Run work with so many members; alone if the team works for another thread of the caller's program. */
static void together(work_t work, void *argument, int members) {
    team_t solo = {.members = 1};
    members = members > MOST ? MOST : members;
    if (members < 2 || pthread_mutex_trylock(&crew.in_use)) {
        work(argument, &solo, 0, 1);
        return;
    }
    hire(members);
    crew.work = work, crew.argument = argument;
    crew.team.members = members < crew.workers + 1 ? members : crew.workers + 1;
    atomic_store(&crew.team.arrived, 0);
    unclaim(&crew.team);
    atomic_store(&crew.finished, 0);
    atomic_fetch_add(&crew.call, 1);
    if (atomic_load(&crew.sleeping)) {
        pthread_mutex_lock(&crew.lock);
        pthread_cond_broadcast(&crew.wake);
        pthread_mutex_unlock(&crew.lock);
    }
    work(argument, &crew.team, 0, crew.team.members);
    for (int i = 0; atomic_load_explicit(&crew.finished, memory_order_acquire) < crew.workers; i++) {
        if (i < PATIENCE) PAUSE();
        else sched_yield();
    }
    pthread_mutex_unlock(&crew.in_use);
}

/* -- room for what lies between two layers, kept per calling thread -------------------------------------------- */

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
typedef struct {
    char *start;
    int64_t size;
} room_t;

static void free_room(void *room) {
    free(((room_t *)room)->start);
    free(room);
}

static void make_key(void) { pthread_key_create(&key, free_room); }

static char *room_of(int64_t size) {
    pthread_once(&once, make_key);
    room_t *room = pthread_getspecific(key);
    if (!room) {
        if (!(room = calloc(1, sizeof *room))) return NULL;
        pthread_setspecific(key, room);
    }
    if (room->size < size) {
        free(room->start);
        room->size = 0;
        if (posix_memalign((void **)&room->start, 64, (size_t)size)) return room->start = NULL;
        room->size = size;
    }
    return room->start;
}

static void *take_room(char **at, int64_t bytes) {
    char *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

/* -- random numbers and choices, as in ancestral.noise and ancestral.decoding.walk ------------------------------ */

static uint64_t hash64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static double uniform(int64_t seed, int64_t counter) {
    uint64_t bits = hash64(hash64((uint64_t)seed ^ hash64((uint64_t)counter)) ^ hash64(0));
    return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

/* The k-th largest of x [n], k from 1; x is rearranged. */
static float kth_largest(float *x, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    k--;
    while (low < high) {
        float pivot = x[low + (high - low) / 2];
        int64_t i = low - 1, j = high + 1;
        for (;;) {
            do i++; while (x[i] > pivot);
            do j--; while (x[j] < pivot);
            if (i >= j) break;
            float t = x[i];
            x[i] = x[j], x[j] = t;
        }
        if (k <= j) high = j;
        else low = j + 1;
    }
    return x[k];
}

/* Keep the largest masses of x [n] that together reach `share`, and set the others to 0; room holds a copy of x. */
static void nucleus(float *x, float *room, int64_t n, float share) {
    /* The least mass kept, by halving: the masses above it are added up at every turn. */
    int64_t low = 0, high = n;
    float reached = 0;
    while (high - low > 1) {
        float pivot = room[low + (high - low) / 2], above = 0;
        int64_t i = low, j = high - 1;
        while (i <= j) {
            while (room[i] > pivot) i++;
            while (room[j] < pivot) j--;
            if (i <= j) {
                float t = room[i];
                room[i++] = room[j], room[j--] = t;
            }
        }
        /* low .. j are at least the pivot, i .. high - 1 at most */
        int64_t cut = i < high ? i : j + 1;
        if (cut <= low) cut = low + 1;
        for (int64_t a = low; a < cut; a++) above += room[a];
        if (reached + above >= share) high = cut;
        else reached += above, low = cut;
    }
    float least = room[low];
    int64_t ties = 1;
    for (int64_t a = 0; a < low; a++) ties += room[a] == least;
    for (int64_t a = 0; a < n; a++)
        if (x[a] < least || (x[a] == least && ties-- <= 0)) x[a] = 0;
}

/* -- the kernels ------------------------------------------------------------------------------------------------ */

#define VL 4
#define NV 2
#define NAME(x) x##_base
#include "kernels.inc"
#undef VL
#undef NV
#undef NAME

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE 1
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#define VL 8
#define NV 2
#define NAME(x) x##_avx2
#include "kernels.inc"
#undef VL
#undef NV
#undef NAME
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2")
#define VL 16
#define NV 4
#define NAME(x) x##_avx512
#include "kernels.inc"
#undef VL
#undef NV
#undef NAME
#pragma GCC pop_options

#if defined(__linux__) && __GNUC__ >= 11
#define AMX 1
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2")
#define VL 16
#define NV 4
#define TILES 1
#define NAME(x) x##_amx
#include "kernels.inc"
#undef VL
#undef NV
#undef TILES
#undef NAME
#pragma GCC pop_options
#endif
#endif

/* -- which of them ---------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    const kernels_t *kernels;
    int (*there)(void);
} choice_t;

static int always(void) { return 1; }

#ifdef WIDE
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

#ifdef AMX
/* The processor has them, and the system lets this process use their registers. */
static int has_amx(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d, tiles = 1u << 22 | 1u << 24;
    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tiles) != tiles) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & 1u << 5)) return 0;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#endif

static const choice_t choices[] = { /* the fastest first; amx multiplies by parts of 16 bits */
#ifdef AMX
    {"amx", &kernels_amx, has_amx},
#endif
#ifdef WIDE
    {"avx512", &kernels_avx512, has_avx512},
    {"avx2", &kernels_avx2, has_avx2},
#endif
    {"base", &kernels_base, always},
};

static const choice_t *chosen[2]; /* for products of float32 as they are, and for those by parts of 16 bits */

/* Choose the kernels by name ("amx", "avx512", "avx2", "base"); NULL takes the best. Returns whether they are there. */
API int ancestral_choose(const char *name) {
#ifdef WIDE
    __builtin_cpu_init();
#endif
    const choice_t *found[2] = {NULL, NULL};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const choice_t *c = choices + i;
        if ((name && strcmp(name, c->name)) || !c->there()) continue;
        if (!found[1]) found[1] = c;
        if (!found[0] && (name || strcmp(c->name, "amx"))) found[0] = c;
    }
    if (!found[0]) return 0;
    chosen[0] = found[0], chosen[1] = found[1];
    return 1;
}

API const char *ancestral_chosen(int parts) { return chosen[!!parts] ? chosen[!!parts]->name : ""; }

/* Sizes of the structures, `count` at most, so that a library of another version is refused. */
API void ancestral_sizes(int64_t *out, int64_t count) {
    const int64_t sizes[] = {sizeof(matrix_t), sizeof(norm_t), sizeof(block_t),  sizeof(stack_t),  sizeof(store_t),
                             sizeof(pass_t),   sizeof(draw_t), sizeof(column_t), sizeof(columns_t)};
    const int64_t all = sizeof sizes / sizeof *sizes;
    memcpy(out, sizes, (count < all ? count : all) * sizeof *sizes);
}

typedef struct {
    const kernels_t *kernels;
    const matrix_t *matrix;
    const stack_t *stack;
    const store_t *store;
    const pass_t *pass;
    draw_t *draw;
    const columns_t *columns;
    const float *x;
    float *y;
    int64_t rows, done;
    char *room;
} call_t;

static void do_linear(void *argument, team_t *team, int member, int members) {
    call_t *c = argument;
    c->kernels->linear(c->matrix, c->x, c->y, c->rows, c->room, team, member, members);
}

static void do_pass(void *argument, team_t *team, int member, int members) {
    call_t *c = argument;
    c->kernels->pass(c->stack, c->store, c->pass, c->room, team, member, members);
}

static void do_draw(void *argument, team_t *team, int member, int members) {
    call_t *c = argument;
    c->kernels->draw(c->draw, &c->done, c->room, team, member, members);
}

static void do_columns(void *argument, team_t *team, int member, int members) {
    call_t *c = argument;
    (void)team;
    c->kernels->columns(c->columns, c->room, member, members);
}

/* In all calls `parts` says that a product of float32 may be one of their parts of 16 bits.
   y [rows, matrix.rows] = x [rows, matrix.cols] matrix^T + bias. Returns 0, or -1 without memory. */
API int64_t ancestral_linear(const matrix_t *matrix, const float *x, float *y, int64_t rows, int threads, int parts) {
    call_t c = {.kernels = chosen[!!parts]->kernels, .matrix = matrix, .x = x, .y = y, .rows = rows};
    if (!(c.room = room_of(c.kernels->room_linear(matrix, rows, threads)))) return -1;
    together(do_linear, &c, threads);
    return 0;
}

/* One pass over rows. Returns 0, or -1 without memory. */
API int64_t ancestral_pass(const stack_t *stack, const store_t *store, const pass_t *pass, int threads, int parts) {
    call_t c = {.kernels = chosen[!!parts]->kernels, .stack = stack, .store = store, .pass = pass};
    if (!(c.room = room_of(c.kernels->room(stack, store->capacity, pass->rows, threads)))) return -1;
    together(do_pass, &c, threads);
    return 0;
}

/* Draw values. Returns the number of places drawn, or -1 without memory. */
API int64_t ancestral_draw(draw_t *draw, int threads, int parts) {
    call_t c = {.kernels = chosen[!!parts]->kernels, .draw = draw};
    if (!(c.room = room_of(c.kernels->room_draw(draw, threads)))) return -1;
    together(do_draw, &c, threads);
    return c.done;
}

/* Draw the rows of a table. Returns the number of steps, or -1 without memory. */
API int64_t ancestral_columns(const columns_t *columns, int threads) {
    call_t c = {.kernels = chosen[0]->kernels, .columns = columns};
    if (!(c.room = room_of(c.kernels->room_columns(columns, threads)))) return -1;
    together(do_columns, &c, threads);
    return columns->steps;
}
