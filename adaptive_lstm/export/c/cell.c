/* The cell, in the operations and the order of the Python runtime's portable kernels: on a machine with IEEE floats,
 * and without fused products (-ffp-contract=off), bit for bit the same. */

#if FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2
#error "float arithmetic has to be done in float: on x86 with 387 arithmetic, compile with -msse2 -mfpmath=sse"
#endif

#define ALSTM_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */

/* Pre-activations of some units. */
#define ALSTM_UNITS 8u
typedef struct {
  float i[ALSTM_UNITS], f[ALSTM_UNITS], g[ALSTM_UNITS], o[ALSTM_UNITS];
} alstm_block;

#if ALSTM_VECTORS

typedef struct {
  float32x4_t scale, rest;
} alstm_exp;

/* e^y, with y clamped to +-most (Cephes expf): y = n ln 2 + r, a polynomial in r. */
ALSTM_INLINE alstm_exp alstm_exp_of(float32x4_t y, float most) {
  const float32x4_t at = vminnmq_f32(vmaxnmq_f32(y, vdupq_n_f32(-most)), vdupq_n_f32(most));
  const float32x4_t n = vsubq_n_f32(vaddq_n_f32(vmulq_n_f32(at, 1.44269504088896341f), ALSTM_MAGIC), ALSTM_MAGIC);
  float32x4_t r = vaddq_f32(vmulq_n_f32(n, -0.693359375f), at);
  r = vaddq_f32(vmulq_n_f32(n, 2.12194440e-4f), r);
  float32x4_t p = vaddq_n_f32(vmulq_n_f32(r, 1.9875691500e-4f), 1.3981999507e-3f);
  p = vaddq_n_f32(vmulq_f32(p, r), 8.3334519073e-3f);
  p = vaddq_n_f32(vmulq_f32(p, r), 4.1665795894e-2f);
  p = vaddq_n_f32(vmulq_f32(p, r), 1.6666665459e-1f);
  p = vaddq_n_f32(vmulq_f32(p, r), 5.0000001201e-1f);
  const int32x4_t bits = vshlq_n_s32(vaddq_n_s32(vcvtq_s32_f32(n), 127), 23);
  const alstm_exp e = {vreinterpretq_f32_s32(bits), vaddq_f32(vmulq_f32(p, vmulq_f32(r, r)), r)};
  return e;
}

ALSTM_INLINE float32x4_t alstm_exp_minus(float32x4_t x) { /* e^-x */
  const alstm_exp e = alstm_exp_of(vnegq_f32(x), 66.0f);
  return vaddq_f32(vmulq_f32(e.scale, e.rest), e.scale);
}

ALSTM_INLINE float32x4_t alstm_exp_twice_less_one(float32x4_t x) { /* e^2x - 1 */
  const alstm_exp e = alstm_exp_of(vaddq_f32(x, x), 20.0f);
  return vaddq_f32(vmulq_f32(e.scale, e.rest), vsubq_n_f32(e.scale, 1.0f));
}

/* There is no vector division, and an approximation would round otherwise. */
ALSTM_INLINE float32x4_t alstm_reciprocal(float32x4_t x) {
  float v[4];
  vst1q_f32(v, x);
  v[0] = 1.0f / v[0], v[1] = 1.0f / v[1], v[2] = 1.0f / v[2], v[3] = 1.0f / v[3];
  return vld1q_f32(v);
}

/* As below, four units at once. */
ALSTM_LOCAL void alstm_cells(const alstm_block *pre, uint32_t units, float *c, float *h) {
  for (uint32_t u = 0; u < units; u += 4) {
    const mve_pred16_t some = vctp32q(units - u);
    const float32x4_t ei = alstm_exp_minus(vld1q_z_f32(pre->i + u, some));
    const float32x4_t ef = alstm_exp_minus(vld1q_z_f32(pre->f + u, some));
    const float32x4_t tg = alstm_exp_twice_less_one(vld1q_z_f32(pre->g + u, some));
    const float32x4_t kept = vmulq_f32(vld1q_z_f32(c + u, some), alstm_reciprocal(vaddq_n_f32(ef, 1.0f)));
    const float32x4_t gi = vmulq_f32(vaddq_n_f32(ei, 1.0f), vaddq_n_f32(tg, 2.0f));
    const float32x4_t now = vaddq_f32(vmulq_f32(tg, alstm_reciprocal(gi)), kept);
    vst1q_p_f32(c + u, now, some);
    const float32x4_t eo = alstm_exp_minus(vld1q_z_f32(pre->o + u, some)), tc = alstm_exp_twice_less_one(now);
    const float32x4_t oc = vmulq_f32(vaddq_n_f32(eo, 1.0f), vaddq_n_f32(tc, 2.0f));
    vst1q_p_f32(h + u, vmulq_f32(tc, alstm_reciprocal(oc)), some);
  }
}

#else

/* e^y as scale * (1 + rest), with rest near zero for y near zero. */
typedef struct {
  float scale, rest;
} alstm_exp;

/* e^y, with y clamped to +-most (Cephes expf): y = n ln 2 + r, a polynomial in r. */
ALSTM_INLINE alstm_exp alstm_exp_of(float y, float most) {
  const float at = y < -most ? -most : y > most ? most : y;
  const float n = (at * 1.44269504088896341f + ALSTM_MAGIC) - ALSTM_MAGIC;
  float r = n * -0.693359375f + at;
  r = n * 2.12194440e-4f + r;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
  alstm_exp e;
  memcpy(&e.scale, &bits, sizeof bits);
  e.rest = p * (r * r) + r;
  return e;
}

ALSTM_INLINE float alstm_exp_minus(float x) { /* e^-x */
  const alstm_exp e = alstm_exp_of(-x, 66.0f);
  return e.scale * e.rest + e.scale;
}

ALSTM_INLINE float alstm_exp_twice_less_one(float x) { /* e^2x - 1 */
  const alstm_exp e = alstm_exp_of(x + x, 20.0f);
  return e.scale * e.rest + (e.scale - 1.0f);
}

/* c and h of the units of a block from their pre-activations: sigmoid(x) = 1 / (1 + e^-x), tanh(x) = t / (t + 2) with
 * t = e^2x - 1. */
ALSTM_LOCAL void alstm_cells(const alstm_block *pre, uint32_t units, float *c, float *h) {
  for (uint32_t u = 0; u < units; u++) {
    const float ei = alstm_exp_minus(pre->i[u]), ef = alstm_exp_minus(pre->f[u]);
    const float tg = alstm_exp_twice_less_one(pre->g[u]);
    const float kept = c[u] * (1.0f / (1.0f + ef));
    c[u] = tg * (1.0f / ((1.0f + ei) * (2.0f + tg))) + kept;
  }
  for (uint32_t u = 0; u < units; u++) {
    const float eo = alstm_exp_minus(pre->o[u]), tc = alstm_exp_twice_less_one(c[u]);
    h[u] = tc * (1.0f / ((1.0f + eo) * (2.0f + tc)));
  }
}

#endif

ALSTM_INLINE int32_t alstm_round(float x) { /* to nearest, ties to even; |x| < 2^22 */
  return (int32_t)((x + ALSTM_MAGIC) - ALSTM_MAGIC);
}

ALSTM_INLINE float alstm_abs(float x) { return x < 0 ? -x : x; }
