/* The same number of layers and units in CMSIS-NN, int8 with a 16-bit cell, one timestep per call: its instructions as
 * JSON. Weights are arbitrary, because the work does not depend on them. */
#include <stdio.h>
#include <string.h>

#include "arm_nnfunctions.h"
#include "clock.h"

#define STEPS 16
#define WIDTH (INPUTS > UNITS ? INPUTS : UNITS)

static const int8_t input_weights[UNITS * WIDTH] = {1, -2, 3}, hidden_weights[UNITS * UNITS] = {3, 2, -1};
static const int32_t bias[UNITS] = {5};
static int16_t first[UNITS], second[UNITS], cell[LAYERS][UNITS];
static int8_t hidden[LAYERS][UNITS], output[LAYERS][UNITS], x[STEPS][WIDTH];

static void step(const cmsis_nn_lstm_params *given, const int8_t *in) {
  for (int l = 0; l < LAYERS; l++) {
    cmsis_nn_lstm_params layer = *given;
    cmsis_nn_lstm_context room = {first, second, cell[l], hidden[l]};
    layer.input_size = l ? UNITS : INPUTS;
    arm_lstm_unidirectional_s8(in, output[l], &layer, &room);
    in = output[l];
  }
}

int main(void) {
  cmsis_nn_lstm_gate gate = {1374389534, -6, input_weights, bias, 1374389534, -6, hidden_weights, bias, NULL, ARM_SIGMOID};
  cmsis_nn_lstm_params all;
  double taken = 0;
  memset(&all, 0, sizeof all);
  all.time_major = all.batch_size = all.time_steps = 1;
  all.hidden_size = UNITS;
  all.forget_to_cell_multiplier = all.input_to_cell_multiplier = all.output_multiplier = 1 << 30;
  all.forget_to_cell_shift = all.input_to_cell_shift = -14;
  all.output_shift = -21;
  all.cell_clip = 32767;
  all.cell_scale_power = -11;
  all.forget_gate = all.input_gate = all.cell_gate = all.output_gate = gate;
  all.cell_gate.activation_type = ARM_TANH;
  start_clock();
  for (int t = 0; t < STEPS; t++) {
    for (int k = 0; k < WIDTH; k++) x[t][k] = (int8_t)(37 * (t + 1) * (k + 3));
    const uint32_t start = now();
    step(&all, x[t]);
    taken += since(start);
  }
  printf("{\"instructions\": %.1f}\n", taken / STEPS);
  return 0;
}
