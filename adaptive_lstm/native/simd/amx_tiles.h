// AMX: tiles of 16 rows of 64 bytes, and the product of two of them in one instruction.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace {

// Configures the tile registers for its lifetime, for up to kRows rows of activations and columns whose last tile has
// `tail` bytes, 0 for a full one. Released at the end: tiles in use slow down context switches.
class Tiles {
 public:
  static constexpr bool here = true;
  static constexpr int kRows = 16, kBytes = 64, kQuad = 4;

  Tiles(int rows, int tail) {
    Shapes shapes{};
    shapes.palette = 1;
    for (int sum = 0; sum < 4; sum++) shapes.set(sum, rows, kBytes);
    shapes.set(4, rows, kBytes);
    shapes.set(5, kRows, kBytes);
    if (tail) {
      shapes.set(6, rows, tail);
      shapes.set(7, tail / kQuad, kBytes);
    }
    // Not the intrinsic: its declaration in GCC 12 reads 8 bytes only, so stores to the others may be dropped.
    __asm__ volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // out[i][j][r], i < 4, j < rows, r < 16: row j of z (signed, zs bytes apart) times row 16 i + r of w (unsigned), over
  // `cols` columns. The four bytes of a quad of w are adjacent in a row, and quads are ws bytes apart.
  static void multiply(const uint8_t* z, ptrdiff_t zs, const uint8_t* w, ptrdiff_t ws, int cols,
                       int32_t (&out)[4][kRows][16]) {
    __asm__ volatile("" ::: "memory");  // the compiler does not know that tiles are read from memory
    // Tile registers: 0 to 3 sums; 4 activations and 5 weights; 6 and 7 the same for the tail.
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    int k = 0;
    for (; k + kBytes <= cols; k += kBytes) {
      const uint8_t* at = w + k / kQuad * ws;
      _tile_loadd(4, z + k, zs);
      _tile_loadd(5, at, ws);
      _tile_dpbsud(0, 4, 5);
      _tile_loadd(5, at + 64, ws);
      _tile_dpbsud(1, 4, 5);
      _tile_loadd(5, at + 128, ws);
      _tile_dpbsud(2, 4, 5);
      _tile_loadd(5, at + 192, ws);
      _tile_dpbsud(3, 4, 5);
    }
    if (k < cols) {
      const uint8_t* at = w + k / kQuad * ws;
      _tile_loadd(6, z + k, zs);
      _tile_loadd(7, at, ws);
      _tile_dpbsud(0, 6, 7);
      _tile_loadd(7, at + 64, ws);
      _tile_dpbsud(1, 6, 7);
      _tile_loadd(7, at + 128, ws);
      _tile_dpbsud(2, 6, 7);
      _tile_loadd(7, at + 192, ws);
      _tile_dpbsud(3, 6, 7);
    }
    _tile_stored(0, out[0], 64);
    _tile_stored(1, out[1], 64);
    _tile_stored(2, out[2], 64);
    _tile_stored(3, out[3], 64);
  }

 private:
  struct Shapes {  // as LDTILECFG reads them
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
    void set(int tile, int r, int b) { rows[tile] = uint8_t(r), bytes[tile] = uint16_t(b); }
  };
  static_assert(sizeof(Shapes) == 64, "the layout is the processor's");
};

}  // namespace
