/* A layer of splines, forward and backward, with the rows bucketed by their cell.

   Within a cell every edge is one polynomial in the cell coordinate u. For an input and a cell, the
   coefficients of a few vectors of outputs stay in registers while all rows of that cell run; the backward
   pass collects the moments sum u^p gy instead and turns them into weight gradients once, at the end of
   the cell. No feature is ever stored.

   The weights are rows of `out` numbers: C = size + ORDER splines for each input, then (with a base) one
   row of SiLU for each input.

   -DORDER=k -DTABLE={..}: row r holds the coefficients of the r-th basis of a cell (from the caller, so
   that there is one source of them). */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#if LANES == 16
#define WIDEST (ORDER < 5 ? 4 : 3)
#else
#define WIDEST (ORDER < 5 ? 2 : 1)
#endif
#define ROWS 1024        /* at most so many rows a chunk */
#define CHUNK_BYTES 131072 /* of outputs a chunk, to stay in the second cache */
#define ACROSS 16 /* inputs that are turned at once, a cache line */
#define COPIES 4 /* of moments, so that rows of one cell do not wait for each other */
#define DEGREES (ORDER + 1)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef struct {
  int32_t id[ROWS];
  float u[ORDER][ROWS]; /* u, u^2, .. */
  float silu[ROWS], slope[ROWS];
  uint16_t row[ROWS];
  float sum[ROWS][LANES];
  float x[ACROSS][ROWS], out[ACROSS][ROWS];
} Rows;

typedef struct {
  int64_t in, out, size, base, policy;
} Shape;
typedef struct {
  int64_t rows, in, out, size, base, policy;
  const double *lo, *hi;
} Layer;
#define LAYER (Layer){rows, s->in, s->out, s->size, s->base, s->policy, lo, hi}

static const float STANDARD[DEGREES][DEGREES] = TABLE;
enum { ZERO, CLAMP, LINEAR };

/* Cells by number: 0 holds the rows for which all splines are 0, then come -ORDER .. size + ORDER - 1, and
   two in which the splines are held constant or continued in a straight line. */
INLINE int64_t cells_of(int64_t size) { return size + 2 * ORDER + 3; }

typedef struct {
  int64_t first; /* its first spline, perhaps below 0 */
  int edge;      /* 0 or 1: continued below or above the grid; -1: an ordinary cell */
} Cell;

INLINE Cell cell_of(int64_t id, int64_t size) {
  if (id == 0) return (Cell){-DEGREES, -1};
  if (id == size + 2 * ORDER + 1) return (Cell){0, 0};
  if (id == size + 2 * ORDER + 2) return (Cell){size - 1, 1};
  return (Cell){id - ORDER - 1, -1};
}

/* How splines continue beyond either end: their value there, and their slope where the policy is LINEAR. */
typedef float Ends[2][DEGREES][DEGREES];
static void continue_ends(Ends ends, int64_t policy) {
  memset(ends, 0, sizeof(Ends));
  for (int r = 0; r < DEGREES; r++) {
    ends[0][r][0] = STANDARD[r][0];
    for (int p = 0; p < DEGREES; p++) ends[1][r][0] += STANDARD[r][p];
    if (policy != LINEAR) continue;
    ends[0][r][1] = STANDARD[r][1];
    for (int p = 1; p < DEGREES; p++) ends[1][r][1] += p * STANDARD[r][p];
  }
}

/* exp to a few units in the last place, in a form that vectorises. */
INLINE float exponential(float x) {
  x = x > 88.f ? 88.f : x;
  x = x < -87.f ? -87.f : x;
  float r = rintf(x * 1.44269504f);
  float f = (x - r * 0.693145752f) - r * 1.42860677e-6f;
  float p = 1 + f * (1 + f * (.5f + f * (.166666667f + f * (.0416666667f + f * (.00833333f + f * .00138889f)))));
  union { uint32_t i; float f; } power = {((uint32_t)(int32_t)(r == r ? r : 0) + 127u) << 23};
  return p * power.f;
}

/* A float that any float is below exactly if it is below `edge`, and likewise above. */
static float at_least(double edge) { float f = (float)edge; return f < edge ? nextafterf(f, INFINITY) : f; }
static float at_most(double edge) { float f = (float)edge; return f > edge ? nextafterf(f, -INFINITY) : f; }

/* Columns i .. i + many - 1 of a chunk, each in one piece. */
static void transpose(Rows *restrict w, int64_t m, const float *restrict x, int64_t in, int64_t many) {
  if (many == ACROSS) {
    for (int64_t n = 0; n < m; n++)
      for (int64_t k = 0; k < ACROSS; k++) w->x[k][n] = x[n * in + k];
    return;
  }
  for (int64_t k = 0; k < many; k++)
    for (int64_t n = 0; n < m; n++) w->x[k][n] = x[n * in + k];
}

/* Cell and coordinate of every row for one input. The coordinate is rounded once: t is a double. */
INLINE void place(const int policy, Rows *restrict w, int64_t m, const float *restrict x, double lo, double inverse,
                  double size) {
  /* Only doubles and no branch until the end: it vectorises. */
  const double bottom = -DEGREES, top = size + ORDER, below = size + 2 * ORDER + 1, above = below + 1;
  for (int64_t n = 0; n < m; n++) {
    double t = ((double)x[n] - lo) * inverse;
    double held = t < bottom ? bottom : t;
    held = held > top ? top : held;
    double from = floor(t == t ? held : 0.), id, shift;
    if (policy == ZERO) {
      from = from >= top ? bottom : from;
      id = from + DEGREES;
      shift = from == bottom ? t : from;
      shift = shift == shift ? shift : 0.;
    } else {
      /* The upper end itself belongs to the last cell, with u = 1. */
      double last = size - 1;
      id = from > last ? last + DEGREES : from + DEGREES;
      id = t > size ? above : id;
      id = from < 0. ? below : id;
      shift = from > last ? last : from;
      shift = t > size ? size : shift;
      shift = from < 0. ? 0. : shift;
    }
    w->id[n] = (int32_t)id;
    w->u[0][n] = (float)(t - shift);
  }
}

/* Everything of one input that does not depend on outputs: cell, powers of u, SiLU and its slope. */
static void features(Rows *restrict w, int64_t m, const Layer *l, int64_t i, int64_t *counts) {
  const float *restrict x = w->x[i % ACROSS];
  const double inverse = l->size / (l->hi[i] - l->lo[i]);
  if (l->policy == ZERO) place(ZERO, w, m, x, l->lo[i], inverse, (double)l->size);
  else place(CLAMP, w, m, x, l->lo[i], inverse, (double)l->size);
  for (int p = 1; p < ORDER; p++)
    for (int64_t n = 0; n < m; n++) w->u[p][n] = w->u[p - 1][n] * w->u[0][n];
  if (!l->base) memset(w->silu, 0, sizeof w->silu), memset(w->slope, 0, sizeof w->slope);
  else
    for (int64_t n = 0; n < m; n++) {
      float gate = 1 / (1 + exponential(-x[n]));
      w->silu[n] = x[n] * gate;
      w->slope[n] = gate * (1 + x[n] * (1 - gate));
    }
  const float low = at_least(l->lo[i]), high = at_most(l->hi[i]);
  int32_t outside = 0, wrong = 0;
  for (int64_t n = 0; n < m; n++) outside += (x[n] < low) | (x[n] > high);
  for (int64_t n = 0; n < m; n++) wrong += !(fabsf(x[n]) <= FLT_MAX);
  counts[0] += outside;
  counts[1] += wrong;
}

INLINE int64_t across(int64_t left) { return left < ACROSS ? left : ACROSS; }

/* Row numbers ordered by cell: those of cell c are row[start[c]] .. row[start[c + 1] - 1]. */
static void sort_rows(Rows *restrict w, int64_t m, int64_t cells, int32_t *restrict start) {
  memset(start, 0, sizeof(int32_t) * (cells + 2));
  int32_t *next = start + 1;
  for (int64_t n = 0; n < m; n++) next[w->id[n] + 1]++;
  for (int64_t c = 0; c < cells; c++) next[c + 1] += next[c];
  for (int64_t n = 0; n < m; n++) w->row[next[w->id[n]]++] = (uint16_t)n;
}

/* The coefficients of a cell's polynomial from its DEGREES splines, of a vector of outputs. */
INLINE void coefficients(const vec *spline, vec *P, const float (*ends)[DEGREES]) {
  const vec none = {0};
  if (ends) {
    for (int p = 0; p < DEGREES; p++) {
      P[p] = none;
      for (int r = 0; r < DEGREES; r++) P[p] += spline[r] * ends[r][p];
    }
    return;
  }
  UNROLL for (int p = 0; p < DEGREES; p++) {
    P[p] = none;
    UNROLL for (int r = 0; r < DEGREES; r++)
      if (STANDARD[r][p] != 0) P[p] += spline[r] * STANDARD[r][p];
  }
}

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void load_polynomial(const float *W, int64_t stride, Cell cell, int64_t bases, Ends ends, vec *P) {
  vec spline[DEGREES];
  const vec none = {0};
  UNROLL for (int r = 0; r < DEGREES; r++)
    spline[r] = (uint64_t)(cell.first + r) < (uint64_t)bases ? load(W + (cell.first + r) * stride) : none;
  coefficients(spline, P, cell.edge < 0 ? 0 : (const float(*)[DEGREES])ends[cell.edge]);
}

#define BLOCK const Rows *restrict w, const uint16_t *restrict list, int64_t many, const float *restrict W, \
  const float *restrict base, int64_t stride, Cell cell, int64_t bases, Ends ends

INLINE void forward_block(const int V, BLOCK, float *restrict Y) {
  vec P[DEGREES][V], B[V];
  const vec none = {0};
  UNROLL for (int v = 0; v < V; v++) {
    vec own[DEGREES];
    load_polynomial(W + LANES * v, stride, cell, bases, ends, own);
    UNROLL for (int p = 0; p < DEGREES; p++) P[p][v] = own[p];
    B[v] = base ? load(base + LANES * v) : none;
  }
  for (int64_t a = 0; a < many; a++) {
    int n = list[a];
    float *y = Y + n * stride, u = w->u[0][n], s = w->silu[n];
    UNROLL for (int v = 0; v < V; v++) {
      vec t = P[ORDER][v];
      UNROLL for (int p = ORDER - 1; p >= 0; p--) t = t * u + P[p][v];
      *(vec *)(y + LANES * v) += t + B[v] * s;
    }
  }
}

/* Rows' derivative in x, summed over a block of outputs lane by lane. */
INLINE void slope_block(const int V, BLOCK, const float *restrict G, float inverse, int first, vec *restrict sum) {
  vec D[DEGREES][V];
  const vec none = {0};
  UNROLL for (int v = 0; v < V; v++) {
    vec own[DEGREES];
    load_polynomial(W + LANES * v, stride, cell, bases, ends, own);
    UNROLL for (int p = 1; p < DEGREES; p++) D[p - 1][v] = own[p] * (p * inverse);
    D[ORDER][v] = base ? load(base + LANES * v) : none;
  }
  for (int64_t a = 0; a < many; a++) {
    int n = list[a];
    const float *g = G + n * stride, u = w->u[0][n], s = w->slope[n];
    vec t = none;
    UNROLL for (int v = 0; v < V; v++) {
      vec d = D[ORDER - 1][v];
      UNROLL for (int p = ORDER - 2; p >= 0; p--) d = d * u + D[p][v];
      t += load(g + LANES * v) * (D[ORDER][v] * s + d);
    }
    sum[n] = first ? t : sum[n] + t;
  }
}

INLINE void weight_block(const int V, BLOCK, const float *restrict G, float *restrict gW, float *restrict gbase) {
  vec M[DEGREES][V], S[V];
  const vec none = {0};
  UNROLL for (int v = 0; v < V; v++) {
    S[v] = none;
    UNROLL for (int p = 0; p < DEGREES; p++) M[p][v] = none;
  }
  for (int64_t a = 0; a < many; a++) {
    int n = list[a];
    const float *g = G + n * stride, s = w->silu[n];
    UNROLL for (int v = 0; v < V; v++) {
      vec y = load(g + LANES * v);
      M[0][v] += y;
      UNROLL for (int p = 1; p < DEGREES; p++) M[p][v] += y * w->u[p - 1][n];
      S[v] += y * s;
    }
  }
  UNROLL for (int v = 0; v < V; v++) {
    UNROLL for (int r = 0; r < DEGREES; r++) {
      if ((uint64_t)(cell.first + r) >= (uint64_t)bases) continue;
      vec q = none;
      if (cell.edge < 0) {
        UNROLL for (int p = 0; p < DEGREES; p++)
          if (STANDARD[r][p] != 0) q += M[p][v] * STANDARD[r][p];
      } else {
        UNROLL for (int p = 0; p < DEGREES; p++) q += M[p][v] * ends[cell.edge][r][p];
      }
      *(vec *)(gW + (cell.first + r) * stride + LANES * v) += q;
    }
    if (gbase) *(vec *)(gbase + LANES * v) += S[v];
  }
}

#define GIVEN w, list, many, W + o, base ? base + o : 0, stride, cell, bases, ends
/* All outputs of one cell, the widest blocks first. */
#define BLOCKS(call)                                                     \
  int64_t o = 0;                                                         \
  for (; o + LANES * WIDEST <= stride; o += LANES * WIDEST) call(WIDEST); \
  if (WIDEST > 2 && o + LANES * 2 <= stride) {                           \
    call(2);                                                             \
    o += LANES * 2;                                                      \
  }                                                                      \
  for (; o < stride; o += LANES) call(1);

static __attribute__((noinline)) void forward_cell(BLOCK, float *Y) {
#define CALL(V) forward_block(V, GIVEN, Y + o)
  BLOCKS(CALL)
#undef CALL
}
static __attribute__((noinline)) void slope_cell(BLOCK, const float *G, float inverse, vec *sum) {
#define CALL(V) slope_block(V, GIVEN, G + o, inverse, o == 0, sum)
  BLOCKS(CALL)
#undef CALL
}
static __attribute__((noinline)) void weight_cell(BLOCK, const float *G, float *gW, float *gbase) {
#define CALL(V) weight_block(V, GIVEN, G + o, gW + o, gbase ? gbase + o : 0)
  BLOCKS(CALL)
#undef CALL
}

/* Workspace: rows of a chunk, starts of cells, a padded chunk of outputs, padded weights, their gradient. */
INLINE int64_t padded(int64_t out) { return (out + LANES - 1) / LANES * LANES; }
INLINE int64_t lines(const Layer *l) { return l->in * (l->size + ORDER + (l->base ? 1 : 0)); }
INLINE int64_t whole(int64_t floats) { return (floats + 15) / 16 * 16; }
INLINE int64_t chunk_of(int64_t width) {
  int64_t rows = CHUNK_BYTES / (4 * width);
  return rows > ROWS ? ROWS : rows < 64 ? 64 : rows;
}
typedef struct { Rows *rows; int32_t *start; float *Y, *W, *gW, *P, *M; } Work;

static int64_t divide(const Layer *l, int backward, float *at, Work *work) {
  int64_t width = padded(l->out), used = 0, one = l->out == 1, pad = !one && width != l->out;
  int64_t tables = one ? whole(cells_of(l->size) * DEGREES) : 0;
  int64_t sizes[7] = {whole(sizeof(Rows) / 4), whole(cells_of(l->size) + 2), pad ? chunk_of(width) * width : 0,
                      pad ? lines(l) * width : 0, pad && backward ? lines(l) * width : 0,
                      tables, backward ? COPIES * tables : 0};
  float *places[7];
  for (int k = 0; k < 7; k++) { places[k] = at + used; used += sizes[k]; }
  if (work) *work = (Work){(Rows *)places[0], (int32_t *)places[1], places[2], places[3], places[4], places[5], places[6]};
  return used;
}
int64_t kan_floats(const Shape *s, int backward) {
  const int64_t rows = 0;
  const double *lo = 0, *hi = 0;
  return divide(&LAYER, backward, 0, 0);
}

static void widen(float *to, int64_t width, const float *from, int64_t out, int64_t many) {
  for (int64_t r = 0; r < many; r++) {
    memcpy(to + r * width, from + r * out, 4 * out);
    memset(to + r * width + out, 0, 4 * (width - out));
  }
}
static void narrow(float *to, int64_t out, const float *from, int64_t width, int64_t many) {
  for (int64_t r = 0; r < many; r++) memcpy(to + r * out, from + r * width, 4 * out);
}

/* One output: each row looks up the coefficients of its cell, which lie side by side: gathers would be slower. */
static void tabulate(const Layer *l, const float *spline, Ends ends, float *P) {
  const int64_t cells = cells_of(l->size), C = l->size + ORDER;
  memset(P, 0, 4 * DEGREES * cells);
  for (int64_t c = 1; c < cells; c++) {
    Cell cell = cell_of(c, l->size);
    for (int r = 0; r < DEGREES; r++) {
      if ((uint64_t)(cell.first + r) >= (uint64_t)C) continue;
      const float *A = cell.edge < 0 ? STANDARD[r] : ends[cell.edge][r];
      for (int p = 0; p < DEGREES; p++) P[c * DEGREES + p] += spline[cell.first + r] * A[p];
    }
  }
}

static void forward_one(const Rows *restrict w, int64_t m, const float *restrict P, float base, float *restrict y) {
  for (int64_t n = 0; n < m; n++) {
    const float *own = P + (int64_t)w->id[n] * DEGREES, u = w->u[0][n];
    float t = own[ORDER];
    UNROLL for (int p = ORDER - 1; p >= 0; p--) t = t * u + own[p];
    y[n] += t + base * w->silu[n];
  }
}

/* Returns the gradient of the base weight. */
static float slope_one(const Rows *restrict w, int64_t m, const float *restrict P, float base, float inverse,
                       const float *restrict g, float *restrict to) {
  float silu = 0;
  for (int64_t n = 0; n < m; n++) {
    const float *own = P + (int64_t)w->id[n] * DEGREES, u = w->u[0][n];
    float d = ORDER * own[ORDER];
    UNROLL for (int p = ORDER - 1; p >= 1; p--) d = d * u + p * own[p];
    to[n] = g[n] * (d * inverse + base * w->slope[n]);
    silu += g[n] * w->silu[n];
  }
  return silu;
}

static void weights_one(const Layer *l, const Rows *restrict w, int64_t m, Ends ends, const float *restrict g,
                        float *restrict M, float *restrict gspline) {
  const int64_t cells = cells_of(l->size), C = l->size + ORDER;
  memset(M, 0, 4 * COPIES * cells * DEGREES);
  for (int64_t n = 0; n < m; n++) {
    float *at = M + ((n % COPIES) * cells + w->id[n]) * DEGREES;
    at[0] += g[n];
    UNROLL for (int p = 1; p < DEGREES; p++) at[p] += g[n] * w->u[p - 1][n];
  }
  for (int64_t c = 1; c < cells; c++) {
    Cell cell = cell_of(c, l->size);
    float moment[DEGREES] = {0};
    for (int k = 0; k < COPIES; k++)
      for (int p = 0; p < DEGREES; p++) moment[p] += M[(k * cells + c) * DEGREES + p];
    for (int r = 0; r < DEGREES; r++) {
      if ((uint64_t)(cell.first + r) >= (uint64_t)C) continue;
      const float *A = cell.edge < 0 ? STANDARD[r] : ends[cell.edge][r];
      for (int p = 0; p < DEGREES; p++) gspline[cell.first + r] += moment[p] * A[p];
    }
  }
}

/* counts[0] += inputs outside their grid, counts[1] += inputs that are not finite. */
void kan_forward(const Shape *s, int64_t rows, const double *lo, const double *hi, const float *x, const float *weight,
                 float *y, float *space, int64_t *counts) {
  const Layer layer = LAYER, *l = &layer;
  Work work;
  divide(l, 0, space, &work);
  Ends ends;
  continue_ends(ends, l->policy);
  const int one = l->out == 1;
  const int64_t width = one ? 1 : padded(l->out), C = l->size + ORDER, cells = cells_of(l->size), chunk = chunk_of(width);
  const float *W = weight;
  if (width != l->out) { widen(work.W, width, weight, l->out, lines(l)); W = work.W; }
  for (int64_t n0 = 0; n0 < l->rows; n0 += chunk) {
    int64_t m = l->rows - n0 < chunk ? l->rows - n0 : chunk;
    float *Y = width == l->out ? y + n0 * width : work.Y;
    memset(Y, 0, 4 * m * width);
    for (int64_t i = 0; i < l->in; i++) {
      if (i % ACROSS == 0) transpose(work.rows, m, x + n0 * l->in + i, l->in, across(l->in - i));
      features(work.rows, m, l, i, counts);
      if (one) {
        tabulate(l, W + i * C, ends, work.P);
        forward_one(work.rows, m, work.P, l->base ? W[l->in * C + i] : 0, Y);
        continue;
      }
      sort_rows(work.rows, m, cells, work.start);
      const float *spline = W + i * C * width, *base = l->base ? W + (l->in * C + i) * width : 0;
      for (int64_t c = 0; c < cells; c++) {
        int64_t many = work.start[c + 1] - work.start[c];
        if (!many || (c == 0 && !base)) continue;
        Cell cell = cell_of(c, l->size);
        const uint16_t *list = work.rows->row + work.start[c];
        forward_cell(work.rows, list, many, spline, base, width, cell, C, ends, Y);
      }
    }
    if (width != l->out) narrow(y + n0 * l->out, l->out, Y, width, m);
  }
}

/* The sums over lanes of all rows, by halving so that it vectorises. */
static void reduce(Rows *restrict w, int64_t m, float *restrict to) {
  for (int64_t n = 0; n < m; n++) {
    float *restrict s = w->sum[n];
    float t = 0;
    for (int k = 0; k < LANES; k++) t += s[k];
    to[n] = t;
  }
}

/* Once a cache line's worth of columns is there. */
static void turn_back(const Rows *restrict w, int64_t m, float *restrict gx, int64_t in, int64_t i) {
  if (i % ACROSS != ACROSS - 1 && i != in - 1) return;
  const int64_t many = i % ACROSS + 1;
  gx += i - i % ACROSS;
  for (int64_t n = 0; n < m; n++)
    for (int64_t k = 0; k < many; k++) gx[n * in + k] = w->out[k][n];
}

/* gx or gW may be NULL where it is not wanted. */
void kan_backward(const Shape *s, int64_t rows, const double *lo, const double *hi, const float *x, const float *weight,
                  const float *gy, float *gx, float *gweight, float *space) {
  const Layer layer = LAYER, *l = &layer;
  Work work;
  divide(l, 1, space, &work);
  Ends ends;
  continue_ends(ends, l->policy);
  const int one = l->out == 1;
  const int64_t width = one ? 1 : padded(l->out), C = l->size + ORDER, cells = cells_of(l->size), chunk = chunk_of(width);
  int64_t counts[2] = {0, 0};
  const float *W = weight;
  float *gW = gweight;
  if (width != l->out) {
    widen(work.W, width, weight, l->out, lines(l));
    W = work.W;
    gW = gweight ? work.gW : 0;
  }
  if (gW) memset(gW, 0, 4 * lines(l) * width);
  vec *sum = (vec *)work.rows->sum;
  for (int64_t n0 = 0; n0 < l->rows; n0 += chunk) {
    int64_t m = l->rows - n0 < chunk ? l->rows - n0 : chunk;
    const float *G = gy + n0 * width;
    if (width != l->out) { widen(work.Y, width, gy + n0 * l->out, l->out, m); G = work.Y; }
    for (int64_t i = 0; i < l->in; i++) {
      const float inverse = (float)(l->size / (l->hi[i] - l->lo[i]));
      if (i % ACROSS == 0) transpose(work.rows, m, x + n0 * l->in + i, l->in, across(l->in - i));
      features(work.rows, m, l, i, counts);
      float *column = work.rows->out[i % ACROSS];
      if (one) {
        tabulate(l, W + i * C, ends, work.P);
        float silu = slope_one(work.rows, m, work.P, l->base ? W[l->in * C + i] : 0, inverse, G, column);
        if (gW) weights_one(l, work.rows, m, ends, G, work.M, gW + i * C);
        if (gW && l->base) gW[l->in * C + i] += silu;
        if (gx) turn_back(work.rows, m, gx + n0 * l->in, l->in, i);
        continue;
      }
      sort_rows(work.rows, m, cells, work.start);
      /* The first block of a cell writes its rows' sums; without a base the dead have no block. */
      if (gx && !l->base) memset(sum, 0, 4 * LANES * m);
      const float *spline = W + i * C * width, *base = l->base ? W + (l->in * C + i) * width : 0;
      float *gspline = gW ? gW + i * C * width : 0, *gbase = gW && base ? gW + (l->in * C + i) * width : 0;
      for (int64_t c = 0; c < cells; c++) {
        int64_t many = work.start[c + 1] - work.start[c];
        if (!many || (c == 0 && !base)) continue;
        Cell cell = cell_of(c, l->size);
        const uint16_t *list = work.rows->row + work.start[c];
        if (gx) slope_cell(work.rows, list, many, spline, base, width, cell, C, ends, G, inverse, sum);
        if (gW) weight_cell(work.rows, list, many, spline, base, width, cell, C, ends, G, gspline, gbase);
      }
      if (gx) {
        reduce(work.rows, m, column);
        turn_back(work.rows, m, gx + n0 * l->in, l->in, i);
      }
    }
  }
  if (gweight && width != l->out) narrow(gweight, l->out, gW, width, lines(l));
}
