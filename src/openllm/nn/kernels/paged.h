// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Attention of a few queries over keys and values in pages.
//
// Keys come in units of 16 tokens, whose values lie as [16 tokens][H] and whose keys lie turned,
// [H][16 tokens], so that one vector holds the scores of 16 tokens. A query visits the units from
// its first to its last in order, with a running maximum (arXiv:2205.14135), whatever queries are
// computed beside it.

#pragma once
#include "vectors.h"

namespace {

// How scores are computed.
struct Rule {
  float softcap;   // 0: none
  int64_t window;  // 0: none
};

// One query of one head.
struct Query {
  const float* q;  // (H), scaled
  float* sums;     // (H) padded to vectors: of values, weighted
  float most;
  Floats weights;
  int64_t first, position;  // of the tokens seen
};

constexpr int STRANDS = 4;

// Sums that Q queries keep in registers at a time; without AVX-512 there are half as many.
template <int Q>
constexpr int AT_ONCE = PARTS == 1 ? 4 : Q == 1 ? 8 : Q == 2 ? 4 : 2;

// Scores of 16 tokens for Q queries; each sum over H runs in four strands.
template <int Q, typename T>
void score(const T* keys, int64_t dim, const Query* queries, Whole* scores) {
  constexpr int S = AT_ONCE<Q> / PARTS;  // strands at a time
  PartFloats strands[Q][STRANDS][PARTS];
  for (int first = 0; first < STRANDS; first += S) {
    PartFloats sums[Q][S][PARTS] = {};
    auto add = [&](int64_t d, int i) {
      for (int p = 0; p < PARTS; p++) {
        const PartFloats key = load_part(keys + d * LANES + p * PART);
        for (int q = 0; q < Q; q++)
          sums[q][i][p] = fma(fill_part(queries[q].q[d]), key, sums[q][i][p]);
      }
    };
    int64_t d = first;
    for (; d + S <= dim; d += STRANDS)
      for (int i = 0; i < S; i++) add(d + i, i);
    for (int i = 0; d + i < dim; i++) add(d + i, i);
    for (int q = 0; q < Q; q++)
      for (int i = 0; i < S; i++)
        for (int p = 0; p < PARTS; p++) strands[q][first + i][p] = sums[q][i][p];
  }
  for (int q = 0; q < Q; q++)
    for (int p = 0; p < PARTS; p++)
      scores[q].parts[p] =
          (strands[q][0][p] + strands[q][1][p]) + (strands[q][2][p] + strands[q][3][p]);
}

// sums += weights times values, V parts of H from d on.
template <int Q, int V, typename T>
void blend(const T* values, int64_t dim, int64_t d, const float (*weights)[LANES],
           const float* decay, Query* queries) {
  PartFloats sums[Q][V];
  for (int q = 0; q < Q; q++)
    for (int v = 0; v < V; v++)
      sums[q][v] = load_part(queries[q].sums + d + v * PART) * decay[q];
  for (int64_t t = 0; t < LANES; t++)
    for (int v = 0; v < V; v++) {
      const PartFloats value = load_part(values + t * dim + d + v * PART);
      for (int q = 0; q < Q; q++) sums[q][v] = fma(fill_part(weights[q][t]), value, sums[q][v]);
    }
  for (int q = 0; q < Q; q++)
    for (int v = 0; v < V; v++) store_part(queries[q].sums + d + v * PART, sums[q][v]);
}

// Let Q queries see the 16 tokens from `start` on; dim is a multiple of 16 for values.
template <int Q, typename K, typename V>
void visit(const K* keys, const V* values, int64_t key_dim, int64_t dim, int64_t start,
           const Rule& rule, Query* queries) {
  const Ints order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Whole scores[Q];
  float weights[Q][LANES], decay[Q];
  score<Q>(keys, key_dim, queries, scores);
  for (int q = 0; q < Q; q++) {
    Query& query = queries[q];
    Floats points = scores[q].all;
    if (rule.softcap > 0) points = rule.softcap * tanh16(points / rule.softcap);
    Ints first = order * 0 + static_cast<int32_t>(query.first - start);
    Ints last = order * 0 + static_cast<int32_t>(query.position - start);
    Ints seen = (order >= first) & (order <= last);
    points = seen ? points : fill(-INFINITY);
    float most = std::max(query.most, largest(points));
    Floats weight = exponential(points - most);
    weight = seen ? weight : Floats{};
    decay[q] = exponential(fill(query.most - most))[0];
    query.weights = query.weights * decay[q] + weight;
    query.most = most;
    store(weights[q], weight);
  }
  int64_t d = 0;
  constexpr int64_t WIDE = AT_ONCE<Q> * PART;
  for (; d + WIDE <= dim; d += WIDE)
    blend<Q, AT_ONCE<Q>>(values, dim, d, weights, decay, queries);
  for (; d < dim; d += LANES) blend<Q, PARTS>(values, dim, d, weights, decay, queries);
}

// Let queries, whose number is at most `count`, see 16 tokens.
template <typename K, typename V>
void visit_all(const K* keys, const V* values, int64_t key_dim, int64_t dim, int64_t start,
               const Rule& rule, Query* queries, int64_t count) {
  for (; count >= 4; count -= 4, queries += 4)
    visit<4>(keys, values, key_dim, dim, start, rule, queries);
  if (count >= 2) {
    visit<2>(keys, values, key_dim, dim, start, rule, queries);
    count -= 2, queries += 2;
  }
  if (count) visit<1>(keys, values, key_dim, dim, start, rule, queries);
}

}  // namespace
