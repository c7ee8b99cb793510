// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Causal attention within each document: bfloat16 in and out, float32 accumulation.
//
// Queries and keys are processed in blocks, so that scores stay in the cache (arXiv:2205.14135);
// the backward pass recomputes them.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "product.h"

#ifdef __AVX512BF16__

namespace {

constexpr int64_t BLOCK = 64;  // queries and keys per block

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

__m512 exp16(__m512 x) {
  x = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896f));
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), x);  // this operand order keeps NaN
  __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.3333558e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, whole);
}

// Copy to [row][pair of columns]; missing rows up to `padded` are zero.
void pack_rows(const Rows& x, int64_t dim, int64_t padded, Pair* out) {
  for (int64_t i = 0; i < padded; i++) {
    if (i < x.count)
      memcpy(out + i * dim / 2, x.row(i), dim * sizeof(bf16));
    else
      memset(out + i * dim / 2, 0, dim * sizeof(bf16));
  }
}

// [pair of rows][column] -> [column][pair of rows]: A of a product that sums over rows
void turn_pairs(const Pair* pairs, int64_t dim, int64_t padded, Pair* out) {
  for (int64_t p = 0; p < padded / 2; p += LANES)
    for (int64_t j = 0; j < dim; j += LANES) {
      const Pair* tile[LANES];
      for (int64_t lane = 0; lane < LANES; lane++) tile[lane] = pairs + (p + lane) * dim + j;
      turn_tile(tile, out + j * (padded / 2) + p, padded / 2);
    }
}

// float [rows][BLOCK] -> pairs along a row, [rows][BLOCK / 2]
void halve_along(const float* x, int64_t rows, Pair* out) {
  for (int64_t i = 0; i < rows * BLOCK / 32; i++) {
    __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 32 * i + 16), _mm512_loadu_ps(x + 32 * i));
    _mm512_storeu_si512(out + 16 * i, (__m512i)both);
  }
}

// float [rows][BLOCK] -> pairs of neighbouring rows, [rows / 2][BLOCK]
void halve_across(const float* x, int64_t rows, Pair* out) {
  for (int64_t p = 0; p < rows / 2; p++)
    for (int64_t j = 0; j < BLOCK; j += LANES) {
      __m256bh low = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + 2 * p * BLOCK + j));
      __m256bh high = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + (2 * p + 1) * BLOCK + j));
      __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)high), 16);
      wide = _mm512_or_si512(wide, _mm512_cvtepu16_epi32((__m256i)low));
      _mm512_storeu_si512(out + p * BLOCK + j, wide);
    }
}

// Causal mask of the queries from `query` on against the `keys` keys from `key` on: row r sees
// `of(r)` of them, those up to itself.
struct Visible {
  int64_t query, key, keys;

  int64_t of(int64_t row) const {
    return std::clamp<int64_t>(query + row - key + 1, 0, keys);
  }
};

// S = Q K^T for a query block, skipping groups of 16 columns that none of four rows can see.
void scores(const Pair* q, const Pair* columns, int64_t padded, int64_t dim, int64_t rows,
            const Visible& visible, float* s) {
  for (int64_t r = 0; r < rows; r += ROWS) {
    int64_t seen = round_up(visible.of(r + ROWS - 1), LANES);
    if (seen > 0)
      multiply(q + r * dim / 2, dim / 2, columns + visible.key, padded, s + r * BLOCK, BLOCK, ROWS,
               seen, dim / 2, false);
  }
}

struct Shape {
  int64_t heads, groups, dim;  // query heads, key-value heads, head dim
  float scale;
};

struct Scratch {
  std::vector<Pair> pairs;
  std::vector<float> floats;
  size_t pair_at = 0, float_at = 0;

  void begin(size_t pair_count, size_t float_count) {
    if (pairs.size() < pair_count) pairs.resize(pair_count);
    if (floats.size() < float_count) floats.resize(float_count);
    pair_at = float_at = 0;
  }
  Pair* take_pairs(int64_t n) { return pairs.data() + (pair_at += n) - n; }
  float* take_floats(int64_t n) { return floats.data() + (float_at += n) - n; }
};

void forward_head(const Rows& q, const Rows& k, const Rows& v, const Shape& shape, bf16* out,
                  int64_t out_stride, float* lse, int64_t lse_stride, Scratch& scratch) {
  int64_t dim = shape.dim, count = q.count, padded = round_up(count, BLOCK);
  scratch.begin(padded * dim * 3 / 2 + BLOCK * BLOCK / 2, BLOCK * (BLOCK + dim));
  Pair* queries = scratch.take_pairs(padded * dim / 2);
  Pair* keys = scratch.take_pairs(padded * dim / 2);
  Pair* values = scratch.take_pairs(padded * dim / 2);
  Pair* p = scratch.take_pairs(BLOCK * BLOCK / 2);
  float* s = scratch.take_floats(BLOCK * BLOCK);
  float* sum = scratch.take_floats(BLOCK * dim);
  pack_rows(q, dim, padded, queries);
  pack_columns(k, dim, padded, keys);
  pack_pairs(v, dim, padded, values);
  __m512 scale = _mm512_set1_ps(shape.scale);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t query = 0; query < count; query += BLOCK) {
    int64_t here = std::min(BLOCK, count - query), rows = round_up(here, ROWS);
    float top[BLOCK], norm[BLOCK];
    std::fill(top, top + BLOCK, -INFINITY);
    std::fill(norm, norm + BLOCK, 0.f);
    for (int64_t key = 0; key <= query; key += BLOCK) {
      Visible visible{query, key, std::min(BLOCK, count - key)};
      scores(queries + query * dim / 2, keys, padded, dim, rows, visible, s);
      for (int64_t r = 0; r < rows; r++) {
        int64_t seen = visible.of(r);
        float* row = s + r * BLOCK;
        __m512 best = _mm512_set1_ps(-INFINITY);
        for (int64_t j = 0; j < seen; j += LANES) {
          __mmask16 mask = _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(seen - j));
          __m512 x = _mm512_mul_ps(_mm512_loadu_ps(row + j), scale);
          _mm512_storeu_ps(row + j, x);
          best = _mm512_mask_max_ps(best, mask, best, x);
        }
        float highest = std::max(top[r], _mm512_reduce_max_ps(best));
        float shrink = top[r] == -INFINITY ? 0.f : std::exp(top[r] - highest);
        __m512 base = _mm512_set1_ps(highest), total = _mm512_setzero_ps();
        for (int64_t j = 0; j < BLOCK; j += LANES) {
          __mmask16 mask = _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(seen - j));
          __m512 x = _mm512_maskz_mov_ps(mask, _mm512_loadu_ps(row + j));
          x = _mm512_maskz_mov_ps(mask, exp16(_mm512_sub_ps(x, base)));
          _mm512_storeu_ps(row + j, x);
          total = _mm512_add_ps(total, x);
        }
        norm[r] = norm[r] * shrink + _mm512_reduce_add_ps(total);
        top[r] = highest;
        if (key > 0 && shrink != 1.f)
          for (int64_t j = 0; j < dim; j++) sum[r * dim + j] *= shrink;
      }
      halve_along(s, rows, p);
      multiply(p, BLOCK / 2, values + key / 2 * dim, dim, sum, dim, rows, dim,
               round_up(visible.keys, 2) / 2, key > 0);
    }
    for (int64_t r = 0; r < here; r++) {
      bf16* place = out + (query + r) * out_stride;
      float inverse = 1 / norm[r];
      for (int64_t j = 0; j < dim; j++) put(place + j, sum[r * dim + j] * inverse);
      lse[(query + r) * lse_stride] = top[r] + std::log(norm[r]);
    }
  }
}

// Gradients of one query head; those of keys and values accumulate in dk and dv, [dim][padded].
void backward_head(const Rows& slope, const Rows& out, const Rows& q, const Shape& shape,
                   const float* lse, int64_t lse_stride, const Pair* key_columns,
                   const Pair* value_columns, const Pair* key_pairs, float* dk, float* dv,
                   bf16* dq, int64_t dq_stride, Scratch& scratch) {
  int64_t dim = shape.dim, count = q.count, padded = round_up(count, BLOCK);
  scratch.begin(padded * dim * 2 + padded * dim / 2 + 3 * BLOCK * BLOCK / 2 + BLOCK * BLOCK,
                2 * BLOCK * BLOCK + BLOCK * dim + padded);
  Pair* queries = scratch.take_pairs(padded * dim / 2);
  Pair* slopes = scratch.take_pairs(padded * dim / 2);
  Pair* turned_queries = scratch.take_pairs(padded * dim / 2);
  Pair* turned_slopes = scratch.take_pairs(padded * dim / 2);
  Pair* pairs = scratch.take_pairs(padded * dim / 2);
  Pair* p_across = scratch.take_pairs(BLOCK * BLOCK / 2);
  Pair* ds_across = scratch.take_pairs(BLOCK * BLOCK / 2);
  Pair* ds_along = scratch.take_pairs(BLOCK * BLOCK / 2);
  float* s = scratch.take_floats(BLOCK * BLOCK);
  float* dp = scratch.take_floats(BLOCK * BLOCK);
  float* sum = scratch.take_floats(BLOCK * dim);
  float* delta = scratch.take_floats(padded);
  pack_rows(q, dim, padded, queries);
  pack_rows(slope, dim, padded, slopes);
  pack_pairs(q, dim, padded, pairs);
  turn_pairs(pairs, dim, padded, turned_queries);
  pack_pairs(slope, dim, padded, pairs);
  turn_pairs(pairs, dim, padded, turned_slopes);
  for (int64_t i = 0; i < count; i++) {
    const bf16 *a = slope.row(i), *b = out.row(i);
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < dim; j++) dot += get(a[j]) * get(b[j]);
    delta[i] = dot;
  }
  __m512 scale = _mm512_set1_ps(shape.scale);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t query = 0; query < count; query += BLOCK) {
    int64_t here = std::min(BLOCK, count - query), rows = round_up(here, ROWS);
    for (int64_t key = 0; key <= query; key += BLOCK) {
      Visible visible{query, key, std::min(BLOCK, count - key)};
      scores(queries + query * dim / 2, key_columns, padded, dim, rows, visible, s);
      scores(slopes + query * dim / 2, value_columns, padded, dim, rows, visible, dp);
      for (int64_t r = 0; r < rows; r++) {
        int64_t seen = r < here ? visible.of(r) : 0;
        __m512 base = _mm512_set1_ps(r < here ? lse[(query + r) * lse_stride] : 0.f);
        __m512 mean = _mm512_set1_ps(r < here ? delta[query + r] : 0.f);
        for (int64_t j = 0; j < BLOCK; j += LANES) {
          __mmask16 mask = _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(seen - j));
          __m512 x = _mm512_maskz_loadu_ps(mask, s + r * BLOCK + j);
          x = _mm512_maskz_mov_ps(mask, exp16(_mm512_fmsub_ps(x, scale, base)));
          __m512 g = _mm512_maskz_loadu_ps(mask, dp + r * BLOCK + j);
          g = _mm512_mul_ps(_mm512_mul_ps(x, scale), _mm512_sub_ps(g, mean));
          _mm512_storeu_ps(s + r * BLOCK + j, x);
          _mm512_storeu_ps(dp + r * BLOCK + j, _mm512_maskz_mov_ps(mask, g));
        }
      }
      halve_across(s, rows, p_across);
      halve_across(dp, rows, ds_across);
      halve_along(dp, rows, ds_along);
      int64_t columns = round_up(visible.keys, LANES), half = rows / 2;
      multiply(turned_slopes + query / 2, padded / 2, p_across, BLOCK, dv + key, padded, dim,
               columns, half, true);
      multiply(turned_queries + query / 2, padded / 2, ds_across, BLOCK, dk + key, padded, dim,
               columns, half, true);
      multiply(ds_along, BLOCK / 2, key_pairs + key / 2 * dim, dim, sum, dim, rows, dim,
               round_up(visible.keys, 2) / 2, key > 0);
    }
    for (int64_t r = 0; r < here; r++)
      for (int64_t j = 0; j < dim; j++) put(dq + (query + r) * dq_stride + j, sum[r * dim + j]);
  }
}

}  // namespace

// Tokens are packed, [token][head][dim]; document d has tokens [borders[d], borders[d + 1]).
extern "C" {
void attention_b(const bf16* q, const bf16* k, const bf16* v, const int32_t* borders,
                 int64_t documents, int64_t heads, int64_t groups, int64_t dim, float scale,
                 bf16* out, float* lse, int threads) {
  Shape shape{heads, groups, dim, scale};
#pragma omp parallel num_threads(threads)
  {
    Scratch scratch;
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t d = 0; d < documents; d++) {
      for (int64_t h = 0; h < heads; h++) {
        int64_t start = borders[d], count = borders[d + 1] - start;
        int64_t wide = heads * dim, narrow = groups * dim, group = h / (heads / groups);
        forward_head({q + start * wide + h * dim, wide, count},
                     {k + start * narrow + group * dim, narrow, count},
                     {v + start * narrow + group * dim, narrow, count}, shape,
                     out + start * wide + h * dim, wide, lse + start * heads + h, heads, scratch);
      }
    }
  }
}

void attention_backward_b(const bf16* slope, const bf16* q, const bf16* k, const bf16* v,
                          const bf16* out, const float* lse, const int32_t* borders,
                          int64_t documents, int64_t heads, int64_t groups, int64_t dim,
                          float scale, bf16* dq, bf16* dk, bf16* dv, int threads) {
  Shape shape{heads, groups, dim, scale};
  int64_t wide = heads * dim, narrow = groups * dim, shared = heads / groups;
#pragma omp parallel num_threads(threads)
  {
    Scratch scratch, kept;
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t d = 0; d < documents; d++) {
      for (int64_t g = 0; g < groups; g++) {
        int64_t start = borders[d], count = borders[d + 1] - start;
        int64_t padded = round_up(count, BLOCK);
        Rows keys{k + start * narrow + g * dim, narrow, count};
        Rows values{v + start * narrow + g * dim, narrow, count};
        kept.begin(padded * dim * 3 / 2, padded * dim * 2);
        Pair* key_columns = kept.take_pairs(padded * dim / 2);
        Pair* value_columns = kept.take_pairs(padded * dim / 2);
        Pair* key_pairs = kept.take_pairs(padded * dim / 2);
        float* sums_k = kept.take_floats(padded * dim);
        float* sums_v = kept.take_floats(padded * dim);
        pack_columns(keys, dim, padded, key_columns);
        pack_columns(values, dim, padded, value_columns);
        pack_pairs(keys, dim, padded, key_pairs);
        memset(sums_k, 0, padded * dim * sizeof(float));
        memset(sums_v, 0, padded * dim * sizeof(float));
        for (int64_t h = g * shared; h < (g + 1) * shared; h++) {
          int64_t at = start * wide + h * dim;
          backward_head({slope + at, wide, count}, {out + at, wide, count}, {q + at, wide, count},
                        shape, lse + start * heads + h, heads, key_columns, value_columns,
                        key_pairs, sums_k, sums_v, dq + at, wide, scratch);
        }
        for (int64_t i = 0; i < count; i++)
          for (int64_t j = 0; j < dim; j++) {
            int64_t place = (start + i) * narrow + g * dim + j;
            put(dk + place, sums_k[j * padded + i]);
            put(dv + place, sums_v[j * padded + i]);
          }
      }
    }
  }
}

int has_attention() { return 1; }
}

#else

extern "C" int has_attention() { return 0; }

#endif
