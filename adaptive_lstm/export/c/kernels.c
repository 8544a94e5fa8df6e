/* The inner loops, behind two macros that may be defined from outside: ALSTM_DOT4_S8, the four rows of a unit times one
 * row of activations, and ALSTM_COLUMNS_S8, two columns of weights times one activation each. Versions for plain C, for
 * the DSP instructions of Armv7E-M and for its vectors (MVE); sums are exact, so all of them agree bit for bit.
 *
 * ALSTM_QUADS says how the rows of a unit lie: 0, one behind the other; 1, as the DSP instructions want them, four
 * columns of each row in turn, and of the four the second and the third exchanged. */

#if defined(__ARM_FEATURE_MVE) && !defined(ALSTM_PLAIN)

#include <arm_mve.h>

#if !ALSTM_QUADS
ALSTM_INLINE void alstm_dot4_mve(const int8_t *w, uint32_t pitch, const int16_t *q, int32_t sum[4]) {
  const int8_t *w1 = w + pitch, *w2 = w1 + pitch, *w3 = w2 + pitch;
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const int16_t *const end = q + pitch;
  do {
    const int16x8_t z = vld1q_s16(q);
    s0 = vmladavaq_s16(s0, vldrbq_s16(w), z);
    s1 = vmladavaq_s16(s1, vldrbq_s16(w1), z);
    s2 = vmladavaq_s16(s2, vldrbq_s16(w2), z);
    s3 = vmladavaq_s16(s3, vldrbq_s16(w3), z);
    q += 8, w += 8, w1 += 8, w2 += 8, w3 += 8;
  } while (q < end);
  sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}
#define ALSTM_DOT4_S8 alstm_dot4_mve
#endif

ALSTM_LOCAL void alstm_columns_mve(const int8_t *a, int32_t da, const int8_t *b, int32_t db, uint32_t rows,
                                   int32_t *sum) {
  for (uint32_t r = 0; r < rows; r += 4) {
    int32x4_t acc = vldrwq_s32(sum + r);
    acc = vmlaq_n_s32(acc, vldrbq_s32(a + r), da);
    acc = vmlaq_n_s32(acc, vldrbq_s32(b + r), db);
    vstrwq_s32(sum + r, acc);
  }
}
#define ALSTM_COLUMNS_S8 alstm_columns_mve

#elif defined(__ARM_FEATURE_DSP) && !defined(ALSTM_PLAIN)

typedef struct {
  uint32_t low, high;
} alstm_words;

/* Two words from an address that is a multiple of four, which then lies behind them. */
#define ALSTM_NEXT_WORDS(to, from) \
  __asm__("ldrd %0, %1, [%2], #8" : "=r"((to).low), "=r"((to).high), "+r"(from) : : "memory")

#define ALSTM_WORDS(to, from, at) \
  __asm__("ldrd %0, %1, [%2, %3]" : "=r"((to).low), "=r"((to).high) : "r"(from), "i"(at) : "memory")
#define ALSTM_STORE_WORDS(words, to) \
  __asm__ volatile("strd %1, %2, [%0], #8" : "+r"(to) : "r"((words).low), "r"((words).high) : "memory")

/* Bytes 0 and 2 of a word as two 16-bit numbers, and bytes 1 and 3. */
ALSTM_LOCAL inline uint32_t alstm_even(uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(bytes));
  return pair;
}

ALSTM_LOCAL inline uint32_t alstm_odd(uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
  return pair;
}

ALSTM_LOCAL inline uint32_t alstm_smlad(uint32_t a, uint32_t b, uint32_t sum) {
  __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

/* The lower or upper half of a times the lower half of d. */
ALSTM_LOCAL inline uint32_t alstm_low(uint32_t a, uint32_t d, uint32_t sum) {
  __asm__("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(d));
  return sum;
}

ALSTM_LOCAL inline uint32_t alstm_high(uint32_t a, uint32_t d, uint32_t sum) {
  __asm__("smlatb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(d));
  return sum;
}

#if ALSTM_QUADS
ALSTM_INLINE void alstm_dot4_dsp(const int8_t *w, uint32_t pitch, const int16_t *q, int32_t sum[4]) {
  const int8_t *const end = w + 4 * pitch;
  uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  do {
    alstm_words z, r;
    ALSTM_NEXT_WORDS(z, q);
    ALSTM_NEXT_WORDS(r, w);
    s0 = alstm_smlad(alstm_odd(r.low), z.high, alstm_smlad(alstm_even(r.low), z.low, s0));
    s1 = alstm_smlad(alstm_odd(r.high), z.high, alstm_smlad(alstm_even(r.high), z.low, s1));
    ALSTM_NEXT_WORDS(r, w);
    s2 = alstm_smlad(alstm_odd(r.low), z.high, alstm_smlad(alstm_even(r.low), z.low, s2));
    s3 = alstm_smlad(alstm_odd(r.high), z.high, alstm_smlad(alstm_even(r.high), z.low, s3));
    ALSTM_NEXT_WORDS(z, q);
    ALSTM_NEXT_WORDS(r, w);
    s0 = alstm_smlad(alstm_odd(r.low), z.high, alstm_smlad(alstm_even(r.low), z.low, s0));
    s1 = alstm_smlad(alstm_odd(r.high), z.high, alstm_smlad(alstm_even(r.high), z.low, s1));
    ALSTM_NEXT_WORDS(r, w);
    s2 = alstm_smlad(alstm_odd(r.low), z.high, alstm_smlad(alstm_even(r.low), z.low, s2));
    s3 = alstm_smlad(alstm_odd(r.high), z.high, alstm_smlad(alstm_even(r.high), z.low, s3));
  } while (w < end);
  sum[0] = (int32_t)s0, sum[1] = (int32_t)s1, sum[2] = (int32_t)s2, sum[3] = (int32_t)s3;
}
#define ALSTM_DOT4_S8 alstm_dot4_dsp
#endif

ALSTM_LOCAL void alstm_columns_dsp(const int8_t *a, int32_t da, const int8_t *b, int32_t db, uint32_t rows,
                                   int32_t *sum) {
  const int8_t *const end = a + rows;
  const uint32_t d = (uint32_t)da, e = (uint32_t)db;
  while (a < end) {
    alstm_words low, high;
    uint32_t p, r;
    ALSTM_WORDS(low, sum, 0);
    ALSTM_WORDS(high, sum, 8);
    memcpy(&p, a, sizeof p), a += sizeof p;
    memcpy(&r, b, sizeof r), b += sizeof r;
    const uint32_t even = alstm_even(p), odd = alstm_odd(p), also = alstm_even(r), last = alstm_odd(r);
    low.low = alstm_low(also, e, alstm_low(even, d, low.low));
    low.high = alstm_low(last, e, alstm_low(odd, d, low.high));
    high.low = alstm_high(also, e, alstm_high(even, d, high.low));
    high.high = alstm_high(last, e, alstm_high(odd, d, high.high));
    ALSTM_STORE_WORDS(low, sum);
    ALSTM_STORE_WORDS(high, sum);
  }
}
#define ALSTM_COLUMNS_S8 alstm_columns_dsp

#endif

#ifndef ALSTM_DOT4_S8
/* sum[j] = row j of a unit times q; rows have `pitch` columns, a multiple of 8. */
ALSTM_LOCAL void alstm_dot4(const int8_t *w, uint32_t pitch, const int16_t *q, int32_t sum[4]) {
  for (uint32_t j = 0; j < 4; j++) {
    int32_t s = 0;
#if ALSTM_QUADS
    const int8_t *row = w + 4 * j;
    for (uint32_t k = 0; k < pitch; k += 4, row += 16)
      s += row[0] * q[k] + row[2] * q[k + 1] + row[1] * q[k + 2] + row[3] * q[k + 3];
#else
    for (uint32_t k = 0; k < pitch; k++) s += w[j * pitch + k] * q[k];
#endif
    sum[j] = s;
  }
}
#define ALSTM_DOT4_S8 alstm_dot4
#endif

#ifndef ALSTM_COLUMNS_S8
/* sum += da * a + db * b; rows is a multiple of 4. */
ALSTM_LOCAL void alstm_columns(const int8_t *a, int32_t da, const int8_t *b, int32_t db, uint32_t rows, int32_t *sum) {
  for (uint32_t r = 0; r < rows; r++) sum[r] += a[r] * da + b[r] * db;
}
#define ALSTM_COLUMNS_S8 alstm_columns
#endif

/* Floats. Columns are summed in slices of 64, each from zero: the order of the Python runtime.
 * ALSTM_FLOAT_LOOPS(NAME, TYPE, VALUE) defines, for weights of a type and the expression that widens one,
 *   alstm_dot4_NAME:    y[j] += scale[j] * (row j of w times z), scale null: 1
 *   alstm_list4_NAME:   the same for rows of `count` listed columns, which lie `pitch` apart */
#define ALSTM_SLICE 64u

/* y[0..3] += s0..s3, each times its scale. */
#define ALSTM_ADD4(y, scale)                                                                     \
  if (scale)                                                                                     \
    y[0] = (scale)[0] * s0 + y[0], y[1] = (scale)[1] * s1 + y[1], y[2] = (scale)[2] * s2 + y[2], \
    y[3] = (scale)[3] * s3 + y[3];                                                               \
  else                                                                                           \
    y[0] += s0, y[1] += s1, y[2] += s2, y[3] += s3

#define ALSTM_FLOAT_LOOPS(NAME, TYPE, VALUE)                                                                        \
  ALSTM_LOCAL void alstm_dot4_##NAME(const TYPE *w, uint32_t pitch, const float *z, uint32_t n, const float *scale, \
                                     float y[4]) {                                                                  \
    const TYPE *w1 = w + pitch, *w2 = w1 + pitch, *w3 = w2 + pitch;                                                 \
    while (n) {                                                                                                     \
      const uint32_t some = n < ALSTM_SLICE ? n : ALSTM_SLICE;                                                      \
      const float *const end = z + some;                                                                            \
      float s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                                                         \
      for (; z < end; z++) {                                                                                        \
        const float v = *z;                                                                                         \
        s0 = VALUE(*w++) * v + s0, s1 = VALUE(*w1++) * v + s1;                                                      \
        s2 = VALUE(*w2++) * v + s2, s3 = VALUE(*w3++) * v + s3;                                                     \
      }                                                                                                             \
      ALSTM_ADD4(y, scale);                                                                                         \
      n -= some;                                                                                                    \
    }                                                                                                               \
  }                                                                                                                 \
  ALSTM_LOCAL void alstm_list4_##NAME(const TYPE *w, uint32_t pitch, const uint16_t *list, const float *d,          \
                                      uint32_t count, uint32_t slice, const float *scale, float y[4]) {             \
    for (uint32_t k = 0; k < count;) {                                                                              \
      const uint32_t end = count - k < slice ? count : k + slice;                                                   \
      float s0 = 0, s1 = 0, s2 = 0, s3 = 0;                                                                         \
      for (; k < end; k++) {                                                                                        \
        const TYPE *const column = w + list[k] * pitch;                                                             \
        s0 = VALUE(column[0]) * d[k] + s0, s1 = VALUE(column[1]) * d[k] + s1;                                       \
        s2 = VALUE(column[2]) * d[k] + s2, s3 = VALUE(column[3]) * d[k] + s3;                                       \
      }                                                                                                             \
      ALSTM_ADD4(y, scale);                                                                                         \
    }                                                                                                               \
  }

#if ALSTM_HAS_F32
#define ALSTM_SELF(w) (w)
ALSTM_FLOAT_LOOPS(f32, float, ALSTM_SELF)
#endif

#if ALSTM_HAS_BF16
ALSTM_INLINE float alstm_wide(uint16_t bits) { /* bfloat16 is the upper half of a float */
  const uint32_t all = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &all, sizeof x);
  return x;
}
ALSTM_FLOAT_LOOPS(bf16, uint16_t, alstm_wide)
#endif

#if ALSTM_HAS_S8_FLOAT
#define ALSTM_FLOAT(w) ((float)(w))
ALSTM_FLOAT_LOOPS(s8, int8_t, ALSTM_FLOAT)
#endif
