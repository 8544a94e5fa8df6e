// The arithmetic of one instruction set, as a table of functions over plain arrays.
//
// Letters: R rows of a matrix (four gates of every unit, padded), C its columns (int8: padded to a multiple of a quad),
// n rows of activations (timesteps or batch entries). Gate rows are stored in row blocks of 64: 16 units x gates i, f,
// g, o, so one row block holds everything that 16 units need: row 64 * (k / 16) + 16 * gate + k % 16 is the given gate
// of unit k.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/row_block.h"

namespace alstm {

constexpr int kListSlack = 32;  // entries that a kernel may write behind the end of a column list
constexpr int kNarrow = 256;    // rows of the widest tile whose sums stay in registers over a list of columns

// Columns of floats are summed in slices of this many, each from zero and then added to the result, whatever the number
// of rows: so a step, a chunk and a whole sequence give the same bits, and a slice of weights stays in the first-level
// cache while all rows of activations pass over it.
constexpr int kSlice = 64;

constexpr int kMaxLevels = 8191;  // of integer activations: their 32-bit sums stay exact

// Rows with a dynamic range whose largest value is below this count as zeros: levels / value has to stay finite.
// execution/reference_cell.py states the same number.
constexpr float kMinDynamicRange = 0x1p-100f;

enum class Format : uint8_t {
  f32,               // float weights, float activations
  bf16,              // bfloat16 weights, float activations
  int8_weight_only,  // int8 weights with a scale per row, float activations
  int8,              // int8 weights with a scale per row, integer activations: exact integer sums
};

// Order of the columns of an int8 matrix. `columns`: a column is contiguous inside a row tile, so any subset of columns
// can be visited. `interleaved`: the bytes of a quad of columns alternate, the fastest order if every column is
// visited.
enum class Layout : uint8_t { columns, interleaved };

// How weights are stored. An int8 weight w is stored as w + Int8Packing::weight_offset; in the `columns` layout the 64
// bytes of a row block are permuted by Int8Packing::row_position.
enum class Form : uint8_t { dense, block_sparse, bitmask };

// Every weight, zeros included: [tile][column][rows of the tile].
struct Dense {
  int tile = 0;   // rows per tile, a multiple of kRowBlock; the last tile may be narrower
  int pitch = 0;  // elements from one column to the next inside a tile; interleaved: not used
};

// Structured zeros: the 64x1 blocks (a row block in one column) that are not all zeros, one behind the other. Layout
// `columns`: column by column. `interleaved`: row block by row block; int8 in quads whose bytes alternate.
struct BlockSparse {
  const int32_t* first = nullptr;    // first block of a column [C]; interleaved: of a row block [row blocks + 1]
  const uint16_t* column = nullptr;  // interleaved: [blocks] the column of a block
  const uint32_t* where = nullptr;   // columns: [C, words()] which row blocks of a column are stored, 32 to a word
};

// Unstructured zeros: of every 64 elements, the ones whose mask bit is set, one behind the other, readable up to 64
// past the end. Layout `columns`: a run is a column, its entries are the row blocks. `interleaved`: a run is a row
// block, its entries are the columns; int8: quads of entries whose bytes alternate.
struct Bitmask {
  const uint64_t* mask = nullptr;  // [runs, entries]
  const int64_t* start = nullptr;  // [runs] where the elements of a run start
};

// Where row `row` of the data lies in the result; `strip`: [R / kGateStrip] a permutation, null for none.
static inline int placed(const int32_t* strip, int row) {
  return strip ? strip[row / kGateStrip] * kGateStrip + row % kGateStrip : row;
}

// A packed weight matrix. `form` says which one of dense, blocks and bitmask holds.
struct Matrix {
  const void* data = nullptr;
  int rows = 0;                    // R, a multiple of kRowBlock
  int cols = 0;                    // C; int8: a multiple of Int8Packing::quad, padding columns are zero
  const float* scale = nullptr;    // [R] of int8 weights (Format::int8: weight scale / levels), else null
  const int32_t* strip = nullptr;  // [R / kGateStrip] which gate strips of the result a row block holds; null: its own
  // Format::int8: activation z is sent as round(z * levels), clamped to +-levels.
  int levels = 0;
  // Format::int8 with a range per column: z is sent as round(z * factor), and an integer q stands for q * step. [C],
  // readable up to a multiple of kRowBlock; null: levels and 1 / levels for every column.
  const float* factor = nullptr;
  const float* step = nullptr;
  // Format::int8 with a range per row of activations: z is sent as round(z * levels / m), with m the largest |z| of the
  // row, and the sums are multiplied by m. Layout `interleaved` only: integers of two rows cannot be subtracted.
  bool dynamic = false;
  Format format = Format::f32;
  Layout layout = Layout::columns;
  Form form = Form::dense;
  Dense dense;
  BlockSparse blocks;
  Bitmask bitmask;

  int place(int row) const { return placed(strip, row); }
  bool block_sparse() const { return form == Form::block_sparse; }
  int words() const { return (rows / kRowBlock + 31) / 32; }
};

// How an instruction set wants int8 weights and their columns stored; simd/contract.md explains the members of Dot that
// these are taken from.
struct Int8Packing {
  int weight_offset;             // added to every weight: 128 where the dot product takes unsigned weights, else 0
  int quad;                      // columns that one integer dot product takes
  int tile;                      // layout `interleaved`: rows per tile, which are read together
  int (*row_position)(int row);  // layout `columns`: the byte of a row block at which one of its rows lies
};

// How a zero weight is stored; uint8_t is Format::int8.
template <class T>
static constexpr T stored_zero(int weight_offset) {
  return sizeof(T) == 1 && T(-1) > T(0) ? T(weight_offset) : T(0);
}

// Scratch of the int8 kernels for n activation rows of C columns, in bytes: the packed rows, and from expansion_at on
// one row block of weights, expanded, one reordered or as words, and an address for each of its columns.
static constexpr size_t expansion_at(int n, int cols) { return 64 * size_t(n) * (size_t(cols) / 4 + 4); }
static constexpr size_t scratch_bytes(int n, int cols) {
  return expansion_at(n, cols) + (2 * kRowBlock + sizeof(void*)) * size_t(cols);
}

struct Kernels {
  const char* isa;
  Int8Packing int8;

  // Which elements of the bitmask form expand in registers: floats, or narrower ones (bfloat16 and int8).
  bool expands_floats, expands_narrow;

  // Share of the columns above which, for a chunk of timesteps, one `dense_int8` with all of them is faster than
  // `columns_int8` with those of each timestep (tuning.h).
  double dense_above_share_int8;

  // y[j, :] = base + W z[j, :] for j < n; base is bias [R] or, if bias is null, what y already holds.
  // z: [n, C] with stride zs; y: [n, R] with stride ys. `reverse` visits the row tiles backwards: alternating it
  // between steps leaves the end of a matrix that does not fit the cache where the next step starts. The result is the
  // same.
  void (*dense)(const Matrix&, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                bool reverse);
  // The sums that `dense` adds to y for one row z of a matrix in the dense form, each kSlice columns, before they are
  // scaled: sums [ceil(C / kSlice), R] with stride ss.
  void (*dense_slices)(const Matrix&, const float* z, float* sums, ptrdiff_t ss);
  // The same as `dense` for Format::int8. z: [n, C] integers; largest: [n] results of `quantize` for them, read if W is
  // dynamic.
  void (*dense_int8)(const Matrix&, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
                     float* y, ptrdiff_t ys, bool reverse, void* scratch);

  // acc[R] += W[:, cols] * delta over `count` listed columns. The lists have room for kListSlack entries more. With
  // int8, acc is the exact integer sum, without the scale. `reverse`: as above, and the columns of wide tiles too; with
  // floats that is another order of summation. `once`: the weights are expected beyond the second-level cache.
  void (*columns)(const Matrix&, const int32_t* cols, const float* delta, int count, float* acc, bool reverse);
  void (*columns_int8)(const Matrix&, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse, bool once,
                       void* scratch);

  // pre[R] = base + acc, or base + acc * scale of integer sums; base as for `dense`.
  void (*add_bias)(const float* acc, const float* bias, float* pre, int rows);
  void (*dequantize)(const int32_t* acc, const float* scale, const float* bias, float* pre, int rows);

  // pre[R] += sums * scale; scale null: 1.
  void (*add_scaled)(const float* sums, const float* scale, float* pre, int rows);

  // The LSTM cell on `blocks` row blocks: pre [blocks, 4, 16]; c [blocks, 16] is updated; h [blocks, 16] is written.
  void (*cell)(const float* pre, float* c, float* h, int blocks);
  // The same, and keeps in `gates` [blocks, 4, 16] what cell_of_kept needs to do it again with the same pre, whose bits
  // it gives.
  void (*cell_and_keep)(const float* pre, float* gates, float* c, float* h, int blocks);
  void (*cell_of_kept)(const float* gates, float* c, float* h, int blocks);

  // q[i]: the integer that z[i], of the first n columns of an int8 matrix, is sent as (NaN becomes 0). Returns the
  // factor for the sums of this row: the largest |z[i]| if the matrix is dynamic, else 1.
  float (*quantize)(const Matrix&, const float* z, int n, int16_t* q);

  // Lists the columns with |z - sent| > threshold (threshold null: z != sent), moves `sent` there, writes z - sent.
  int (*list_changed)(const float* z, float* sent, const float* threshold, int n, int32_t* cols, float* delta);
  // The same in integers: a column is listed if its integer differs from the one sent and z is further than the
  // threshold from the value that the one sent stands for.
  int (*list_changed_int8)(const Matrix&, const float* z, int16_t* sent, const float* threshold, int n, int32_t* cols,
                           int16_t* delta);

  // y[rows] = bias + W z for few rows, a multiple of 16. w: [cols, rows].
  void (*few_rows)(const float* w, int rows, int cols, const float* z, const float* bias, float* y);

  bool (*finite)(const float* z, size_t n);
  float (*largest)(const float* z, int n);  // the largest |z|; 0 for none

  // Mean of the squares of x - y, or of x if y is null, summed in double.
  double (*mean_square)(const float* x, const float* y, int n);
};

}  // namespace alstm
