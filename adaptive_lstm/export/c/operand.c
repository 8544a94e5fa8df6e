/* One operand of a layer, x or h, on its way to the gates: sent whole, or as the columns that have moved. */

/* An operand whose columns are there to be multiplied with the rows of a unit. */
typedef struct {
  const alstm_operand *of;
  const float *z;      /* float activations, or null */
  const int16_t *q;    /* integer activations, or null */
  float range;         /* what the sums of the integers are multiplied by */
  const float *base;   /* sums of float activations that the state keeps, or null */
  const int32_t *sums; /* sums of integer activations that the state keeps, or null */
  uint32_t rows;       /* of the weights */
} alstm_ready;

ALSTM_INLINE float alstm_value(const alstm_operand *o, const float *z, uint32_t k) {
  return z[o->kept ? o->kept[k] : k];
}

#if ALSTM_HAS_S8
/* The integer that a value is sent as. */
ALSTM_INLINE int16_t alstm_integer(float v, float most) {
  return (int16_t)alstm_round(v > most ? most : v < -most ? -most : v);
}

ALSTM_LOCAL float alstm_largest(const alstm_operand *o, const float *z) {
  float most = 0;
  for (uint32_t k = 0; k < o->cols; k++) {
    const float size = alstm_abs(alstm_value(o, z, k));
    most = size > most ? size : most;
  }
  return most;
}

/* Integers in a range of the step's own, its largest magnitude, which is returned. */
ALSTM_LOCAL float alstm_quantize_own(const alstm_operand *o, const float *z, int16_t *q) {
  const float range = alstm_largest(o, z), most = (float)o->levels;
  const float factor = range < 0x1p-100f ? 0.0f : most / range;
  for (uint32_t k = 0; k < o->cols; k++) q[k] = alstm_integer(alstm_value(o, z, k) * factor, most);
  return range;
}

/* Every column is sent: into q, whose columns up to the pitch are zeros. */
ALSTM_LOCAL float alstm_quantize(const alstm_operand *o, const float *z, int own_range, int16_t *q) {
  for (uint32_t k = o->cols; k < o->pitch; k++) q[k] = 0;
  if (own_range) return alstm_quantize_own(o, z, q);
  const float most = (float)o->levels;
  for (uint32_t k = 0; k < o->cols; k++)
    q[k] = alstm_integer(alstm_value(o, z, k) * (o->factor ? o->factor[k] : most), most);
  return 1.0f;
}
#endif

#if ALSTM_HAS_S8_DELTA
/* Columns that are added two at a time. */
typedef struct {
  const int8_t *weights, *waiting;
  int32_t *sums;
  uint32_t rows;
  int32_t by; /* of the column that waits */
} alstm_pairs;

ALSTM_LOCAL void alstm_add_column(alstm_pairs *p, uint32_t column, int32_t by) {
  const int8_t *const w = p->weights + (size_t)column * p->rows;
  if (p->waiting) {
    ALSTM_COLUMNS_S8(p->waiting, p->by, w, by, p->rows, p->sums);
    p->waiting = NULL;
  } else {
    p->waiting = w, p->by = by;
  }
}

ALSTM_LOCAL void alstm_add_last(alstm_pairs *p) {
  if (p->waiting) ALSTM_COLUMNS_S8(p->waiting, p->by, p->waiting, 0, p->rows, p->sums);
}

/* Sends the columns whose integer differs and which are further than their threshold from what was sent; `add`: and
 * brings the sums up to date. Returns how many there are. */
ALSTM_LOCAL uint32_t alstm_send_changed(const alstm_operand *o, alstm_state *s, alstm_sent *of, const float *z,
                                        alstm_pairs *add) {
  const float most = (float)o->levels, each = 1.0f / most;
  int16_t *const sent = s->q + o->sent;
  uint32_t count = 0;
  for (uint32_t k = 0; k < o->cols; k++) {
    const float now = alstm_value(o, z, k);
    const int16_t q = alstm_integer(now * (o->factor ? o->factor[k] : most), most);
    if (q == sent[k]) continue;
    if (!of->fresh && !(alstm_abs(now - (float)sent[k] * (o->step ? o->step[k] : each)) > o->thresholds[k])) continue;
    if (add) alstm_add_column(add, k, q - sent[k]);
    sent[k] = q;
    count++;
  }
  of->fresh = 0;
  return count;
}

ALSTM_LOCAL uint32_t alstm_send_s8(const alstm_operand *o, alstm_state *s, alstm_sent *of, uint32_t rows,
                                   const float *z) {
  alstm_pairs add = {(const int8_t *)o->weights, NULL, s->i + o->sums, rows, 0};
  const uint32_t count = alstm_send_changed(o, s, of, z, of->valid ? &add : NULL);
  if (!of->valid) {
    memset(add.sums, 0, rows * sizeof *add.sums);
    for (uint32_t k = 0; k < o->cols; k++) alstm_add_column(&add, k, s->q[o->sent + k]);
    of->valid = 1;
  }
  alstm_add_last(&add);
  return count;
}
#endif

#if ALSTM_HAS_FLOAT_DELTA
ALSTM_LOCAL void alstm_list4(const alstm_operand *o, uint32_t unit, uint32_t rows, const uint16_t *list, const float *d,
                             uint32_t count, uint32_t slice, float y[4]) {
  const float *const scale = o->scale ? o->scale + 4 * unit : NULL;
  switch (o->format) {
#if ALSTM_HAS_F32
    case ALSTM_F32:
      alstm_list4_f32((const float *)o->weights + 4 * unit, rows, list, d, count, slice, scale, y);
      break;
#endif
#if ALSTM_HAS_BF16
    case ALSTM_BF16:
      alstm_list4_bf16((const uint16_t *)o->weights + 4 * unit, rows, list, d, count, slice, scale, y);
      break;
#endif
#if ALSTM_HAS_S8_FLOAT
    case ALSTM_S8_FLOAT:
      alstm_list4_s8((const int8_t *)o->weights + 4 * unit, rows, list, d, count, slice, scale, y);
      break;
#endif
    default:
      break;
  }
}

/* Whether rounding errors may have accumulated in float sums: after many updates, or after values moved much further
 * than their present size, as when a spike has come and gone. */
ALSTM_LOCAL int alstm_needs_refresh(const alstm_operand *o, const float *sent, alstm_sent *of, const float *d,
                                    uint32_t count) {
  for (uint32_t k = 0; k < count; k++) of->moved += alstm_abs(d[k]);
  if (++of->age >= 256 || of->moved > 0x1p96f) return 1;
  if (of->moved <= 64) return 0;
  float size = 1;
  for (uint32_t k = 0; k < o->cols; k++) size += alstm_abs(sent[k]);
  return of->moved > 64 * size;
}

/* As alstm_send_s8, of float activations: sums lie in the floats of the state. */
ALSTM_LOCAL uint32_t alstm_send_float(const alstm_operand *o, alstm_state *s, alstm_sent *of, uint32_t rows,
                                      const float *z) {
  uint16_t list[ALSTM_LIST];
  float d[ALSTM_LIST];
  float *const sent = s->f + o->sent, *const sums = s->f + o->sums;
  uint32_t count = 0;
  for (uint32_t k = 0; k < o->cols; k++) {
    const float now = alstm_value(o, z, k), by = now - sent[k];
    if (!(alstm_abs(by) > (of->fresh ? 0.0f : o->thresholds[k]))) continue;
    list[count] = (uint16_t)k;
    d[count++] = by;
    sent[k] = now;
  }
  of->fresh = 0;
  if (!count) return 0;
  if (alstm_needs_refresh(o, sent, of, d, count)) {
    for (uint32_t k = 0; k < o->cols; k++) list[k] = (uint16_t)k;
    memset(sums, 0, rows * sizeof *sums);
    for (uint32_t u = 0; u < rows / 4; u++) alstm_list4(o, u, rows, list, sent, o->cols, ALSTM_SLICE, sums + 4 * u);
    of->age = 0, of->moved = 0;
  } else {
    for (uint32_t u = 0; u < rows / 4; u++) alstm_list4(o, u, rows, list, d, count, count, sums + 4 * u);
  }
  return count;
}
#endif

#if ALSTM_HAS_S8
#if ALSTM_VECTORS
ALSTM_INLINE void alstm_add_sums(const float *scale, const int32_t *sum, float pre[4]) {
  vst1q_f32(pre, vaddq_f32(vmulq_f32(vld1q_f32(scale), vcvtq_f32_s32(vld1q_s32(sum))), vld1q_f32(pre)));
}
#else
ALSTM_INLINE void alstm_add_sums(const float *scale, const int32_t *sum, float pre[4]) {
  pre[0] = scale[0] * (float)sum[0] + pre[0], pre[1] = scale[1] * (float)sum[1] + pre[1];
  pre[2] = scale[2] * (float)sum[2] + pre[2], pre[3] = scale[3] * (float)sum[3] + pre[3];
}
#endif

/* The same in a range of the step's own. The sum is scaled first: range * scale may overflow. */
ALSTM_INLINE void alstm_add_ranged(float range, const float *scale, const int32_t *sum, float pre[4]) {
  pre[0] = range * (scale[0] * (float)sum[0]) + pre[0], pre[1] = range * (scale[1] * (float)sum[1]) + pre[1];
  pre[2] = range * (scale[2] * (float)sum[2]) + pre[2], pre[3] = range * (scale[3] * (float)sum[3]) + pre[3];
}
#endif

/* pre += the operand's share of the gates of a unit. */
ALSTM_INLINE void alstm_add_operand(const alstm_ready *r, uint32_t unit, float pre[4]) {
  const alstm_operand *const o = r->of;
  const size_t row = 4 * (size_t)unit;
  (void)row;
#if ALSTM_HAS_FLOAT_DELTA
  if (r->base) {
    const float *const base = r->base + row;
    pre[0] += base[0], pre[1] += base[1], pre[2] += base[2], pre[3] += base[3];
    return;
  }
#endif
#if ALSTM_HAS_S8_DELTA
  if (r->sums) {
    alstm_add_sums(o->scale + row, r->sums + row, pre);
    return;
  }
#endif
#if ALSTM_HAS_S8_DELTA && ALSTM_DEPTH_EXITS
  if (o->thresholds) { /* sent whole, although it lies column by column */
    const int8_t *w = (const int8_t *)o->weights + row;
    int32_t sum[4] = {0, 0, 0, 0};
    for (uint32_t k = 0; k < o->cols; k++, w += r->rows)
      for (uint32_t j = 0; j < 4; j++) sum[j] += w[j] * r->q[k];
    alstm_add_ranged(r->range, o->scale + row, sum, pre);
    return;
  }
#endif
  switch (o->format) {
#if ALSTM_HAS_F32
    case ALSTM_F32:
      alstm_dot4_f32((const float *)o->weights + row * o->pitch, o->pitch, r->z, o->cols, NULL, pre);
      return;
#endif
#if ALSTM_HAS_BF16
    case ALSTM_BF16:
      alstm_dot4_bf16((const uint16_t *)o->weights + row * o->pitch, o->pitch, r->z, o->cols, NULL, pre);
      return;
#endif
#if ALSTM_HAS_S8_FLOAT
    case ALSTM_S8_FLOAT:
      alstm_dot4_s8((const int8_t *)o->weights + row * o->pitch, o->pitch, r->z, o->cols, o->scale + row, pre);
      return;
#endif
#if ALSTM_HAS_S8
    case ALSTM_S8: {
      int32_t sum[4];
      ALSTM_DOT4_S8((const int8_t *)o->weights + row * o->pitch, o->pitch, r->q, sum);
      if (r->range != 1.0f)
        alstm_add_ranged(r->range, o->scale + row, sum, pre);
      else
        alstm_add_sums(o->scale + row, sum, pre);
      return;
    }
#endif
    default:
      return;
  }
}
