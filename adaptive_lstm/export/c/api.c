/* The functions of alstm.h. */

static void alstm_start(alstm_state *s) {
  const alstm_model *const m = &alstm_the_model;
  memset(s, 0, sizeof *s);
  for (uint32_t l = 0; l < ALSTM_LAYERS; l++) {
    const alstm_layer *const layer = &m->layers[l];
    s->held[l] = -1;
    for (uint32_t k = 0; k < 2; k++) s->operand[l][k].valid = s->operand[l][k].fresh = 1;
    if (layer->constant) memcpy(s->f + layer->h_at, layer->constant, layer->outputs * sizeof *s->f);
  }
  s->stamp = m->stamp;
}

static alstm_status alstm_ready_state(const alstm_state *s) {
  if (!s) return ALSTM_NULL;
  return s->stamp == alstm_the_model.stamp ? ALSTM_OK : ALSTM_NO_STATE;
}

/* What the stack gives: the top layer's h, or, once the sequence has exited, its translation. */
static const float *alstm_outputs(const alstm_state *s) {
#if ALSTM_TIME_EXITS
  if (s->exited) return s->f + alstm_the_model.time_exit->translated;
#endif
  return s->f + alstm_the_model.layers[ALSTM_LAYERS - 1].h_at;
}

#if ALSTM_DEPTH_EXITS
static void alstm_take(const alstm_layer *l, alstm_state *s, const float *translated) {
  float *const h = s->f + l->h_at;
  if (l->constant && l->live) { /* units that are not computed keep their constants */
    for (uint32_t u = 0; u < l->units; u++) h[l->live[u]] = translated[l->live[u]];
  } else {
    memcpy(h, translated, l->outputs * sizeof *h);
  }
  s->may_exceed[ALSTM_LAYERS - 1] = l->h.format == ALSTM_S8;
}
#endif

static void alstm_advance(alstm_state *s, const float *x) {
  const alstm_model *const m = &alstm_the_model;
#if ALSTM_DEPTH_EXITS
  float translated[ALSTM_OUTPUTS];
#endif
  int action = ALSTM_RUN;
  s->work.steps++;
  if (s->exited) return;
  for (uint32_t l = 0; l < ALSTM_LAYERS; l++) {
    const alstm_layer *const layer = &m->layers[l];
#if ALSTM_HOLDS
    action = alstm_decide(layer, s, l, x, action);
#endif
    if (action == ALSTM_RUN)
      alstm_run_layer(layer, s, l, x);
    else
      s->operand[l][0].fresh = s->operand[l][1].fresh = 0;
#if ALSTM_HOLDS_GATES
    if (action == ALSTM_HOLD_GATES) alstm_reuse_gates(layer, s, l);
#endif
#if ALSTM_DEPTH_EXITS
    if (action == ALSTM_EXITED && l == ALSTM_LAYERS - 1) alstm_take(layer, s, translated);
    if (action == ALSTM_RUN && alstm_check_depth(m, s, l, translated)) action = ALSTM_EXITED;
#endif
    x = s->f + layer->h_at;
  }
#if ALSTM_TIME_EXITS
  alstm_check_time(m, s);
#endif
}

alstm_status alstm_init(alstm_state *s) {
  if (!s) return ALSTM_NULL;
  alstm_start(s);
  return ALSTM_OK;
}

alstm_status alstm_reset(alstm_state *s) {
  const alstm_status status = alstm_ready_state(s);
  if (status == ALSTM_OK) alstm_start(s);
  return status;
}

alstm_status alstm_step(alstm_state *s, const float *x, float *y) {
  const alstm_status status = alstm_ready_state(s);
  if (status != ALSTM_OK) return status;
  if (!x || !y) return ALSTM_NULL;
  for (uint32_t k = 0; k < ALSTM_INPUTS; k++)
    if (!(alstm_abs(x[k]) <= 0x1p96f)) return ALSTM_NOT_FINITE;
  alstm_advance(s, x);
  memcpy(y, alstm_outputs(s), ALSTM_OUTPUTS * sizeof *y);
  return ALSTM_OK;
}

alstm_status alstm_run(alstm_state *s, const float *x, size_t steps, float *y) {
  alstm_status status = alstm_ready_state(s);
  for (size_t t = 0; t < steps && status == ALSTM_OK; t++) {
    if (!x || !y) return ALSTM_NULL;
    status = alstm_step(s, x + t * ALSTM_INPUTS, y + t * ALSTM_OUTPUTS);
  }
  return status;
}

alstm_status alstm_step_s16(alstm_state *s, const int16_t *x, float x_scale, int16_t *y) {
  float values[ALSTM_INPUTS];
  const alstm_status status = alstm_ready_state(s);
  if (status != ALSTM_OK) return status;
  if (!x || !y) return ALSTM_NULL;
  if (!(alstm_abs(x_scale) <= 0x1p80f)) return ALSTM_NOT_FINITE;
  for (uint32_t k = 0; k < ALSTM_INPUTS; k++) values[k] = (float)x[k] * x_scale;
  alstm_advance(s, values);
  const float *const h = alstm_outputs(s);
  for (uint32_t k = 0; k < ALSTM_OUTPUTS; k++) {
    const float v = h[k] * 32768.0f;
    y[k] = (int16_t)alstm_round(v > 32767.0f ? 32767.0f : v < -32768.0f ? -32768.0f : v);
  }
  return ALSTM_OK;
}

/* FNV-1a. */
static uint32_t alstm_checksum(const uint8_t *bytes, size_t n) {
  uint32_t sum = 2166136261u;
  for (size_t k = 0; k < n; k++) sum = (sum ^ bytes[k]) * 16777619u;
  return sum;
}

alstm_status alstm_save(const alstm_state *s, uint8_t *saved) {
  const alstm_status status = alstm_ready_state(s);
  if (status != ALSTM_OK) return status;
  if (!saved) return ALSTM_NULL;
  memcpy(saved, s, sizeof *s);
  const uint32_t sum = alstm_checksum(saved, sizeof *s);
  memcpy(saved + sizeof *s, &sum, sizeof sum);
  return ALSTM_OK;
}

alstm_status alstm_restore(alstm_state *s, const uint8_t *saved, size_t bytes) {
  uint32_t stamp, sum;
  if (!s || !saved) return ALSTM_NULL;
  if (bytes != ALSTM_SAVED_BYTES) return ALSTM_DAMAGED;
  memcpy(&stamp, saved, sizeof stamp);
  memcpy(&sum, saved + sizeof *s, sizeof sum);
  if (stamp != alstm_the_model.stamp || sum != alstm_checksum(saved, sizeof *s)) return ALSTM_DAMAGED;
  memcpy(s, saved, sizeof *s);
  return ALSTM_OK;
}

alstm_status alstm_counts(const alstm_state *s, alstm_work *work) {
  const alstm_status status = alstm_ready_state(s);
  if (status != ALSTM_OK) return status;
  if (!work) return ALSTM_NULL;
  *work = s->work;
  work->done = work->possible = 0;
  for (uint32_t l = 0; l < ALSTM_LAYERS; l++) {
    const alstm_layer *const layer = &alstm_the_model.layers[l];
    work->done += work->layer[l].x_sent + work->layer[l].h_sent;
    work->possible += work->steps * (uint64_t)(layer->inputs + layer->outputs);
  }
  return ALSTM_OK;
}
