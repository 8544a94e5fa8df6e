/* Instructions, on a board of QEMU whose virtual time advances by the same step for each (-icount): SysTick reads it, and
 * a loop of known length calibrates it. */
#include <stdint.h>

#define LOOPS 100000u

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010u;
static double per_tick;

static uint32_t now(void) { return systick[2]; }

/* Two instructions a turn. */
static void __attribute__((noinline)) known(uint32_t turns) {
  __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(turns) : : "cc");
}

static double since(uint32_t start) { return ((start - now()) & 0xFFFFFFu) * per_tick; }

static void start_clock(void) {
  systick[1] = 0xFFFFFFu;
  systick[2] = 0;
  systick[0] = 5; /* the processor's clock, no interrupt */
  per_tick = 1;
  const uint32_t start = now();
  known(LOOPS);
  per_tick = 2.0 * LOOPS / since(start);
}
