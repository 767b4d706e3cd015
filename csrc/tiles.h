// SPDX-License-Identifier: Apache-2.0
// The two micro-kernels: C[32 rows][32 columns] (+)= A[32 rows][K] * B[K][32 columns], bf16 to float32.
//
// B is a panel of the packed weights, [K/2][32 columns][2]: what AMX tiles and oneDNN's brgemm both read.
// A is packed by us, so that each kernel gets the layout it reads best (`Layout`).
#pragma once

#include <ATen/native/CPUBlas.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

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
inline Layout amx_layout() { return {kTile, kStep}; }
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

// What will be read soon: at every step of K, `lines` cache lines of the next 2 KiB after `from`.
struct Ahead {
  const bf16* from;
  int64_t lines;
};

// One row of C is `ldc` floats from the next.
template <bool two_row_blocks>
QLLM_AMX inline void amx_multiply(const bf16* a, const bf16* b, const float* c_in, int64_t ldc_in,
                                  float* c, int64_t ldc, int64_t steps, Ahead ahead) {
  memory_barrier();
  if (c_in) {
    _tile_loadd(0, c_in, ldc_in * 4);
    _tile_loadd(1, c_in + 16, ldc_in * 4);
    if (two_row_blocks) {
      _tile_loadd(2, c_in + 16 * ldc_in, ldc_in * 4);
      _tile_loadd(3, c_in + 16 * ldc_in + 16, ldc_in * 4);
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
    for (int64_t i = 0; i < ahead.lines; i++) _mm_prefetch(ahead.from + i * kLine, _MM_HINT_T1);
    ahead.from += kStep;
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
  _tile_stored(0, c, ldc * 4);
  _tile_stored(1, c + 16, ldc * 4);
  if (two_row_blocks) {
    _tile_stored(2, c + 16 * ldc, ldc * 4);
    _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
  }
  memory_barrier();
}

// oneDNN's micro-kernel accumulates in place; `c_in` other than `c` is copied there first. Always 32 rows:
// each shape is a kernel that is generated on first use.
inline void brgemm_multiply(const bf16* a, int64_t lda, const bf16* b, const float* c_in,
                            int64_t ldc_in, float* c, int64_t ldc, int64_t steps) {
  if (c_in && c_in != c)
    for (int r = 0; r < kTile; r++) std::memcpy(c + r * ldc, c_in + r * ldc_in, kTile * sizeof(float));
  at::native::cpublas::brgemm(kTile, kTile, steps * kTile, lda, kTile, ldc, c_in != nullptr,
                              reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c);
}

}  // namespace qllm
