// When a form or a path pays: every threshold that was measured, with the command that measures it. They decide speed
// alone, never a result. The lowest room that needs one of them is kernels, so they all live here.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace alstm {

// ---- Forms of a matrix (chosen when it is packed)

// Bytes from which a matrix whose columns are visited singly is one tile: half of a common second-level cache.
// python -m eval.latency --only delta
constexpr size_t kLargeMatrix = size_t(512) << 10;

// Share of blocks up to which the block-sparse form is faster. Integers are gathered for every row block anew, and a
// step has to regain that from memory.
// python -m eval.compression (rows "block 30%", "block 50%, int8")
constexpr double most_blocks(Format format) { return format == Format::int8 ? 0.65 : 0.8; }

// Bytes from which a matrix comes from beyond the second-level cache (nearly its common size), so that the bitmask form
// may pay. At half the size int8 steps would gain a quarter, but whole sequences, between whose steps the matrix stays
// in the cache, would lose a fifth.
// python -m eval.latency --only zeros
constexpr size_t kBeyondCache = size_t(1800) << 10;

// Share of zeros from which the bitmask form pays beyond the cache: reading less outweighs the expansion. With single
// columns of int8, expansion adds to the interleaving, and visiting whole columns is fast.
// python -m eval.latency --only zeros
constexpr double kZerosFloat = 0.3, kZerosBf16 = 0.4, kZerosInt8 = 0.3, kZerosInt8Columns = 0.6;

// ---- Kernels

// Rows of activations from which matrix tiles are faster than dot products, by layout: a tile takes as long for one row
// as for a few, and single columns are reordered first.
// python -m eval.latency --only batch (under ADAPTIVE_LSTM_ISA=amx and avx512vbmi2)
constexpr int kTileRowsInterleaved = 4, kTileRowsColumns = 16;

// Rows of activations from which weights become words once for all rows, where words are multiplied.
// python -m eval.throughput (under ADAPTIVE_LSTM_ISA=avx2)
constexpr int kWordRows = 6;

// Rows of activations from which weights are put together as pairs of rows, where those are multiplied. Not measured: no
// such processor was at hand. Putting them together costs as much as two rows save.
// python -m eval.throughput (under ADAPTIVE_LSTM_ISA=i8mm and neondot)
constexpr int kPairRows = 4;

// Rows of activations from which block-sparse int8 gathers them together, column by column.
// python -m eval.compression (row "block 50%, int8"), python -m eval.latency --only batch
constexpr int kGatherRows = 8;

// Bytes that a product with one row of integers prefetches ahead: the prefetchers of a processor stop at the end of a
// page, which costs a step that finds its weights in memory.
// python -m eval.streaming --only cold
constexpr int kReadAhead = 4096;

// Bytes that the bitmask form prefetches ahead: in a run that the next one follows, and in a column, which ends soon.
// python -m eval.latency --only zeros
constexpr int kRunAhead = 2048, kColumnAhead = 512;

// Rows of a map up to which it is multiplied without the rows that fill up a row block of 64.
// python -m eval.linearity --only exit_head
constexpr int kFewRows = 32;

// ---- Paths of a run

// Share of the columns sent above which, for a chunk of timesteps, one dense product is faster than sending the columns
// of each timestep: of int8 matrices with dot products of bytes, of words and with matrix tiles, and of float matrices,
// whose columns are four times the bytes.
// python -m eval.latency --only delta, python -m eval.linearity --only delta_xh (words)
constexpr double kDenseAboveShareInt8 = 0.3, kDenseAboveShareWords = 0.6, kDenseAboveShareInt8Tiles = 0.18,
                 kDenseAboveShareFloat = 0.12;

// A run goes ahead of exit checks by this part of the timesteps that it has done: an eighth.
// python -m eval.linearity --only exit_head,exit_settled
constexpr int kAheadPart = 8;

// Rows of a batch that are run together, and bytes of the outputs between two layers that they may have; long sequences
// lower the number of rows to the least. More rows read the weights less often, fewer stay in the cache.
// python -m eval.latency --only blocks
constexpr int kMostBlockRows = 128, kLeastBlockRows = 32;
constexpr ptrdiff_t kBlockBytes = ptrdiff_t(16) << 20;

// Bytes of weights that a call reads in all its timesteps and rows, from which a second thread is awake soon enough; and
// the fewest rows of a batch that a thread is given.
// python -m eval.cores
constexpr double kLeastTogether = double(4 << 20);
constexpr int kLeastThreadRows = 4;

// Chunks of timesteps that a layer has where layers run on several threads, one behind the other, and the fewest
// timesteps of one: the more chunks, the sooner all threads have work; each reads the layer's weights anew.
// python -m eval.cores
constexpr int kWaveChunks = 8, kLeastWaveSteps = 8;

// Bytes of a recurrent matrix from which its rows are shared out to threads that wait for each other at every timestep:
// it comes from beyond the second-level cache of one core, and a timestep takes much longer than the waiting.
// python -m eval.cores
constexpr size_t kLargePart = size_t(1) << 20;

// Share of held timesteps above which projecting a whole chunk costs more than projecting the timesteps that run.
// python -m eval.savings --zoo PATH (models with "hold" in their policy)
constexpr double kMostlyHeld = 0.5;

}  // namespace alstm
