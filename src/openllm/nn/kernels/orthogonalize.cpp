// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Newton-Schulz iterations of many matrices, one thread each, so that threads never wait.
//
// X <- (a I + b G + c G^2) X with G = X X^T; G and G^2 are symmetric: one triangle is computed.

#include <omp.h>

#include <cmath>
#include <vector>

#include "product.h"

#ifdef __AVX512BF16__

namespace {

constexpr int64_t TILE = 64;  // rows and columns of a symmetric product computed at a time
constexpr float A = 3.4445f, B = -4.7750f, C = 2.0315f;

void halve(const float* x, int64_t size, bf16* out) {
#pragma omp simd
  for (int64_t i = 0; i < size; i++) put(out + i, x[i]);
}

// left * right, symmetric: the triangle with row <= column in whole tiles, then mirrored.
void symmetric(const bf16* left, int64_t pairs, const Pair* right, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += TILE) {
    int64_t rows = std::min(TILE, n - i);
    multiply(reinterpret_cast<const Pair*>(left) + i * pairs, pairs, right + i, n, out + i * n + i,
             n, rows, n - i, pairs, false);
  }
  for (int64_t i = TILE; i < n; i += LANES)
    for (int64_t j = 0; j < i / TILE * TILE; j += LANES) {
      const Pair* tile[LANES];  // a pair is as wide as a float
      for (int64_t lane = 0; lane < LANES; lane++)
        tile[lane] = reinterpret_cast<const Pair*>(out + (j + lane) * n + i);
      turn_tile(tile, reinterpret_cast<Pair*>(out + i * n + j), n);
    }
}

void orthogonalize(float* x, int64_t n, int64_t width, int64_t steps) {
  std::vector<bf16> rows(n * width), square(n * n);
  std::vector<Pair> packed(n * width / 2), square_packed(n * n / 2);
  std::vector<float> gram(n * n), product(n * n);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n * width; i++) sum += x[i] * x[i];
  float scale = 1 / (std::sqrt(sum) + 1e-7f);
  for (int64_t i = 0; i < n * width; i++) put(rows.data() + i, x[i] * scale);
  for (int64_t step = 0; step < steps; step++) {
    Rows all{rows.data(), width, n};
    pack_columns(all, width, n, packed.data());
    symmetric(rows.data(), width / 2, packed.data(), n, gram.data());
    halve(gram.data(), n * n, square.data());
    pack_pairs({square.data(), n, n}, n, n, square_packed.data());
    symmetric(square.data(), n / 2, square_packed.data(), n, product.data());
    for (int64_t i = 0; i < n * n; i++) gram[i] = B * gram[i] + C * product[i];
    for (int64_t i = 0; i < n; i++) gram[i * (n + 1)] += A;
    halve(gram.data(), n * n, square.data());
    pack_pairs(all, width, n, packed.data());
    multiply(reinterpret_cast<const Pair*>(square.data()), n / 2, packed.data(), width, x, width, n,
             width, n / 2, false);
    halve(x, n * width, rows.data());
  }
}

}  // namespace

extern "C" {
// x is [count][n][width] with n <= width, both multiples of 32; overwritten.
void orthogonalize_b(float* x, int64_t count, int64_t n, int64_t width, int64_t steps,
                     int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < count; i++) orthogonalize(x + i * n * width, n, width, steps);
}
}

#endif
