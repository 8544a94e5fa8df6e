// The kernels, written once against Vec and Dot and compiled once per instruction set (ALSTM_ISA, see CMakeLists.txt).
// Everything lives in an anonymous namespace and no inline library function is used: a shared inline symbol compiled
// here with AVX-512 could otherwise be the copy that the linker keeps for all.
#include "kernels/kernels.h"

#define ALSTM_STR2(x) #x
#define ALSTM_STR(x) ALSTM_STR2(x)

#if defined(__AMX_INT8__)
#include "simd/amx_tiles.h"
#include "simd/avx512vnni.h"
#elif defined(__AVX512VNNI__)
#include "simd/avx512vnni.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#else
#include "simd/generic.h"
#endif
#if !defined(__AMX_INT8__)
namespace {
struct Tiles {
  static constexpr bool here = false;
};
}  // namespace
#endif

#include "kernels/bitmask.inc"
#include "kernels/block_sparse.inc"
#include "kernels/block_sparse_int8.inc"
#include "kernels/elementwise.inc"
#include "kernels/float.inc"
#include "kernels/int8.inc"
#include "kernels/table.inc"
#include "kernels/tiles.inc"

namespace {

const Kernels kTable = {ALSTM_STR(ALSTM_ISA),
                        kDenseAboveShareInt8,
                        dense,
                        dense_int8,
                        columns,
                        columns_int8,
                        add_bias,
                        dequantize,
                        cell,
                        quantize,
                        list_changed,
                        list_changed_int8,
                        finite,
                        expands,
                        mean_square};

}  // namespace

namespace alstm {
#define ALSTM_JOIN2(a, b) a##b
#define ALSTM_JOIN(a, b) ALSTM_JOIN2(a, b)
extern const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA);
const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA) = &kTable;
}  // namespace alstm
