// What this processor and operating system can run.
#pragma once

namespace alstm {

bool cpu_has_avx2();        // AVX2 and FMA, with the operating system saving the 256-bit registers
bool cpu_has_avx512vnni();  // AVX-512 F, BW, DQ, VL, VNNI, with the operating system saving the 512-bit registers
bool cpu_has_amx();         // the same and AMX int8, which the operating system grants who asks
bool ask_for_amx();         // asks, for this process; there is no way back

bool cpu_has_vbmi2();  // AVX-512 VBMI2, where AVX-512 runs at all; asked once, for it is asked in the kernels

}  // namespace alstm
