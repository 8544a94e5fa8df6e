/* The C code of emx-onnx-cgen for a graph of one timestep, whose states are inputs and outputs. */
#include <string.h>

#include "golden.h"
#include "rival.h"

void model(const float *x, const float *h, const float *c, float *y, float *hn, float *cn);

static float states[2][2][LAYERS * OUTPUTS], x[INPUTS], y[OUTPUTS];
static int turn;

void rival_begin(void) {}

void rival_in(const float *given) { memcpy(x, given, sizeof x); }

void rival_step(void) {
  float(*from)[LAYERS * OUTPUTS] = states[turn], (*to)[LAYERS * OUTPUTS] = states[1 - turn];
  model(x, from[0], from[1], y, to[0], to[1]);
  turn = 1 - turn;
}

void rival_out(float *given) { memcpy(given, y, sizeof y); }

int rival_state(void) { return (int)sizeof states; }
