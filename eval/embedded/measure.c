/* Runs the golden sequence of an export on an emulated Cortex-M, and prints what a step takes as JSON. */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "stack.h"
#include "vad.h"
#include "vad_golden.h"

static vad_state state;
static float y[VAD_OUTPUTS];

int main(void) {
  int same = 1;
  double taken = 0;
  start_clock();
  vad_init(&state);
  paint();
  for (int t = 0; t < VAD_GOLDEN_STEPS; t++) {
    const uint32_t start = now();
    vad_step(&state, vad_golden_x + t * VAD_INPUTS, y);
    taken += since(start);
    same &= memcmp(vad_golden_y + t * VAD_OUTPUTS, y, sizeof y) == 0;
  }
  const int stack = used();
  vad_work work;
  vad_counts(&state, &work);
  printf("{\"instructions\": %.1f, \"stack\": %d, \"state\": %d, \"weights\": %d, \"activity\": %.6f, \"exact\": %s}\n",
         taken / VAD_GOLDEN_STEPS, stack, (int)VAD_STATE_BYTES, (int)VAD_WEIGHT_BYTES,
         (double)work.done / (double)work.possible, same ? "true" : "false");
  return 0;
}
