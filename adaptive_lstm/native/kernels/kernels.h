// The arithmetic of one instruction set, as a table of functions over plain arrays.
//
// Letters: R rows of a matrix (four gates of every unit, padded), C its columns (padded to a multiple of 4), n rows of
// activations (timesteps or batch entries). Gate rows are stored in blocks of 64: 16 units x gates i, f, g, o, so one
// block holds everything that 16 units need: row 64 * (k / 16) + 16 * gate + k % 16 is the given gate of unit k.
#pragma once

#include <cstddef>
#include <cstdint>

namespace alstm {

constexpr int kRowBlock = 64;       // rows that every kernel handles together
constexpr int kUnits = 16;          // hidden units of a block
constexpr int kGateStrip = kUnits;  // rows of a block that belong to one gate
constexpr int kListSlack = 32;      // entries that a kernel may write behind the end of a column list
constexpr int kNarrow = 256;        // rows of the widest tile whose sums stay in registers over a list of columns
constexpr int kQuad = 4;            // columns that one integer dot product takes

constexpr int kMaxLevels = 8191;      // of integer activations: their 32-bit sums stay exact

// Dynamic rows whose largest value is below count as zeros: levels / value has to stay finite. pair.py says the same.
constexpr float kFaint = 0x1p-100f;

enum class Format : uint8_t {
  f32,               // float weights, float activations
  bf16,              // bfloat16 weights, float activations
  int8_weight_only,  // int8 weights with a scale per row, float activations
  int8,              // int8 weights with a scale per row, integer activations: exact integer accumulation
};

// How the columns of a q8 matrix lie. `columns`: a column is contiguous inside a row tile, so any subset of columns can
// be visited. `interleaved`: four columns interleaved byte by byte, the fastest order when every column is visited.
enum class Layout : uint8_t { columns, interleaved };

// Where a row lies whose strip has moved; `strip` null: none has.
static inline int placed(const int32_t* strip, int row) {
  return strip ? strip[row / kGateStrip] * kGateStrip + row % kGateStrip : row;
}

// A packed weight matrix: [tile][column][rows of the tile]. q8 weights are stored as w + 128; in the `columns` layout
// the 64 bytes of a block are permuted (see q8_row_position).
struct Matrix {
  const void* data = nullptr;
  const float* scale = nullptr;  // [R] for i8 and q8 (there: weight scale / levels), else null
  int rows = 0;                  // R, multiple of kRowBlock
  int cols = 0;                  // C; q8: a multiple of kQuad, padding columns are zero
  int tile = 0;                  // rows per tile, multiple of kRowBlock; the last one may be narrower
  int pitch = 0;                 // elements from one column to the next inside a tile; interleaved: not used
  int levels = 0;                // q8: activation z is sent as round(z * levels), clamped to +-levels
  // q8 whose columns have ranges of their own: z is sent as round(z * factor), and an integer q stands for q * step.
  // [C], readable up to a multiple of kRowBlock; null: levels and 1 / levels for every column.
  const float* factor = nullptr;
  const float* step = nullptr;
  // q8 whose rows of activations bring a range of their own: z is sent as round(z * levels / m), with m the largest |z|
  // of the row, and the sums are multiplied by m. Layout `interleaved` only: integers of two rows cannot be subtracted.
  bool dynamic = false;
  // Pieces: four strips of 16 rows in one column. If `piece` is set, data holds those that are not all zeros, one
  // behind the other, and tile and pitch do not count; `strip` says which strips of the result a block consists of.
  // Layout `columns`: column by column; a bit of `where` says that a piece is kept, 32 to a word. `interleaved`: block
  // by block, q8 in groups of four whose values are interleaved.
  const int32_t* piece = nullptr;       // columns: [C] first piece of a column; quads: [blocks + 1] of a block
  const uint16_t* piece_col = nullptr;  // interleaved: [pieces] the column of a piece
  const uint32_t* where = nullptr;      // columns: [C, words()] bit of a block
  const int32_t* strip = nullptr;       // [R / kGateStrip], a permutation
  // Compressed: zeros that lie anywhere. If `mask` is set, of every 64 elements (an entry) data holds those whose bit
  // is set, one behind the other, readable up to 64 past the end; tile and pitch do not count. Layout `columns`: a run
  // is a column, and its entries are the blocks; `interleaved`: a run is a block, and its entries are the columns, in
  // q8 four entries a group of them, interleaved.
  const uint64_t* mask = nullptr;  // [runs, entries]
  const int64_t* start = nullptr;  // [runs] where the elements of a run start
  Format format = Format::f32;
  Layout layout = Layout::columns;
  // Where a row of the data lies in the result.
  int place(int row) const { return placed(strip, row); }
  const char* form() const { return mask ? "bitmask" : piece ? "blocks" : "dense"; }
  bool block_sparse() const { return piece; }
  int words() const { return (rows / kRowBlock + 31) / 32; }
};

// Byte position inside a 64-byte block at which row r of the block lies in the q8 `columns` layout. Interleaving four
// columns with byte and word unpacks works inside 16-byte lanes; this order makes the result come out as rows 0..63.
constexpr int q8_row_position(int r) { return 16 * ((r % 16) / 4) + 4 * (r / 16) + r % 4; }

// How an element that is zero is stored; uint8_t is q8.
template <class T>
static constexpr T stored_zero() {
  return sizeof(T) == 1 && T(-1) > T(0) ? T(128) : T(0);
}

// Scratch that the q8 kernels need for n activation rows of C columns, in bytes: for the rows, and at room_at for a
// block of weights, expanded or in another order, and an address for each of its columns.
static constexpr size_t room_at(int n, int cols) { return 64 * size_t(n) * (size_t(cols) / kQuad + 4); }
static constexpr size_t scratch_bytes(int n, int cols) {
  return room_at(n, cols) + (kRowBlock + sizeof(void*)) * size_t(cols);
}

struct Kernels {
  const char* isa;

  // Share of the columns above which, for a chunk of timesteps, one `dense_int8` with all of them is faster than
  // `columns_int8` with those of each timestep (measured).
  double dense_above_share_int8;

  // y[j, :] = base + W z[j, :] for j < n; base is bias [R] or, if bias is null, what y already holds.
  // z: [n, C] with stride zs; y: [n, R] with stride ys. `reverse` visits the row tiles backwards: alternating it
  // between steps leaves the end of a matrix that does not fit the cache where the next step starts. The result is the
  // same.
  void (*dense)(const Matrix&, const float* z, ptrdiff_t zs, int n, const float* bias, float* y, ptrdiff_t ys,
                bool reverse);
  // The same for q8: z: [n, C] integers; largest: [n] what `quantize` returned for them, read if W is dynamic.
  void (*dense_int8)(const Matrix&, const int16_t* z, ptrdiff_t zs, const float* largest, int n, const float* bias,
                     float* y, ptrdiff_t ys, bool reverse, void* scratch);

  // acc[R] += W[:, cols] * delta over `count` listed columns. The lists have room for kListSlack entries more. acc of
  // q8 is the exact integer sum, without the scale. `reverse`: as above, and the columns of wide tiles too; of
  // floats that is another order of summation.
  void (*columns)(const Matrix&, const int32_t* cols, const float* delta, int count, float* acc, bool reverse);
  void (*columns_int8)(const Matrix&, int32_t* cols, int16_t* delta, int count, int32_t* acc, bool reverse,
                       void* scratch);

  // pre[R] = base + acc (q8: * scale), base as for `dense`.
  void (*add_bias)(const float* acc, const float* bias, float* pre, int rows);
  void (*dequantize)(const int32_t* acc, const float* scale, const float* bias, float* pre, int rows);

  // The LSTM cell on `blocks` blocks: pre [blocks, 4, 16]; c [blocks, 16] is updated; h [blocks, 16] is written.
  void (*cell)(const float* pre, float* c, float* h, int blocks);

  // q[i]: the integer that z[i], of the first n columns of a q8 matrix, is sent as (NaN becomes 0). Returns what the
  // sums of this row have to be multiplied by: the largest |z[i]| if the matrix is dynamic, else 1.
  float (*quantize)(const Matrix&, const float* z, int n, int16_t* q);

  // Lists the columns with |z - sent| > threshold (threshold null: z != sent), moves `sent` there, writes z - sent.
  int (*list_changed)(const float* z, float* sent, const float* threshold, int n, int32_t* cols, float* delta);
  // The same for q8, in integers: fires where the integer of z is not the one sent, and z is further than the threshold
  // from what that one stands for.
  int (*list_changed_int8)(const Matrix&, const float* z, int16_t* sent, const float* threshold, int n, int32_t* cols,
                           int16_t* delta);

  bool (*finite)(const float* z, size_t n);

  // Whether zeros are put back between the elements of a compressed matrix faster than whole ones come from memory.
  bool (*expands)(Format);

  // Mean of the squares of x - y, or of x if y is null, summed in double.
  double (*mean_square)(const float* x, const float* y, int n);
};

}  // namespace alstm
