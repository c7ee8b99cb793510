// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products with weights of 8 and 4 bits: x is rounded to 8 bits, 32 numbers with one scale, so that
// the sums of 32 products are exact integers; these are scaled and added in order, in float32.

#pragma once
#include "vectors.h"

namespace {

// Added to the weights of `BITS` bits in the dots of a step; taken off by `add_dots`.
template <int BITS>
constexpr int32_t OFFSET = BITS == 8 ? 128 : 8;

#if defined(__AVX2__) && !defined(OPENLLM_WIDE)
template <>
constexpr int32_t OFFSET<8> = 0;  // here they have their signs

// dots = sums of the 32 products of a step: one part of each panel with each row. Pairs of
// products of bytes are added in 16 bits: 2 x 128 x 127 fit, and so do 16 x 15 x 127.
template <int BITS, int R, int V>
void dot_step(const uint32_t* w, int64_t stride, const uint32_t* const* x, PartInts (&dots)[R][V]) {
  const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
  const __m256i top = _mm256_set1_epi8(-128);
  __m256i pairs[R][V] = {};
  for (int64_t k = 0; k < BITS; k++) {
    __m256i right[V];
    for (int v = 0; v < V; v++)
      right[v] = (__m256i)load_part(w + v / PARTS * stride + k * LANES + v % PARTS * PART);
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) {
        const __m256i left = _mm256_set1_epi32((int)x[r][k]);
        if constexpr (BITS == 8) {
          // |w| x sign(w): one factor of the instruction has no sign
          const __m256i signs = _mm256_xor_si256(right[v], top);
          const __m256i two =
              _mm256_maddubs_epi16(_mm256_abs_epi8(signs), _mm256_sign_epi8(left, signs));
          dots[r][v] += (PartInts)_mm256_madd_epi16(two, ones);
        } else {
          const __m256i more = _mm256_set1_epi32((int)x[r][4 + k]);
          const __m256i high = _mm256_and_si256(_mm256_srli_epi16(right[v], 4), low);
          pairs[r][v] = _mm256_add_epi16(
              pairs[r][v], _mm256_maddubs_epi16(_mm256_and_si256(right[v], low), left));
          pairs[r][v] = _mm256_add_epi16(pairs[r][v], _mm256_maddubs_epi16(high, more));
        }
      }
  }
  if constexpr (BITS == 4)
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) dots[r][v] = (PartInts)_mm256_madd_epi16(pairs[r][v], ones);
}
#else
// sums += four products of unsigned bytes of W with signed bytes of x
inline PartInts dot_fours(PartInts sums, uint32_t x, PartWords w) {
#ifdef OPENLLM_WIDE
  return (PartInts)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, _mm512_set1_epi32((int)x));
#else
  for (int i = 0; i < 32; i += 8)
    sums +=
        reinterpret_cast<PartInts>(w >> i & 255) * static_cast<int32_t>(static_cast<int8_t>(x >> i));
  return sums;
#endif
}

// dots = sums of the 32 products of a step: one part of each panel with each row
template <int BITS, int R, int V>
void dot_step(const uint32_t* w, int64_t stride, const uint32_t* const* x, PartInts (&dots)[R][V]) {
  constexpr uint32_t LOW = 0x0f0f0f0f;
  for (int64_t k = 0; k < BITS; k++) {
    PartWords right[V];
    for (int v = 0; v < V; v++)
      right[v] = load_part(w + v / PARTS * stride + k * LANES + v % PARTS * PART);
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++)
        if constexpr (BITS == 8) {
          dots[r][v] = dot_fours(dots[r][v], x[r][k], right[v]);
        } else {
          dots[r][v] = dot_fours(dots[r][v], x[r][k], right[v] & LOW);
          dots[r][v] = dot_fours(dots[r][v], x[r][4 + k], right[v] >> 4 & LOW);
        }
  }
}
#endif

inline Ints load_ints(const int32_t* p) {
  return reinterpret_cast<Ints>(*reinterpret_cast<const LooseWords*>(p));
}

inline void store_ints(int32_t* p, Ints x) {
  *reinterpret_cast<LooseWords*>(p) = reinterpret_cast<Words>(x);
}

// sums += dots without the weights' bias, scaled by those of the weights and of a row of x
inline PartFloats add_dots(PartInts dots, int32_t bias, PartFloats unit, float factor,
                           PartFloats sums) {
  return fma(__builtin_convertvector(dots - bias, PartFloats), unit * factor, sums);
}

template <int BITS, int R, int P>
void product_ints(const Operand& x, int64_t row, int64_t panel, const Target& to) {
  const Matrix& m = *to.matrix;
  constexpr int V = P * PARTS;
  constexpr int64_t SIZE = LANES * BITS;  // words in a panel's step
  const uint32_t* w = static_cast<const uint32_t*>(m.data) + panel * x.steps * SIZE;
  const int64_t per_scale = m.group / STEP, groups = m.groups();
  const uint16_t* scales = m.scales + panel * groups * LANES;
  PartFloats sums[R][V] = {};
  int64_t group = 0, left_of_group = per_scale;
  for (int64_t s = 0; s < x.steps; s++) {
    PartInts dots[R][V] = {};
    const uint32_t* fours[R];
    for (int r = 0; r < R; r++)
      fours[r] = reinterpret_cast<const uint32_t*>(x.bytes) + x.place(row + r, s) * 8;
    dot_step<BITS, R, V>(w + s * SIZE, x.steps * SIZE, fours, dots);
    PartFloats unit[V];
    for (int v = 0; v < V; v++)
      unit[v] = load_scales(scales + (v / PARTS * groups + group) * LANES + v % PARTS * PART);
    for (int r = 0; r < R; r++) {
      const int64_t place = x.place(row + r, s);
      const int32_t bias = x.sums[place] * OFFSET<BITS>;
      const float factor = x.scales[place] * m.factor;
      for (int v = 0; v < V; v++)
        sums[r][v] = add_dots(dots[r][v], bias, unit[v], factor, sums[r][v]);
    }
    if (--left_of_group == 0) group++, left_of_group = per_scale;
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) to.put(row + r, panel + p, sums[r] + p * PARTS);
}

template <int R, int P>
struct PieceInt8 {
  static void run(const Operand& x, int64_t row, int64_t panel, const Target& to) {
    product_ints<8, R, P>(x, row, panel, to);
  }
};
template <int R, int P>
struct PieceInt4 {
  static void run(const Operand& x, int64_t row, int64_t panel, const Target& to) {
    product_ints<4, R, P>(x, row, panel, to);
  }
};

// Panels that one row takes together: sums and dots of each need registers.
constexpr int ONE_INT = PARTS == 1 ? 4 : 2;

inline void cover_ints(const Operand& x, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                       const Target& to) {
  if (to.matrix->kind == INT8)
    return cover_all<PieceInt8, ONE_INT, 2>(x, row, rows, panel, panels, to);
  cover_all<PieceInt4, ONE_INT, 2>(x, row, rows, panel, panels, to);
}

}  // namespace
