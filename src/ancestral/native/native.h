/* What the kernels work on. Matrices are [rows, cols] as in torch.nn.Linear, all buffers float32. */
#ifndef ANCESTRAL_NATIVE_H
#define ANCESTRAL_NATIVE_H

#include <stdint.h>

enum { PLAIN = 1, INT8 = 2, INT4 = 3 };
enum { NO_TURN = 0, PAIRS = 1, HALVES = 2 };
enum { LANES = 16 };         /* rows of a batch are padded to a multiple of this */
enum { FEW = 12 };           /* rows that are multiplied one beside the other rather than in lanes */
enum { FAR = 2048 };         /* bytes of weights asked for ahead of time */
enum { STREAMS = 4 };        /* places that a matrix is read at in turn */
enum { BESIDE = 8 };          /* heads of keys and values that are read at once */
enum { NEAR = 32 * 1024 };   /* bytes of the nearest cache that a product may fill */

typedef struct {
    const void *weight;  /* float [rows, cols]; int8 [rows, stride]; two int4 in a byte [rows, stride] */
    const void *scale;   /* float or, if half, float16 [rows, ceil(cols / group)] */
    const float *bias;   /* [rows] or NULL */
    const void *least;   /* like scale, what the lowest code stands for; or NULL: zero is what code 0 stands for */
    int64_t rows, cols;
    int64_t stride;      /* bytes from row to row of quantised weights */
    int32_t kind, group; /* group: a multiple of 32, columns that share a scale */
    int32_t half, unused;
} matrix_t;

typedef struct {
    const float *weight, *bias; /* bias: NULL for a root-mean-square norm */
    float eps;
    int32_t centred; /* subtract the mean (LayerNorm) */
} norm_t;

typedef struct {
    norm_t before, between;
    matrix_t qkv, out, inner, outer;
} block_t;

typedef struct {
    int64_t width, depth, heads, groups, head, hidden;
    int32_t turning; /* NO_TURN, PAIRS, HALVES */
    int32_t gated;   /* SwiGLU rather than GELU (tanh) */
    const block_t *blocks;
    norm_t last;
} stack_t;

typedef struct {
    float **keys, **values; /* per layer [items, groups, capacity, head] */
    int64_t capacity;
} store_t;

/* One pass: rows stand for places of items. A row's key and value go to slot (none if negative), and it sees the
   first `seen` slots of its item, after all rows have stored theirs. */
typedef struct {
    int64_t rows;
    const int64_t *item, *slot, *seen;
    const float *turn;      /* table [., head / 2, 2] of cosines and sines, or NULL */
    const int64_t *turn_at; /* row of the table; negative: zero */
    const float *inputs;    /* [rows, width] */
    float *features;        /* [rows, width] */
} pass_t;

/* Drawing one value after the other. */
typedef struct {
    int64_t batch, sites, places; /* places: of the order, from `place` on `steps` are drawn */
    int64_t place, steps;
    const int64_t *order; /* sites by place: [places], or [batch, places] */
    int32_t own_order;
    int32_t categories;
    int64_t *values;          /* [batch, sites] */
    matrix_t embed, head;
    const int64_t *offset;    /* first row of the embedding per site, or NULL */
    const float *source, *target; /* [sites, width], or NULL */
    const float *told;        /* [batch, width], or NULL */
    const float *head_bias;   /* [sites, categories], or NULL */
    const float *turn;        /* [sites, head / 2, 2] or NULL */
    int32_t turn_source;      /* turned by the site before, the first not at all */
    const int64_t *seeds;     /* [batch] */
    int64_t counter;
    float temperature, min_p, top_p; /* 0: not used (temperature 0: the most probable value) */
    int64_t top_k;
    int64_t stop;             /* symbol that ends and pads, or -1 */
    const int64_t *ends;      /* symbols that end a stream */
    int64_t n_ends;
    int8_t *ended;            /* [batch], behind the stop symbol */
    int8_t *over;             /* [batch], an ending symbol was drawn */
    const stack_t *stack;
    const store_t *store;
    float *logits;            /* room [batch, categories] */
} draw_t;

/* A column of a table, or one of the sites that it is drawn by, coarse to fine. */
typedef struct {
    int64_t site, given;         /* given: its values are there already */
    int64_t categories, padded;  /* padded: columns of the head, a multiple of LANES */
    const float *spoken;         /* [categories, sums], what a value adds to the running sum, or NULL */
    const float *place;          /* [sums] */
    const float *enter, *enter_bias; /* [sums, width], [width] */
    const float *inner, *inner_bias; /* [depth, width, width], [depth, width] */
    const float *head, *head_bias;   /* [width, padded], [padded], -inf behind the categories */
    const double *edges;         /* of a counted site instead: cumulated shares [., categories], or NULL */
    int64_t coarse, unknown;     /* site whose value is the row of edges, or -1: row `unknown` */
    int64_t entry, entries;      /* site whose entry is known, or -1 */
    const int64_t *spelled;      /* [unknown * entries], the digit of a listed value, or -1 */
    const float *profile;        /* [., sums], added once this site's value is there, or NULL */
    int64_t first, second, seconds; /* its row: values of site `first` * seconds + those of site `second` */
} column_t;

/* Drawing the columns of a table one after the other, each by layers of its own on a sum of what is known. */
typedef struct {
    int64_t batch, sites, steps;
    int64_t sums, width, depth; /* width: a multiple of LANES */
    const column_t *columns;    /* [steps], in the order in which they are drawn */
    int64_t *values;            /* [batch, sites] */
    const float *told;          /* [batch, sums], or NULL */
    const int64_t *seeds;       /* [batch] */
    int64_t counter;
} columns_t;

typedef struct team team_t;
void team_meet(team_t *team, int member);
/* The next of so many units of work, or -1 if all are taken: those of the member's own share, and then of the others'.
   To be called until it says so, for one number of units between two meetings. */
int64_t team_claim(team_t *team, int member, int64_t units);

typedef struct {
    int64_t (*room_linear)(const matrix_t *, int64_t rows, int64_t members);
    void (*linear)(const matrix_t *, const float *, float *, int64_t rows, char *, team_t *, int member, int members);
    int64_t (*room)(const stack_t *, int64_t capacity, int64_t rows, int64_t members);
    void (*pass)(const stack_t *, const store_t *, const pass_t *, char *, team_t *, int member, int members);
    int64_t (*room_draw)(const draw_t *, int64_t members);
    void (*draw)(draw_t *, int64_t *done, char *, team_t *, int member, int members);
    int64_t (*room_columns)(const columns_t *, int64_t members);
    void (*columns)(const columns_t *, char *, int member, int members);
} kernels_t;

#endif
