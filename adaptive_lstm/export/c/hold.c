/* Holding a layer, and with it all above: while its input and its state have hardly changed since it last ran. */

#if ALSTM_HOLDS

#define ALSTM_NO_CHANGE 0x1p-90 /* a root mean square change below is none */

ALSTM_LOCAL int alstm_unchanged(const alstm_layer *l, alstm_state *s, uint32_t layer, const float *x) {
  const alstm_hold *const hold = l->hold;
  if (hold->by_x) {
    const double change = alstm_rms(x, s->f + hold->x_used, l->inputs), share = hold->x_share;
    if (!(share > 0 && change < ALSTM_NO_CHANGE) && !(change < share * s->x_size[layer])) return 0;
  }
  return !hold->by_h || alstm_rms(s->f + l->h_at, s->f + hold->h_used, l->outputs) < hold->h;
}

/* What the layer does in this step, from what the one below does. */
ALSTM_LOCAL int alstm_decide(const alstm_layer *l, alstm_state *s, uint32_t layer, const float *x, int action) {
  int64_t *const held = &s->held[layer];
  if (action == ALSTM_HOLD_GATES && *held < 0) action = ALSTM_HOLD_STATE; /* there are no gates to reuse */
  if (l->hold && action == ALSTM_RUN) {
    if (*held >= 0 && *held < l->hold->cap && alstm_unchanged(l, s, layer, x)) {
      action = l->hold->action;
    } else {
      memcpy(s->f + l->hold->x_used, x, l->inputs * sizeof *x);
      memcpy(s->f + l->hold->h_used, s->f + l->h_at, l->outputs * sizeof *x);
      if (l->hold->by_x) s->x_size[layer] = alstm_rms(x, NULL, l->inputs);
    }
  }
  if (action == ALSTM_RUN)
    *held = 0;
  else if (*held >= 0)
    ++*held;
  return action;
}

#endif

#if ALSTM_HOLDS_GATES
/* c and h advance with the gates of the step that last ran. */
ALSTM_LOCAL void alstm_reuse_gates(const alstm_layer *l, alstm_state *s, uint32_t layer) {
  alstm_block pre;
  for (uint32_t u = 0; u < l->units; u++) {
    alstm_put(&pre, u, s->f + l->gates_at + 4 * u);
    if (u % ALSTM_UNITS == ALSTM_UNITS - 1 || u == l->units - 1u)
      alstm_advance_units(l, s, u & ~(ALSTM_UNITS - 1), &pre);
  }
  s->work.layer[layer].advanced++;
}
#endif
