// The kernels, written once against Vec and Dot and compiled once per instruction set (ALSTM_ISA, see CMakeLists.txt).
// Everything lives in an anonymous namespace and no inline library function is used: a shared inline symbol compiled
// here with AVX-512 could otherwise be the copy that the linker keeps for all.
#include "kernels.h"

#define ALSTM_STR2(x) #x
#define ALSTM_STR(x) ALSTM_STR2(x)

#if defined(__AMX_INT8__)
#include "tiles_amx.h"
#include "vec_avx512vnni.h"
#elif defined(__AVX512VNNI__)
#include "vec_avx512vnni.h"
#elif defined(__AVX2__)
#include "vec_avx2.h"
#else
#include "vec_generic.h"
#endif
#if !defined(__AMX_INT8__)
namespace {
struct Tiles {
  static constexpr bool here = false;
};
}  // namespace
#endif

#include "part_compressed.h"
#include "part_elementwise.h"
#include "part_entries.h"
#include "part_float.h"
#include "part_pieces.h"
#include "part_pieces_q8.h"
#include "part_q8.h"
#include "part_tiles.h"

namespace {

const Kernels kTable = {
    ALSTM_STR(ALSTM_ISA), kBusyQ8, dense,   dense_q8,   columns, columns_q8, finish, finish_q8, cell, quantize, changed,
    changed_q8,           finite,  expands, mean_square};

}  // namespace

namespace alstm {
#define ALSTM_JOIN2(a, b) a##b
#define ALSTM_JOIN(a, b) ALSTM_JOIN2(a, b)
extern const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA);
const Kernels* const ALSTM_JOIN(kernels_, ALSTM_ISA) = &kTable;
}  // namespace alstm
