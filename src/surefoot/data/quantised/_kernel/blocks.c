/* ggml's blocks of 32 weights as numbers, bitwise as torch computes them.

   A product of a float16 and at most 8 bits is exact in float32, and the one sum of Q4_1 is rounded once, fused
   or not: no order of operations can show. Results in bfloat16 are the float32 ones, rounded to nearest, ties to
   even, and NaN to one NaN. */
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#define INLINE static inline __attribute__((always_inline))
#define SIZE 32
#define HALF 16
#define TILE 2048 /* outputs whose scales are held as floats; shorter pieces of lines are slow to write */
enum { Q4_0, Q4_1, Q8_0 };

typedef uint16_t bf16;
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef int8_t chars __attribute__((vector_size(LANES)));
typedef uint16_t shorts __attribute__((vector_size(2 * LANES)));

INLINE float bits(uint32_t i) { union { uint32_t i; float f; } as = {i}; return as.f; }
INLINE uint32_t raw(float f) { union { float f; uint32_t i; } as = {f}; return as.i; }

/* A float16 as a float. Without branches and in normal numbers only, so that it vectorises and holds where the
   process flushes subnormal numbers to zero. */
INLINE float widened(uint16_t h) {
  const uint32_t w = (uint32_t)h << 16, sign = w & 0x80000000u, two = w + w;
  const float normal = bits((two >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float small = bits((two >> 17) | (126u << 23)) - 0.5f;
  return bits(sign | (two < (1u << 27) ? raw(small) : raw(normal)));
}

INLINE void put_float(vec x, float *to) { memcpy(to, &x, sizeof x); }

/* gcc 12 makes of __builtin_convertvector a store and a load for each number. */
#if defined(__AVX512F__)
INLINE ints unsigned_bytes(const uint8_t *q) { return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)q)); }
INLINE ints signed_bytes(const uint8_t *q) { return (ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)q)); }
INLINE void narrow(words w, bf16 *to) { _mm256_storeu_si256((void *)to, _mm512_cvtepi32_epi16((__m512i)w)); }
#elif defined(__AVX2__)
INLINE ints unsigned_bytes(const uint8_t *q) { return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)q)); }
INLINE ints signed_bytes(const uint8_t *q) { return (ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q)); }
INLINE void narrow(words w, bf16 *to) {
  const __m128i low = _mm256_castsi256_si128((__m256i)w), high = _mm256_extracti128_si256((__m256i)w, 1);
  _mm_storeu_si128((void *)to, _mm_packus_epi32(low, high));
}
#else
INLINE ints unsigned_bytes(const uint8_t *q) {
  bytes b;
  memcpy(&b, q, sizeof b);
  return __builtin_convertvector(b, ints);
}
INLINE ints signed_bytes(const uint8_t *q) {
  chars b;
  memcpy(&b, q, sizeof b);
  return __builtin_convertvector(b, ints);
}
INLINE void narrow(words w, bf16 *to) {
  const shorts each = __builtin_convertvector(w, shorts);
  memcpy(to, &each, sizeof each);
}
#endif

INLINE void put_bf16(vec x, bf16 *to) {
  const words i = (words)x, nan = (words)(x != x);
  narrow(((i + ((i >> 16) & 1) + 0x7FFF) >> 16 & ~nan) | (0x7FC0 & nan), to);
}

INLINE vec numbers(const int kind, ints q, vec d, vec m) {
  if (kind == Q4_0) q -= 8;
  vec x = __builtin_convertvector(q, vec) * d;
  return kind == Q4_1 ? x + m : x;
}
INLINE ints wide(const int kind, const uint8_t *q) { return kind == Q8_0 ? signed_bytes(q) : unsigned_bytes(q); }

/* One line of bytes: LANES at a time, the last of them again from where LANES of them end. */
#define LINE(T)                                                                                           \
  INLINE void line_##T(const int kind, int64_t n, const uint8_t *q, const float *d, const float *m, T *low, T *high) { \
    for (int64_t k = 0; k < n; k += LANES) {                                                              \
      const int64_t at = k + LANES <= n ? k : n - LANES;                                                  \
      vec scale, least = {};                                                                              \
      memcpy(&scale, d + at, sizeof scale);                                                               \
      if (kind == Q4_1) memcpy(&least, m + at, sizeof least);                                             \
      const ints b = wide(kind, q + at);                                                                  \
      if (kind == Q8_0) {                                                                                 \
        put_##T(numbers(kind, b, scale, least), low + at);                                                \
      } else {                                                                                            \
        put_##T(numbers(kind, b & 15, scale, least), low + at);                                           \
        put_##T(numbers(kind, b >> 4, scale, least), high + at);                                          \
      }                                                                                                   \
    }                                                                                                     \
  }

/* (blocks, bytes, out) to (32 blocks, out): the inner loops run over the outputs. Few of them are padded. */
#define COLUMNS(T)                                                                                        \
  INLINE void columns_##T(const int kind, int64_t blocks, int64_t out, const uint8_t *restrict q,         \
                          const uint16_t *restrict s, T *restrict to) {                                   \
    const int64_t lines = kind == Q8_0 ? SIZE : HALF, scales = kind == Q4_1 ? 2 : 1;                      \
    float d[TILE], m[TILE];                                                                               \
    for (int64_t b = 0; b < blocks; b++, q += lines * out, s += scales * out, to += SIZE * out)           \
      for (int64_t o = 0; o < out; o += TILE) {                                                           \
        const int64_t n = out - o < TILE ? out - o : TILE;                                                \
        for (int64_t k = 0; k < n; k++) d[k] = widened(s[o + k]);                                         \
        if (kind == Q4_1)                                                                                 \
          for (int64_t k = 0; k < n; k++) m[k] = widened(s[out + o + k]);                                 \
        for (int64_t j = 0; j < lines; j++) {                                                             \
          const uint8_t *from = q + j * out + o;                                                          \
          T *low = to + j * out + o, *high = low + HALF * out;                                            \
          if (n >= LANES) {                                                                               \
            line_##T(kind, n, from, d, m, low, high);                                                     \
            continue;                                                                                     \
          }                                                                                               \
          uint8_t few[LANES] = {0};                                                                       \
          T first[LANES], second[LANES];                                                                  \
          memcpy(few, from, n);                                                                           \
          line_##T(kind, LANES, few, d, m, first, second);                                                \
          memcpy(low, first, n * sizeof(T));                                                              \
          if (kind != Q8_0) memcpy(high, second, n * sizeof(T));                                          \
        }                                                                                                 \
      }                                                                                                   \
  }

/* (rows, blocks, bytes) to (rows, 32 blocks): blocks of any row, one after the other. */
#define ROWS(T)                                                                                           \
  INLINE void rows_##T(const int kind, int64_t blocks, const uint8_t *restrict q, const uint16_t *restrict s, \
                       T *restrict to) {                                                                  \
    for (int64_t b = 0; b < blocks; b++, to += SIZE) {                                                    \
      /* Less zero, not plus: -0 stays what it is. */                                                     \
      const vec d = widened(*s++) - (vec){}, m = kind == Q4_1 ? widened(*s++) - (vec){} : (vec){};        \
      const int64_t line = kind == Q8_0 ? SIZE : HALF;                                                    \
      for (int64_t k = 0; k < line; k += LANES) {                                                         \
        const ints each = wide(kind, q + k);                                                              \
        if (kind == Q8_0) {                                                                               \
          put_##T(numbers(kind, each, d, m), to + k);                                                     \
        } else {                                                                                          \
          put_##T(numbers(kind, each & 15, d, m), to + k);                                                \
          put_##T(numbers(kind, each >> 4, d, m), to + HALF + k);                                         \
        }                                                                                                 \
      }                                                                                                   \
      q += line;                                                                                          \
    }                                                                                                     \
  }

#define FOR(T) LINE(T) COLUMNS(T) ROWS(T)
FOR(float)
FOR(bf16)

/* A constant kind in each call: no loop asks which it is. */
#define BY_KIND(call, ...)                     \
  switch (kind) {                              \
    case Q4_0: call(Q4_0, __VA_ARGS__); break; \
    case Q4_1: call(Q4_1, __VA_ARGS__); break; \
    default: call(Q8_0, __VA_ARGS__);          \
  }

/* `out` outputs side by side; 0 where blocks lie by rows. */
void surefoot_unpack(int kind, int narrow, int64_t blocks, int64_t out, const uint8_t *q, const uint16_t *s, void *to) {
  if (out && narrow) BY_KIND(columns_bf16, blocks, out, q, s, (bf16 *)to)
  else if (out) BY_KIND(columns_float, blocks, out, q, s, (float *)to)
  else if (narrow) BY_KIND(rows_bf16, blocks, q, s, (bf16 *)to)
  else BY_KIND(rows_float, blocks, q, s, (float *)to)
}
