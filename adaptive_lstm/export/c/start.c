/* How it is built: alstm_weights.c says what the model is, alstm.h how much memory its parts take; what follows is the
 * same for every model, and leaves out what this one does not need. Compile it with -ffp-contract=off: a product and a
 * sum that are fused round otherwise than the Python runtime. */

#include "alstm.h"

#include <float.h>
#include <string.h>

#include "alstm_model.h"

/* Whether there are vectors of floats (MVE). */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2) && !defined(ALSTM_PLAIN)
#include <arm_mve.h>
#define ALSTM_VECTORS 1
#else
#define ALSTM_VECTORS 0
#endif

/* A function of this file that not every model needs. */
#if defined(__GNUC__)
#define ALSTM_LOCAL static __attribute__((unused))
#else
#define ALSTM_LOCAL static
#endif

/* A small one that belongs into the loop around it, whose constants then stay in registers. */
#if defined(__GNUC__)
#define ALSTM_INLINE static inline __attribute__((always_inline, unused))
#else
#define ALSTM_INLINE static inline
#endif
