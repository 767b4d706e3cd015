// SPDX-License-Identifier: Apache-2.0
// Activations of a gated expert on sixteen float32 lanes.
#pragma once

#include "tiles.h"

namespace qllm {

enum Activation : int32_t { kSilu = 0, kGelu = 1, kGeluTanh = 2, kSwigluOai = 3 };

// exp(x) to about 1e-7 relative: 2^round(x/ln 2) times a polynomial on [-ln 2 / 2, ln 2 / 2].
QLLM_AVX512 inline __m512 exp16(__m512 x) {
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.3f)), _mm512_set1_ps(88.3f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.f / 720);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);
}

// 1 / x to about 1e-7 relative, in a fifth of the time of a division.
QLLM_AVX512 inline __m512 reciprocal16(__m512 x) {
  const __m512 r = _mm512_rcp14_ps(x);
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.f)), r);
}

QLLM_AVX512 inline __m512 sigmoid16(__m512 x) {
  return reciprocal16(_mm512_add_ps(_mm512_set1_ps(1.f), exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// erf(x) to 1.5e-7 absolute (Abramowitz and Stegun, 7.1.26).
QLLM_AVX512 inline __m512 erf16(__m512 x) {
  const __m512 a = _mm512_abs_ps(x), one = _mm512_set1_ps(1.f);
  const __m512 t = reciprocal16(_mm512_fmadd_ps(a, _mm512_set1_ps(0.3275911f), one));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 e = exp16(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(a, a)));
  const __m512 y = _mm512_fnmadd_ps(_mm512_mul_ps(p, t), e, one);
  return _mm512_mask_sub_ps(y, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ),
                            _mm512_setzero_ps(), y);
}

template <Activation activation>
QLLM_AVX512 inline __m512 gated(__m512 gate, __m512 up) {
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.f);
  if constexpr (activation == kSilu) {
    return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid16(gate)), up);
  } else if constexpr (activation == kGelu) {
    const __m512 e = erf16(_mm512_mul_ps(gate, _mm512_set1_ps(0.70710678f)));
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(gate, half), _mm512_add_ps(one, e)), up);
  } else if constexpr (activation == kGeluTanh) {  // (1 + tanh(u)) / 2 = sigmoid(2 u)
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(gate, gate), gate);
    const __m512 u = _mm512_mul_ps(_mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), gate),
                                   _mm512_set1_ps(2 * 0.79788456f));
    return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid16(u)), up);
  } else {
    const __m512 limit = _mm512_set1_ps(7.f);  // min and max give back their second operand for a NaN
    gate = _mm512_min_ps(limit, gate);
    up = _mm512_max_ps(_mm512_set1_ps(-7.f), _mm512_min_ps(limit, up));
    const __m512 s = sigmoid16(_mm512_mul_ps(gate, _mm512_set1_ps(1.702f)));
    return _mm512_mul_ps(_mm512_mul_ps(gate, s), _mm512_add_ps(up, one));
  }
}

QLLM_AVX512 inline __m512 widen16(const bf16* x) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

QLLM_AVX512 inline void store_bf16x32(bf16* to, __m512 low, __m512 high) {
  _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

// Turns 32 columns of gate and 32 of up into 32 columns of the down projection's input. `first` and
// `second` are two panels of gate-up output, 32 floats a row; the biases may be null. swigluoai has gate
// and up columns alternating, so each panel holds sixteen of both.
template <Activation activation>
QLLM_AVX512 inline void activate(const float* first, const float* second, const bf16* bias_first,
                                 const bf16* bias_second, int rows, bf16* to, int64_t row_stride) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  __m512 bias[4] = {};
  for (int i = 0; i < 2 && bias_first; i++) {
    bias[i] = widen16(bias_first + 16 * i);
    bias[2 + i] = widen16(bias_second + 16 * i);
  }
  for (int r = 0; r < rows; r++, first += kTile, second += kTile, to += row_stride) {
    const __m512 a = _mm512_add_ps(_mm512_loadu_ps(first), bias[0]);
    const __m512 b = _mm512_add_ps(_mm512_loadu_ps(first + 16), bias[1]);
    const __m512 c = _mm512_add_ps(_mm512_loadu_ps(second), bias[2]);
    const __m512 d = _mm512_add_ps(_mm512_loadu_ps(second + 16), bias[3]);
    if constexpr (activation == kSwigluOai) {
      store_bf16x32(to,
                    gated<activation>(_mm512_permutex2var_ps(a, even, b),
                                      _mm512_permutex2var_ps(a, odd, b)),
                    gated<activation>(_mm512_permutex2var_ps(c, even, d),
                                      _mm512_permutex2var_ps(c, odd, d)));
    } else {
      store_bf16x32(to, gated<activation>(a, c), gated<activation>(b, d));
    }
  }
}

}  // namespace qllm
