/* The LSTM of CMSIS-NN, int8 with a 16-bit cell, one layer a call. */
#include <math.h>
#include <string.h>

#include "arm_nnfunctions.h"
#include "golden.h"
#include "int8.h"
#include "rival.h"

static int16_t first[OUTPUTS], second[OUTPUTS], cell[LAYERS][OUTPUTS];
static int8_t hidden[LAYERS][OUTPUTS], output[LAYERS][OUTPUTS], x[INPUTS];

static cmsis_nn_lstm_gate gate(int layer, int k) {
  static const int32_t nothing[OUTPUTS];
  const int8_gate *given = &int8_gates[layer][k];
  cmsis_nn_lstm_gate found = {given->input_multiplier, given->input_shift, given->input, given->bias,
                              given->hidden_multiplier, given->hidden_shift, given->hidden, nothing,
                              given->bias, k == 2 ? ARM_TANH : ARM_SIGMOID};
  return found;
}

static cmsis_nn_lstm_params layers[LAYERS];

void rival_begin(void) {
  for (int l = 0; l < LAYERS; l++) {
    cmsis_nn_lstm_params *p = &layers[l];
    p->time_major = p->batch_size = p->time_steps = 1;
    p->input_size = l ? OUTPUTS : INPUTS;
    p->hidden_size = OUTPUTS;
    p->forget_to_cell_multiplier = p->input_to_cell_multiplier = p->output_multiplier = 1 << 30;
    p->forget_to_cell_shift = -14;
    p->input_to_cell_shift = -29 - CELL_POWER;
    p->output_shift = -29 + HIDDEN_BITS;
    p->cell_clip = 32767;
    p->cell_scale_power = CELL_POWER;
    p->input_gate = gate(l, 0);
    p->forget_gate = gate(l, 1);
    p->cell_gate = gate(l, 2);
    p->output_gate = gate(l, 3);
  }
}

void rival_in(const float *given) {
  for (int k = 0; k < INPUTS; k++) x[k] = (int8_t)lrintf(given[k] / INPUT_SCALE);
}

void rival_step(void) {
  const int8_t *in = x;
  for (int l = 0; l < LAYERS; l++) {
    cmsis_nn_lstm_context room = {first, second, cell[l], hidden[l]};
    arm_lstm_unidirectional_s8(in, output[l], &layers[l], &room);
    in = output[l];
  }
}

void rival_out(float *y) {
  for (int k = 0; k < OUTPUTS; k++) y[k] = (float)output[LAYERS - 1][k] / (1 << HIDDEN_BITS);
}

int rival_state(void) { return (int)(sizeof first + sizeof second + sizeof cell + sizeof hidden + sizeof output); }
