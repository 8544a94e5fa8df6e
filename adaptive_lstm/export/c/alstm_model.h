/* The model as constant data: how alstm_weights.c describes it to alstm.c. Private to the two. */
#ifndef ALSTM_MODEL_H
#define ALSTM_MODEL_H

#include "alstm.h"
#include "alstm_parts.h"

/* Where the weights go. Define it as a section attribute to keep them in a flash of your choice. */
#ifndef ALSTM_FLASH
#define ALSTM_FLASH
#endif

#define ALSTM_NONE 0xffffffffu /* no place */

/* Where integers lie, in words. */
#if defined(__GNUC__)
#define ALSTM_ALIGNED __attribute__((aligned(4)))
#else
#define ALSTM_ALIGNED
#endif

/* Weights, and what they multiply: floats, or integers of int8 weights whose sums are exact. */
enum { ALSTM_F32, ALSTM_BF16, ALSTM_S8_FLOAT, ALSTM_S8 };

/* W_ih or W_hh of a layer. Rows are in unit order: i, f, g, o of the first unit, then of the second, and so on. */
typedef struct {
  const void
      *weights; /* every column is read: [units][4 rows of pitch columns]; else column by column: [cols][4 * units] */
  const float *scale;      /* [4 * units] of int8 */
  const float *factor;     /* [cols] z is sent as round(z * factor); null: levels */
  const float *step;       /* [cols] what 1 stands for; null: 1 / levels */
  const float *thresholds; /* [cols] a column is sent when it has moved further; null: every column is sent */
  const uint16_t *kept;    /* [cols] which values of the operand the columns read; null: all, in their order */
  uint32_t sent, sums;     /* where the state keeps the values last sent [cols], and their products [4 * units] */
  uint16_t cols, pitch;
  int16_t levels;
  uint8_t format;
  uint8_t own_range; /* the largest magnitude of each step is sent as `levels` */
} alstm_operand;

/* What a layer is held by. */
enum { ALSTM_RUN, ALSTM_HOLD_GATES, ALSTM_HOLD_STATE, ALSTM_EXITED };

typedef struct {
  double x_share, h;       /* held while rms(x - x_used) < x_share * rms(x_used), and rms(h - h_used) < h */
  uint8_t by_x, by_h;      /* whether each is a condition */
  uint8_t action;          /* ALSTM_HOLD_GATES or ALSTM_HOLD_STATE */
  int32_t cap;             /* longest run of held steps */
  uint32_t x_used, h_used; /* where the state keeps them */
} alstm_hold;

typedef struct {
  alstm_operand x, h;
  const float *bias;      /* [4 * units] */
  const uint16_t *live;   /* [units] which outputs the units are; null: all, in their order */
  const float *constant;  /* [outputs] of the units that are not computed; null where all are */
  const alstm_hold *hold; /* null: as the layer below */
  uint32_t h_at, c_at;    /* where the state keeps h [outputs] and c [units] */
  uint32_t gates_at;      /* and the gates of the step that last ran [4 * units], or ALSTM_NONE */
  uint16_t inputs, outputs, units;
} alstm_layer;

/* y = weights z + bias: [rows][cols]. */
typedef struct {
  const float *weights, *bias;
  uint16_t rows, cols;
} alstm_map;

enum { ALSTM_MARGIN, ALSTM_LARGEST, ALSTM_ENTROPY };

/* An exit in time, checked after every `every` steps. Buckets of time have a threshold and a map each. */
typedef struct {
  int32_t every, patience;
  uint16_t window, thresholds, maps, states; /* states: of how many layers, from the top, a check reads h */
  uint8_t has_head, sigmoid, measure;
  const int32_t *starts, *map_starts; /* [thresholds], [maps] first steps of the buckets */
  const float *threshold;             /* [thresholds] */
  const alstm_map *question;          /* [maps] what a check computes; null: h of the top layer itself */
  const alstm_map *translation;       /* [maps] the outputs after an exit; null: h of the top layer itself */
  uint32_t translated, past;          /* where the state keeps the translation, and those of earlier checks */
} alstm_time_exit;

/* An exit in depth after a layer, at single steps; entries of layers without a check are null. */
typedef struct {
  uint8_t has_head, sigmoid, measure;
  const float *threshold;              /* [layers - 1] */
  const alstm_map *const *question;    /* [layers - 1] to logits, or the translation itself */
  const alstm_map *const *translation; /* [layers - 1] */
  const alstm_map *const *below;       /* [layers - 1] without a head: the translation from one layer less */
} alstm_depth_exit;

typedef struct {
  uint32_t stamp;
  const alstm_layer *layers;
  const alstm_time_exit *time_exit;   /* null: none */
  const alstm_depth_exit *depth_exit; /* null: none */
} alstm_model;

extern const alstm_model alstm_the_model;

#endif
