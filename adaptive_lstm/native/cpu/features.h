// What this processor and operating system can run.
#pragma once

namespace alstm {

// Of x86-64.
bool cpu_has_avx2();         // AVX2 and FMA; the operating system saves the 256-bit registers
bool cpu_has_avx512vnni();   // AVX-512 F, BW, DQ, VL and VNNI; the operating system saves the 512-bit registers
bool cpu_has_avx512vbmi2();  // AVX-512 VNNI plus VBMI2
bool cpu_has_amx();          // the same plus AMX-INT8; the operating system can grant the tile state

// Requests permission from Linux to use AMX tiles, for this process; it cannot be undone. False if refused.
bool request_amx_tiles();

// Of 64-bit ARM.
bool cpu_has_neondot();  // SDOT
bool cpu_has_i8mm();     // SDOT and SMMLA

}  // namespace alstm
