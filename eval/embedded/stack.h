/* How deep calls reach: the stack is painted before them, and looked at afterwards. */
#include <stdint.h>

#define STACK 32768
#define PAINT 0xA5

static void __attribute__((noinline)) paint(void) {
  volatile uint8_t room[STACK];
  for (int k = 0; k < STACK; k++) room[k] = PAINT;
}

/* Bytes below this frame that are no longer painted. */
static int __attribute__((noinline)) used(void) {
  volatile uint8_t room[STACK];
  int k = 0;
  while (k < STACK && room[k] == PAINT) k++;
  return STACK - k;
}
