/* Exits: the rest of a sequence, or the layers above, are replaced by an affine map of the states known so far. */

#if ALSTM_TIME_EXITS || ALSTM_DEPTH_EXITS

#define ALSTM_FEW_ROWS 32u

/* One row of a map of few rows: four sums, the last columns in the first, as the runtime adds them. */
ALSTM_LOCAL float alstm_few(const float *w, const float *z, uint32_t cols, float bias) {
  float s[4] = {0, 0, 0, 0};
  uint32_t k = 0;
  for (; k + 4 <= cols; k += 4)
    for (uint32_t i = 0; i < 4; i++) s[i] = w[k + i] * z[k + i] + s[i];
  for (; k < cols; k++) s[0] = w[k] * z[k] + s[0];
  return bias + ((s[0] + s[1]) + (s[2] + s[3]));
}

/* The same of a map of more rows: a sum for every slice of columns. */
ALSTM_LOCAL float alstm_sliced(const float *w, const float *z, uint32_t cols, float bias) {
  float sum = bias;
  for (uint32_t k = 0; k < cols;) {
    const uint32_t end = cols - k < ALSTM_SLICE ? cols : k + ALSTM_SLICE;
    float s = 0;
    for (; k < end; k++) s = w[k] * z[k] + s;
    sum += s;
  }
  return sum;
}

ALSTM_LOCAL void alstm_apply(const alstm_map *map, const float *z, float *y) {
  const float *w = map->weights;
  for (uint32_t r = 0; r < map->rows; r++, w += map->cols)
    y[r] = map->rows <= ALSTM_FEW_ROWS ? alstm_few(w, z, map->cols, map->bias[r])
                                       : alstm_sliced(w, z, map->cols, map->bias[r]);
}

#endif

#if ALSTM_HEADS

/* Of the more probable of two outcomes, p, and the other, q. */
ALSTM_LOCAL double alstm_binary(uint8_t measure, double p, double q) {
  if (measure == ALSTM_LARGEST) return p;
  if (measure == ALSTM_MARGIN) return p - q;
  const double least = 1e-30;
  return 1 + (p * alstm_log(p > least ? p : least) + q * alstm_log(q > least ? q : least)) / alstm_log(2);
}

/* Confidence of independent binary outputs: of the least certain one. */
ALSTM_LOCAL float alstm_of_sigmoids(uint8_t measure, const float *logits, uint32_t n) {
  double least = 1;
  for (uint32_t k = 0; k < n; k++) {
    const double small = alstm_exp_double(-(double)alstm_abs(logits[k]));
    const double one = alstm_binary(measure, 1 / (1 + small), small / (1 + small));
    least = one < least ? one : least;
  }
  return (float)least;
}

/* Confidence of exclusive classes. */
ALSTM_LOCAL float alstm_of_softmax(uint8_t measure, const float *logits, uint32_t n) {
  float top = logits[0], second = 0; /* the second largest e^(logit - top); the largest is 1 */
  double sum = 0, weighted = 0;
  int first = 1;
  for (uint32_t k = 1; k < n; k++) top = logits[k] > top ? logits[k] : top;
  for (uint32_t k = 0; k < n; k++) {
    const float x = logits[k] - top, e = (float)alstm_exp_double(x);
    sum += e;
    weighted += (double)e * x;
    if (x == 0 && first)
      first = 0;
    else
      second = e > second ? e : second;
  }
  if (measure == ALSTM_LARGEST) return (float)(1 / sum);
  if (measure == ALSTM_MARGIN) return (float)((1 - (double)second) / sum);
  return (float)(1 - (alstm_log(sum) - weighted / sum) / alstm_log(n));
}

ALSTM_LOCAL float alstm_confidence(int sigmoid, uint8_t measure, const float *logits, uint32_t n) {
  return sigmoid ? alstm_of_sigmoids(measure, logits, n) : alstm_of_softmax(measure, logits, n);
}

#endif

#if ALSTM_TIME_EXITS

ALSTM_LOCAL uint32_t alstm_bucket(const int32_t *starts, uint32_t n, uint64_t time) {
  uint32_t k = n - 1;
  while (k && (uint64_t)starts[k] > time) k--;
  return k;
}

/* Whether the check passes; `found` [n]: its logits, or its translation, which is remembered. */
ALSTM_LOCAL int alstm_time_passes(const alstm_time_exit *e, alstm_state *s, const float *found, uint32_t n,
                                  float threshold) {
#if ALSTM_HEADS
  if (e->has_head) return alstm_confidence(e->sigmoid, e->measure, found, n) > threshold;
#endif
  float *const past = s->f + e->past;
  const int passes = s->work.exit_checks > e->window && (float)alstm_rms(found, past, n) < threshold;
  memmove(past, past + n, (e->window - 1u) * n * sizeof *past);
  memcpy(past + (e->window - 1u) * n, found, n * sizeof *past);
  return passes;
}

/* After a timestep: whether the sequence exits, whose translation then lies in the state. */
ALSTM_LOCAL void alstm_check_time(const alstm_model *m, alstm_state *s) {
  const alstm_time_exit *const e = m->time_exit;
  const alstm_layer *const top = &m->layers[ALSTM_LAYERS - 1];
  if (!e || s->work.steps % (uint64_t)e->every) return;
  const uint64_t now = s->work.steps - 1;
  const uint32_t map = alstm_bucket(e->map_starts, e->maps, now);
  const float *const states = s->f + m->layers[ALSTM_LAYERS - e->states].h_at;
  float found[ALSTM_MAPPED];
  const float *answer = s->f + top->h_at;
  uint32_t n = top->outputs;
  if (e->question) alstm_apply(&e->question[map], states, found), answer = found, n = e->question[map].rows;
  s->work.exit_checks++;
  const int passes = alstm_time_passes(e, s, answer, n, e->threshold[alstm_bucket(e->starts, e->thresholds, now)]);
  s->streak = passes ? s->streak + 1 : 0;
  if (s->streak < e->patience) return;
  s->exited = 1;
  s->work.exits++;
  if (e->translation)
    alstm_apply(&e->translation[map], states, s->f + e->translated);
  else
    memcpy(s->f + e->translated, s->f + top->h_at, top->outputs * sizeof(float));
}

#endif

#if ALSTM_DEPTH_EXITS

/* After a layer that ran: whether the layers above are left out in this step; `translated` [outputs] is what they
 * would have given. */
ALSTM_LOCAL int alstm_check_depth(const alstm_model *m, alstm_state *s, uint32_t layer, float *translated) {
  const alstm_depth_exit *const e = m->depth_exit;
  if (!e || layer == ALSTM_LAYERS - 1 || !e->question[layer]) return 0;
  const alstm_map *const question = e->question[layer];
  const float *const states = s->f + m->layers[0].h_at, threshold = e->threshold[layer];
  float found[ALSTM_MAPPED];
  int exits;
  alstm_apply(question, states, found);
  s->work.depth_checks[layer]++;
#if ALSTM_HEADS
  if (e->has_head) {
    exits = alstm_confidence(e->sigmoid, e->measure, found, question->rows) > threshold;
    if (exits) alstm_apply(e->translation[layer], states, translated);
  } else
#endif
  {
    float below[ALSTM_MAPPED];
    alstm_apply(e->below[layer], states, below);
    exits = (float)alstm_rms(found, below, question->rows) < threshold;
    memcpy(translated, found, question->rows * sizeof *found);
  }
  s->work.depth_exits[layer] += (uint64_t)exits;
  return exits;
}

#endif
