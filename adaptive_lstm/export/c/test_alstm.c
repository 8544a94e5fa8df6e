/* Runs the golden sequence through the exported LSTM. Prints what it found; the exit code is 0 if all of it holds. */
#include <stdio.h>
#include <string.h>

#include "alstm.h"
#include "alstm_golden.h"

#define STEPS ALSTM_GOLDEN_STEPS

static alstm_state one, two;
static float y[ALSTM_OUTPUTS], again[ALSTM_OUTPUTS];
static uint8_t saved[ALSTM_SAVED_BYTES];
static int failures;

static void check(int holds, const char *what) {
  if (holds) return;
  printf("FAILED: %s\n", what);
  failures++;
}

static const float *input(int t) { return alstm_golden_x + t * ALSTM_INPUTS; }

/* Every output is the golden one, bit for bit; two streams side by side do not disturb each other. */
static void run_golden(void) {
  int differ = 0;
  float most = 0;
  check(alstm_init(&one) == ALSTM_OK && alstm_init(&two) == ALSTM_OK, "init");
  for (int t = 0; t < STEPS; t++) {
    const float *const golden = alstm_golden_y + t * ALSTM_OUTPUTS;
    check(alstm_step(&one, input(t), y) == ALSTM_OK, "step");
    if (t) check(alstm_step(&two, input(t - 1), again) == ALSTM_OK, "step of another stream");
    differ += memcmp(y, golden, sizeof y) != 0;
    for (int k = 0; k < ALSTM_OUTPUTS; k++) {
      const float d = y[k] < golden[k] ? golden[k] - y[k] : y[k] - golden[k];
      most = d > most || d != d ? d : most;
    }
  }
  printf("%d of %d steps differ from the Python runtime, by %g at most\n", differ, STEPS, (double)most);
  check(ALSTM_GOLDEN_EXACT ? !differ : most < 1e-4f, "golden outputs");
}

/* The counts are those of the Python runtime. */
static void count(void) {
  alstm_work work;
  check(alstm_counts(&one, &work) == ALSTM_OK && work.steps == STEPS, "counts");
  for (int l = 0; l < ALSTM_LAYERS; l++) {
    const alstm_layer_work found = work.layer[l], golden = alstm_golden_work.layer[l];
    check(found.x_sent == golden.x_sent && found.h_sent == golden.h_sent, "columns that were computed");
    check(found.ran == golden.ran && found.advanced == golden.advanced, "steps that ran");
    check(work.depth_checks[l] == alstm_golden_work.depth_checks[l], "exit checks in depth");
    check(work.depth_exits[l] == alstm_golden_work.depth_exits[l], "exits in depth");
  }
  check(work.exit_checks == alstm_golden_work.exit_checks, "exit checks in time");
  check(work.exits == alstm_golden_work.exits, "exits in time");
  printf("%lu of %lu columns computed\n", (unsigned long)work.done, (unsigned long)work.possible);
}

/* A stream that is saved, moved and restored goes on as if nothing had happened; what is damaged is refused. */
static void move(void) {
  check(alstm_init(&one) == ALSTM_OK, "init");
  for (int t = 0; t < STEPS / 2; t++) check(alstm_step(&one, input(t), y) == ALSTM_OK, "step");
  check(alstm_save(&one, saved) == ALSTM_OK, "save");
  memset(&two, 0, sizeof two);
  check(alstm_step(&two, input(0), y) == ALSTM_NO_STATE, "a state that was not prepared is refused");
  check(alstm_restore(&two, saved, sizeof saved) == ALSTM_OK, "restore");
  for (int t = STEPS / 2; t < STEPS; t++) {
    check(alstm_step(&one, input(t), y) == ALSTM_OK && alstm_step(&two, input(t), again) == ALSTM_OK, "step");
    check(memcmp(y, again, sizeof y) == 0, "a restored stream goes on alike");
  }
  saved[sizeof saved / 2] ^= 1;
  check(alstm_restore(&two, saved, sizeof saved) == ALSTM_DAMAGED, "a damaged state is refused");
}

/* Inputs that are no numbers are refused, and leave the stream as it was. */
static void refuse(void) {
  static float bad[ALSTM_INPUTS];
  const uint32_t bits = 0x7fc00000u;
  check(alstm_reset(&one) == ALSTM_OK && alstm_step(&one, input(0), y) == ALSTM_OK, "reset");
  memcpy(bad, input(0), sizeof bad);
  memcpy(bad + ALSTM_INPUTS - 1, &bits, sizeof bits);
  memcpy(&two, &one, sizeof two);
  check(alstm_step(&one, bad, y) == ALSTM_NOT_FINITE && memcmp(&one, &two, sizeof one) == 0, "NaN is refused");
  check(alstm_step(NULL, bad, y) == ALSTM_NULL && alstm_step(&one, NULL, y) == ALSTM_NULL, "null is refused");
}

/* 16-bit inputs are the floats that they stand for, and 16-bit outputs those floats rounded. */
static void run_s16(void) {
  static int16_t x[ALSTM_INPUTS], rounded[ALSTM_OUTPUTS];
  static float floats[ALSTM_INPUTS];
  const float scale = 1.0f / 4096.0f;
  check(alstm_init(&one) == ALSTM_OK && alstm_init(&two) == ALSTM_OK, "init");
  for (int t = 0; t < STEPS; t++) {
    for (int k = 0; k < ALSTM_INPUTS; k++) {
      const float v = input(t)[k] / scale;
      x[k] = (int16_t)(v > 32767.0f ? 32767.0f : v < -32768.0f ? -32768.0f : v);
      floats[k] = (float)x[k] * scale;
    }
    check(alstm_run(&one, floats, 1, y) == ALSTM_OK && alstm_step_s16(&two, x, scale, rounded) == ALSTM_OK, "s16");
    for (int k = 0; k < ALSTM_OUTPUTS; k++) {
      const float d = y[k] * 32768.0f - (float)rounded[k];
      check((d <= 0.5f || y[k] * 32768.0f > 32767.0f) && (d >= -0.5f || y[k] < -1.0f), "16-bit outputs are rounded");
    }
  }
}

int main(void) {
  run_golden();
  count();
  move();
  refuse();
  run_s16();
  printf("state %lu bytes, weights %lu bytes: %s\n", (unsigned long)ALSTM_STATE_BYTES,
         (unsigned long)ALSTM_WEIGHT_BYTES, failures ? "FAILED" : "passed");
  return failures != 0;
}
