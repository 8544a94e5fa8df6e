// The kernels, written once against the contract of simd/contract.md and compiled once per instruction set.
// CMakeLists.txt defines ALSTM_ISA, its name, and ALSTM_SIMD, its header.
//
// Everything lives in an anonymous namespace and no inline library function is used: a shared inline symbol compiled
// here with AVX-512 could otherwise be the copy that the linker keeps for all.
#include "kernels/kernels.h"

#include "kernels/tuning.h"

#define ALSTM_TEXT2(x) #x
#define ALSTM_TEXT(x) ALSTM_TEXT2(x)
#define ALSTM_JOIN2(a, b) a##b
#define ALSTM_JOIN(a, b) ALSTM_JOIN2(a, b)

#include ALSTM_SIMD

namespace alstm {
namespace {

// Each relies on those before it.
// clang-format off
#include "kernels/float.inc"
#include "kernels/int8.inc"
#include "kernels/words.inc"
#include "kernels/pairs.inc"
#include "kernels/tiles.inc"
#include "kernels/block_sparse.inc"
#include "kernels/block_sparse_int8.inc"
#include "kernels/bitmask.inc"
#include "kernels/elementwise.inc"
#include "kernels/table.inc"
// clang-format on

}  // namespace

extern const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA);
const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA) = &kTable;

}  // namespace alstm
