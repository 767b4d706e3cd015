// SPDX-License-Identifier: Apache-2.0
// The three micro-kernels: C[32 rows][32 columns] (+)= A[32 rows][K] * B[K][32 columns], bf16 to float32.
//
// B is a panel of the packed weights, [K/2][32 columns][2]: what AMX tiles, AVX512-BF16 and oneDNN's brgemm all read.
// A is packed by us, so that each kernel gets the layout it reads best (`Layout`).
#pragma once

#include <ATen/native/CPUBlas.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace qllm {

using bf16 = uint16_t;

constexpr int kTile = 32;                  // rows and columns of C, and K of one step
constexpr int64_t kStep = kTile * kTile;   // elements of A or B that one step of K reads
constexpr int64_t kLine = 32;              // elements of a cache line

#define QLLM_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define QLLM_AMX __attribute__((target("amx-tile,amx-bf16,avx512f")))

// Where element (row, k) of a tile of 32 rows is: row * row_stride + k / 32 * step_stride + k % 32.
struct Layout {
  int64_t row_stride, step_stride;
};

// AMX reads 16 rows of 64 bytes. One after another in memory, they fall into different cache sets;
// rows that are K apart would share two or three of them.
// AVX512 reads the same rows a pair of numbers at a time, and uses up each cache line before the next.
inline Layout tile_layout() { return {kTile, kStep}; }
inline Layout brgemm_layout(int64_t k) { return {k, kTile}; }

// The compiler's tile intrinsics do not say what memory they read.
inline void memory_barrier() { asm volatile("" ::: "memory"); }

inline bool amx_permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Tile registers of the calling thread, for as long as it works for us.
QLLM_AMX inline void amx_acquire() {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
  asm volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

QLLM_AMX inline void amx_release() { _tile_release(); }

// Where B comes from, and what will be needed next when that is memory.
struct Source {
  bool memory;
  const bf16* ahead;
};

// Before a step of K whose B is in memory: asks for one step's worth of what lies at `ahead`, and reads B once
// in order. Tile loads read every other line, an order that the hardware prefetchers do not follow; and those
// of later steps, run early, take the line fill buffers from what is needed first. The no-ops fill the
// processor's window, so that it looks about one step ahead. Without them the rest gains nothing; with them
// 16 tokens take a tenth less.
QLLM_AMX inline void fetch_step(const bf16* b, const bf16* ahead) {
  for (int64_t i = 0; i < kStep; i += kLine) {
    _mm_prefetch(ahead + i, _MM_HINT_T1);
    memory_barrier();
    const __m512i line = _mm512_loadu_si512(b + i);
    asm volatile("nop; nop; nop; nop; nop; nop; nop; nop" ::"v"(line));
  }
}

// C has 32 floats a row; `c_in` is null to begin with zeros.
template <bool two_row_blocks>
QLLM_AMX inline void amx_multiply(const bf16* a, const bf16* b, const float* c_in, float* c,
                                  int64_t steps, Source source) {
  memory_barrier();
  constexpr int64_t kRow = kTile * sizeof(float);
  if (c_in) {
    _tile_loadd(0, c_in, kRow);
    _tile_loadd(1, c_in + 16, kRow);
    if (two_row_blocks) {
      _tile_loadd(2, c_in + 16 * kTile, kRow);
      _tile_loadd(3, c_in + 16 * kTile + 16, kRow);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if (two_row_blocks) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int64_t step = 0; step < steps; step++, a += kStep, b += kStep) {
    if (source.memory) fetch_step(b, source.ahead + step * kStep);
    _tile_loadd(6, b, 128);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + 32, 128);
    _tile_dpbf16ps(1, 4, 7);
    if (two_row_blocks) {
      _tile_loadd(5, a + 16 * kTile, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, kRow);
  _tile_stored(1, c + 16, kRow);
  if (two_row_blocks) {
    _tile_stored(2, c + 16 * kTile, kRow);
    _tile_stored(3, c + 16 * kTile + 16, kRow);
  }
  memory_barrier();
}

// Rows whose sums fit into registers: 24 of 32 for 12 rows, which leaves room for B and for a pair of A.
constexpr int kAvx512Rows = 12;

// From so many rows on, computing with a panel takes longer than reading it, and it pays to ask for the next one
// meanwhile: 3 to 16 % on Zen 4. With fewer rows the hardware prefetchers read faster alone, by a quarter.
constexpr int kAvx512FetchRows = 8;

// `rows` rows of A by a panel. Each sum has one accumulator and takes the pairs of K in order, whatever `rows` is.
// With each pair of K, `lines` cache lines are asked for from memory, beginning at `ahead`.
template <int rows, int lines>
QLLM_AVX512 void avx512_rows(const bf16* a, const bf16* b, const float* c_in, float* c, int64_t steps,
                             const bf16* ahead) {
  __m512 low[rows], high[rows];  // columns 0 to 15, and 16 to 31
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    low[r] = c_in ? _mm512_load_ps(c_in + r * kTile) : _mm512_setzero_ps();
    high[r] = c_in ? _mm512_load_ps(c_in + r * kTile + 16) : _mm512_setzero_ps();
  }
  for (int64_t step = 0; step < steps; step++, a += kStep) {
    for (int pair = 0; pair < kTile; pair += 2, b += 2 * kLine, ahead += lines * kLine) {
      for (int line = 0; line < lines; line++) _mm_prefetch(ahead + line * kLine, _MM_HINT_T1);
      const auto b_low = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b));
      const auto b_high = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + kLine));
#pragma GCC unroll 12
      for (int r = 0; r < rows; r++) {
        int32_t both;
        std::memcpy(&both, a + r * kTile + pair, sizeof both);
        const auto a_r = reinterpret_cast<__m512bh>(_mm512_set1_epi32(both));
        low[r] = _mm512_dpbf16_ps(low[r], a_r, b_low);
        high[r] = _mm512_dpbf16_ps(high[r], a_r, b_high);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    _mm512_store_ps(c + r * kTile, low[r]);
    _mm512_store_ps(c + r * kTile + 16, high[r]);
  }
}

template <int lines, int... before>
constexpr auto avx512_sizes(std::integer_sequence<int, before...>) {
  return std::array{avx512_rows<before + 1, lines>...};  // of 1 row, 2 rows, ...
}

// 1 to 32 rows, in blocks of nearly the same size: 32 are 11, 11 and 10. `next` is the panel needed after this one,
// or null when it is near already. A single block asks for all of it, the first two of several for half of it each.
inline void avx512_multiply(const bf16* a, const bf16* b, const float* c_in, float* c, int64_t steps,
                            int rows, const bf16* next) {
  constexpr std::make_integer_sequence<int, kAvx512Rows> kSizes{};
  static constexpr std::array kMultiply{avx512_sizes<0>(kSizes), avx512_sizes<1>(kSizes),
                                        avx512_sizes<2>(kSizes)};  // by `lines`
  int blocks = (rows + kAvx512Rows - 1) / kAvx512Rows;
  int to_ask = next && rows >= kAvx512FetchRows ? 2 : 0;  // halves of `next`
  for (const int each = blocks == 1 ? 2 : 1; blocks > 0; blocks--) {
    const int some = (rows + blocks - 1) / blocks, lines = std::min(each, to_ask);
    kMultiply[lines][some - 1](a, b, c_in, c, steps, next);
    next += lines * steps * kStep / 2;
    to_ask -= lines;
    a += some * kTile;
    c += some * kTile;
    if (c_in) c_in += some * kTile;
    rows -= some;
  }
}

// oneDNN's micro-kernel accumulates in place, so `c_in` is `c` or null. Always 32 rows: each shape is a
// kernel that is generated on first use.
inline void brgemm_multiply(const bf16* a, int64_t lda, const bf16* b, const float* c_in, float* c,
                            int64_t steps) {
  at::native::cpublas::brgemm(kTile, kTile, steps * kTile, lda, kTile, kTile, c_in != nullptr,
                              reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c);
}

}  // namespace qllm
