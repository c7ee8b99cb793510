// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products of small bfloat16 matrices that stay in the cache, with float32 accumulation.
//
// The CPU's dot-product instruction takes pairs of bfloat16: in a product A B, A holds pairs along
// the summed axis in memory order, and B is packed so that one vector holds the pairs of 16
// columns.

#pragma once
#ifdef __AVX512BF16__
#include <immintrin.h>

#include <algorithm>

#include "simd.h"

namespace {

constexpr int64_t LANES = 16;  // columns per vector
constexpr int64_t ROWS = 4;    // rows computed together

using Pair = uint32_t;  // two bfloat16

// Row i is at data + i * stride.
struct Rows {
  const bf16* data;
  int64_t stride, count;

  const bf16* row(int64_t i) const { return data + i * stride; }
};

// C[ROWS][16 V] (+)= A[ROWS][pairs] B[pairs][16 V]
template <int V>
void product(const Pair* a, int64_t lda, const Pair* b, int64_t ldb, float* c, int64_t ldc,
             int64_t pairs, bool add) {
  __m512 sum[ROWS][V];
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < V; v++)
      sum[r][v] = add ? _mm512_loadu_ps(c + r * ldc + v * LANES) : _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; p++) {
    __m512i right[V];
    for (int v = 0; v < V; v++) right[v] = _mm512_loadu_si512(b + p * ldb + v * LANES);
    for (int r = 0; r < ROWS; r++) {
      __m512i left = _mm512_set1_epi32(static_cast<int>(a[r * lda + p]));
      for (int v = 0; v < V; v++)
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)left, (__m512bh)right[v]);
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < V; v++) _mm512_storeu_ps(c + r * ldc + v * LANES, sum[r][v]);
}

// C[rows][columns] (+)= A B; rows is a multiple of ROWS, columns of LANES.
void multiply(const Pair* a, int64_t lda, const Pair* b, int64_t ldb, float* c, int64_t ldc,
              int64_t rows, int64_t columns, int64_t pairs, bool add) {
  for (int64_t j = 0; j < columns; j += 4 * LANES) {
    int64_t vectors = std::min<int64_t>(4, (columns - j) / LANES);
    for (int64_t r = 0; r < rows; r += ROWS) {
      const Pair* left = a + r * lda;
      float* out = c + r * ldc + j;
      switch (vectors) {
        case 4: product<4>(left, lda, b + j, ldb, out, ldc, pairs, add); break;
        case 3: product<3>(left, lda, b + j, ldb, out, ldc, pairs, add); break;
        case 2: product<2>(left, lda, b + j, ldb, out, ldc, pairs, add); break;
        default: product<1>(left, lda, b + j, ldb, out, ldc, pairs, add);
      }
    }
  }
}

// Row i of `in` becomes column i of `out`, 16 x 16.
void turn_tile(const Pair* const* in, Pair* out, int64_t stride) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(in[i]);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    _mm512_storeu_si512(out + j * stride, _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88));
    _mm512_storeu_si512(out + (j + 8) * stride, _mm512_shuffle_i32x4(b[j], b[j + 8], 0xdd));
  }
}

// Pack to [pair of columns][row]: B of a product that sums over columns; dim is a multiple of 32,
// and missing rows of x up to `padded` are zero.
void pack_columns(const Rows& x, int64_t dim, int64_t padded, Pair* out) {
  static const Pair zeros[LANES] = {};
  for (int64_t i = 0; i < padded; i += LANES)
    for (int64_t p = 0; p < dim / 2; p += LANES) {
      const Pair* tile[LANES];
      for (int64_t lane = 0; lane < LANES; lane++)
        tile[lane] = i + lane < x.count
                         ? reinterpret_cast<const Pair*>(x.row(i + lane)) + p
                         : zeros;
      turn_tile(tile, out + p * padded + i, padded);
    }
}

// Pack to [pair of rows][column]: B of a product that sums over rows; missing rows are zero.
void pack_pairs(const Rows& x, int64_t dim, int64_t padded, Pair* out) {
  for (int64_t p = 0; p < padded / 2; p++) {
    const bf16* even = 2 * p < x.count ? x.row(2 * p) : nullptr;
    const bf16* odd = 2 * p + 1 < x.count ? x.row(2 * p + 1) : nullptr;
    for (int64_t j = 0; j < dim; j++) {
      Pair low = even ? even[j] : 0, high = odd ? odd[j] : 0;
      out[p * dim + j] = low | high << 16;
    }
  }
}

}  // namespace
#endif
