/* A stacked LSTM without allocation, libm or global state. Exported by adaptive-lstm; do not edit.
 *
 * The memory is yours: an alstm_state is one stream, as many of them as you like share the constant weights, and
 * different threads or interrupts may advance different states at once. */
#ifndef ALSTM_H
#define ALSTM_H

#include <stddef.h>
#include <stdint.h>

#include "alstm_sizes.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  ALSTM_OK = 0,
  ALSTM_NULL,       /* a pointer is null */
  ALSTM_NO_STATE,   /* alstm_init has not prepared the state, or another model has */
  ALSTM_NOT_FINITE, /* an input is NaN or beyond 2^96; the state is as before */
  ALSTM_DAMAGED     /* what alstm_restore was given is no saved state of this model; the state is as before */
} alstm_status;

/* What one layer has done since alstm_reset. */
typedef struct {
  uint64_t x_sent, h_sent; /* columns that were computed, of the input and of the recurrent matrix */
  uint64_t ran, advanced;  /* steps with matrix work, and in which c and h advanced */
} alstm_layer_work;

/* What the stack has done since alstm_reset. */
typedef struct {
  uint64_t steps;
  uint64_t done, possible; /* columns of all matrices and steps */
  alstm_layer_work layer[ALSTM_LAYERS];
  uint64_t exit_checks, exits;                                    /* in time */
  uint64_t depth_checks[ALSTM_LAYERS], depth_exits[ALSTM_LAYERS]; /* in depth, after each layer */
} alstm_work;

/* One operand of a layer: whether its sums fit the values last sent, whether nothing was sent yet, how many updates ago
 * float sums were computed anew, and how far the values have moved since. */
typedef struct {
  uint8_t valid, fresh;
  uint16_t age;
  float moved;
} alstm_sent;

/* A stream. Its fields are private; sizeof is ALSTM_STATE_BYTES. It holds no pointers, so it may be copied. */
typedef struct {
  uint32_t stamp; /* of the model */
  uint8_t exited, may_exceed[ALSTM_LAYERS];
  int32_t streak;             /* exit checks that have passed in a row */
  int64_t held[ALSTM_LAYERS]; /* steps since the layer last ran; -1: it has not run yet */
  double x_size[ALSTM_LAYERS];
  alstm_sent operand[ALSTM_LAYERS][2]; /* x, h */
  alstm_work work;
  float f[ALSTM_FLOATS];
  int32_t i[ALSTM_INTS];
  int16_t q[ALSTM_SHORTS];
} alstm_state;

#define ALSTM_STATE_BYTES sizeof(alstm_state)
#define ALSTM_SAVED_BYTES (sizeof(alstm_state) + sizeof(uint32_t))

/* Prepares memory: zero state, nothing sent, held or exited, counts of zero. */
alstm_status alstm_init(alstm_state *s);

/* The same for a state that was prepared: a new sequence. */
alstm_status alstm_reset(alstm_state *s);

/* One timestep: x [ALSTM_INPUTS], y [ALSTM_OUTPUTS], the top layer's h. */
alstm_status alstm_step(alstm_state *s, const float *x, float *y);

/* `steps` timesteps, one behind the other: x [steps, ALSTM_INPUTS], y [steps, ALSTM_OUTPUTS]. It ends at the first step
 * that fails; the steps before it have been taken. */
alstm_status alstm_run(alstm_state *s, const float *x, size_t steps, float *y);

/* One timestep in 16-bit integers: the inputs are x * x_scale; y is h * 32768, saturated. */
alstm_status alstm_step_s16(alstm_state *s, const int16_t *x, float x_scale, int16_t *y);

/* Copies a state into ALSTM_SAVED_BYTES bytes, for the same build of the same model. */
alstm_status alstm_save(const alstm_state *s, uint8_t *saved);
alstm_status alstm_restore(alstm_state *s, const uint8_t *saved, size_t bytes);

/* What was done since alstm_reset. */
alstm_status alstm_counts(const alstm_state *s, alstm_work *work);

#ifdef __cplusplus
}
#endif
#endif
