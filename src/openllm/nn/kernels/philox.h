// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) and the
// Gumbel noise made of it. One word is one token's; a counter's four words are four tokens'.

#pragma once
#include <cmath>
#include <cstdint>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// The words of N counters (position, first + i, sample, 0), in order. Stages are loops over the
// counters, which vectorise.
template <int N>
static inline void philox_tile(uint32_t first, uint32_t position, uint32_t sample, uint64_t key,
                               uint32_t* words) {
  uint32_t c0[N], c1[N], c2[N], c3[N];
  for (int i = 0; i < N; i++) {
    c0[i] = position;
    c1[i] = first + i;
    c2[i] = sample;
    c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
#pragma omp simd
    for (int i = 0; i < N; i++) {
      uint64_t left = static_cast<uint64_t>(0xD2511F53u) * c0[i];
      uint64_t right = static_cast<uint64_t>(0xCD9E8D57u) * c2[i];
      c0[i] = static_cast<uint32_t>(right >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(left >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(right);
      c3[i] = static_cast<uint32_t>(left);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < N; i++) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

#ifdef __AVX512F__
struct Halves {
  __m512i high, low;
};

static inline Halves multiply_words(__m512i x, __m512i factor) {
  __m512i even = _mm512_mul_epu32(x, factor);
  __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  return {_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd),
          _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32))};
}

// By hand, since compilers spend most of the time on moving halves of products.
template <>
inline void philox_tile<16>(uint32_t first, uint32_t position, uint32_t sample, uint64_t key,
                            uint32_t* words) {
  // in such an order that transposing blocks of 4 x 4 puts the words of each counter in its place
  __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i c0 = _mm512_set1_epi32(position), c1 = _mm512_add_epi32(lanes, _mm512_set1_epi32(first));
  __m512i c2 = _mm512_set1_epi32(sample), c3 = _mm512_setzero_si512();
  __m512i m0 = _mm512_set1_epi64(0xD2511F53u), m1 = _mm512_set1_epi64(0xCD9E8D57u);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; round++) {
    Halves left = multiply_words(c0, m0), right = multiply_words(c2, m1);
    c0 = _mm512_xor_si512(_mm512_xor_si512(right.high, c1), _mm512_set1_epi32(k0));
    c2 = _mm512_xor_si512(_mm512_xor_si512(left.high, c3), _mm512_set1_epi32(k1));
    c1 = right.low;
    c3 = left.low;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  __m512i a = _mm512_unpacklo_epi32(c0, c1), b = _mm512_unpacklo_epi32(c2, c3);
  __m512i c = _mm512_unpackhi_epi32(c0, c1), d = _mm512_unpackhi_epi32(c2, c3);
  _mm512_storeu_si512(words, _mm512_unpacklo_epi64(a, b));
  _mm512_storeu_si512(words + 16, _mm512_unpackhi_epi64(a, b));
  _mm512_storeu_si512(words + 32, _mm512_unpacklo_epi64(c, d));
  _mm512_storeu_si512(words + 48, _mm512_unpackhi_epi64(c, d));
}
#endif

// -log(-log(1 - u)) with u = (word + 1/2) / 2^32: between -3.14 and 22.88
static inline double gumbel(uint32_t word) {
  double u = (word + 0.5) * 0x1p-32;
  return -std::log(-std::log1p(-u));
}
