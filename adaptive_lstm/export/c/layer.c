/* One layer in one timestep. */

/* Room for the operands of a layer, on the stack. */
typedef struct {
  float x[ALSTM_ROOM_X_FLOATS], h[ALSTM_ROOM_H_FLOATS];
  int16_t xq[ALSTM_ROOM_X_SHORTS] ALSTM_ALIGNED, hq[ALSTM_ROOM_H_SHORTS] ALSTM_ALIGNED;
} alstm_room;

/* The values that the matrix reads, one behind the other. */
ALSTM_LOCAL const float *alstm_gathered(const alstm_operand *o, const float *z, int copy, float *room) {
  if (!o->kept && !copy) return z;
  for (uint32_t k = 0; k < o->cols; k++) room[k] = alstm_value(o, z, k);
  return room;
}

/* Sends an operand. `beyond`: its values exceed what integers reach, so that they are sent whole in a range of their
 * own; `copy`: they will be overwritten while they are read. */
ALSTM_LOCAL alstm_ready alstm_prepare(const alstm_layer *l, const alstm_operand *o, alstm_state *s, alstm_sent *of,
                                      const float *z, int beyond, int copy, float *room, int16_t *rooms,
                                      uint64_t *sent) {
  const uint32_t rows = 4u * l->units;
  alstm_ready r = {o, NULL, NULL, 1.0f, NULL, NULL, rows};
  (void)rooms, (void)of, (void)s, (void)beyond;
#if ALSTM_HAS_S8_DELTA
  if (o->thresholds && o->format == ALSTM_S8) {
#if ALSTM_DEPTH_EXITS
    if (beyond) {
      r.range = alstm_quantize_own(o, z, rooms), r.q = rooms;
      of->fresh = 1, of->valid = 0;
      alstm_send_changed(o, s, of, z, NULL);
      *sent += o->cols;
      return r;
    }
#endif
    *sent += alstm_send_s8(o, s, of, rows, z);
    r.sums = s->i + o->sums;
    return r;
  }
#endif
#if ALSTM_HAS_FLOAT_DELTA
  if (o->thresholds) {
    *sent += alstm_send_float(o, s, of, rows, z);
    r.base = s->f + o->sums;
    return r;
  }
#endif
  *sent += o->cols;
#if ALSTM_HAS_S8
  if (o->format == ALSTM_S8) {
    r.range = alstm_quantize(o, z, o->own_range || beyond, rooms), r.q = rooms;
    return r;
  }
#endif
  r.z = alstm_gathered(o, z, copy, room);
  return r;
}

/* c and h of the units of a block, the first of which is `unit`. */
ALSTM_LOCAL void alstm_advance_units(const alstm_layer *l, alstm_state *s, uint32_t unit, const alstm_block *pre) {
  const uint32_t units = l->units - unit < ALSTM_UNITS ? l->units - unit : ALSTM_UNITS;
  float h[ALSTM_UNITS];
  alstm_cells(pre, units, s->f + l->c_at + unit, h);
  for (uint32_t u = 0; u < units; u++) s->f[l->h_at + (l->live ? l->live[unit + u] : unit + u)] = h[u];
}

ALSTM_LOCAL void alstm_put(alstm_block *pre, uint32_t unit, const float gates[4]) {
  const uint32_t u = unit % ALSTM_UNITS;
  pre->i[u] = gates[0], pre->f[u] = gates[1], pre->g[u] = gates[2], pre->o[u] = gates[3];
}

/* Whether h exceeds the 1 that integers reach: where it was not computed by the cell but translated. */
ALSTM_LOCAL int alstm_beyond(const alstm_layer *l, alstm_state *s, uint32_t layer) {
#if ALSTM_HAS_S8 && ALSTM_DEPTH_EXITS
  if (s->may_exceed[layer]) s->may_exceed[layer] = alstm_largest(&l->h, s->f + l->h_at) > 1.0f;
  return s->may_exceed[layer];
#else
  (void)l, (void)s, (void)layer;
  return 0;
#endif
}

ALSTM_LOCAL void alstm_run_layer(const alstm_layer *l, alstm_state *s, uint32_t layer, const float *x) {
  alstm_room room;
  alstm_layer_work *const work = &s->work.layer[layer];
  alstm_sent *const of = s->operand[layer];
  const int beyond = alstm_beyond(l, s, layer);
  const alstm_ready rx = alstm_prepare(l, &l->x, s, &of[0], x, 0, 0, room.x, room.xq, &work->x_sent);
  const alstm_ready rh = alstm_prepare(l, &l->h, s, &of[1], s->f + l->h_at, beyond, 1, room.h, room.hq, &work->h_sent);
  alstm_block pre;
  for (uint32_t u = 0; u < l->units; u++) {
    float gates[4];
    memcpy(gates, l->bias + 4 * u, sizeof gates);
    alstm_add_operand(&rx, u, gates);
    alstm_add_operand(&rh, u, gates);
#if ALSTM_HOLDS_GATES
    if (l->gates_at != ALSTM_NONE) memcpy(s->f + l->gates_at + 4 * u, gates, sizeof gates);
#endif
    alstm_put(&pre, u, gates);
    if (u % ALSTM_UNITS == ALSTM_UNITS - 1 || u == l->units - 1u)
      alstm_advance_units(l, s, u & ~(ALSTM_UNITS - 1), &pre);
  }
  work->ran++, work->advanced++;
}
