/* Runs a rival on the sequence of golden.h, and prints what a step takes as JSON, and how far its outputs are from torch's.
 * With EMPTY it runs nothing: what the board and this program take by themselves. */
#include <stdio.h>

#include "clock.h"
#include "golden.h"
#include "rival.h"
#include "stack.h"

int main(void) {
  int state = 0;
  float difference = 0;
  double taken = 0;
  start_clock();
#ifndef EMPTY
  rival_begin();
  state = rival_state();
#endif
  paint();
  for (int t = 0; t < STEPS; t++) {
    static float y[OUTPUTS];
#ifndef EMPTY
    rival_in(golden_x + t * INPUTS);
    const uint32_t start = now();
    rival_step();
    taken += since(start);
    rival_out(y);
#endif
    for (int k = 0; k < OUTPUTS; k++) {
      const float apart = y[k] - golden_y[t * OUTPUTS + k];
      if (apart > difference || -apart > difference) difference = apart < 0 ? -apart : apart;
    }
  }
  printf("{\"instructions\": %.1f, \"stack\": %d, \"state\": %d, \"difference\": %.9f}\n", taken / STEPS, used(), state,
         (double)difference);
  return 0;
}
