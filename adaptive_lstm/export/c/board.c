/* The least that a Cortex-M needs to run the golden test under QEMU: vectors, the FPU, and output by semihosting. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t board_stack_top, board_data, board_data_end, board_data_source, board_bss, board_bss_end;
extern void initialise_monitor_handles(void);
int main(void);

void board_reset(void);
void board_fault(void);

void board_reset(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* the FPU, and with it the vector unit */
  __asm__ volatile("dsb\n isb" ::: "memory");
  memcpy(&board_data, &board_data_source, (size_t)((char *)&board_data_end - (char *)&board_data));
  memset(&board_bss, 0, (size_t)((char *)&board_bss_end - (char *)&board_bss));
  initialise_monitor_handles();
  exit(main());
}

void board_fault(void) {
  printf("fault: status 0x%08lx\n", (unsigned long)*(volatile uint32_t *)0xE000ED28u);
  exit(3);
}

typedef void (*board_handler)(void);

__attribute__((section(".vectors"), used)) static const struct {
  const void *stack;
  board_handler handler[15];
} vectors = {
    &board_stack_top,
    {board_reset, board_fault, board_fault, board_fault, board_fault, board_fault},
};
