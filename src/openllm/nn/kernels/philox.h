// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) and the
// Gumbel noise made of it. One word is one token's; a counter's four words are four tokens'.

#pragma once
#include <cmath>
#include <cstdint>

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

// -log(-log(1 - u)) with u = (word + 1/2) / 2^32: between -3.14 and 22.88
static inline double gumbel(uint32_t word) {
  double u = (word + 0.5) * 0x1p-32;
  return -std::log(-std::log1p(-u));
}
