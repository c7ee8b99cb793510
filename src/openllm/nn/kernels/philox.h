// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) and the
// Gumbel noise made of it. One word is one token's; a counter's four words are four tokens'.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct Words {
  uint32_t at[4];
};

static inline Words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    uint64_t left = static_cast<uint64_t>(0xD2511F53u) * c0;
    uint64_t right = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(right >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(left >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(right);
    c3 = static_cast<uint32_t>(left);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// -log(-log(1 - u)) with u = (word + 1/2) / 2^32: between -3.14 and 22.88
static inline double gumbel(uint32_t word) {
  double u = (word + 0.5) * 0x1p-32;
  return -std::log(-std::log1p(-u));
}

// Of a positive normal number; absolute error below 1e-6 up to 100.
static inline float fast_log(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  // mantissa between sqrt(1/2) and sqrt(2)
  int32_t power = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  bits -= static_cast<uint32_t>(power) << 23;
  float m;
  memcpy(&m, &bits, 4);
  float s = (m - 1) / (m + 1), q = s * s;
  float series = 2 + q * (0.66666667f + q * (0.4f + q * (0.2857143f + q * 0.2222222f)));
  return s * series + power * 0.69314718f;
}

// Within 2e-5 of `gumbel`, in loops that vectorise.
static inline float fast_gumbel(uint32_t word) {
  // each of u and 1 - u from the integer, so that neither loses the digits of a small value
  float u = (static_cast<float>(word) + 0.5f) * 0x1p-32f;
  float rest = (static_cast<float>(~word) + 0.5f) * 0x1p-32f;
  float small = u * (1 + u * (0.5f + u * (0.33333333f + u * 0.25f)));
  float large = -fast_log(rest);
  return -fast_log(u < 0.015625f ? small : large);
}
