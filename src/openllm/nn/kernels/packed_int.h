// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products with weights of 8 and 4 bits: x is rounded to 8 bits, 32 numbers with one scale, so that
// the sums of 32 products are exact integers; these are scaled and added in order, in float32.

#pragma once
#include "vectors.h"

namespace {

// sums += four products of unsigned bytes of W with signed bytes of x
inline Ints dot_fours(Ints sums, uint32_t x, Words w) {
#ifdef __AVX512VNNI__
  return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, _mm512_set1_epi32((int)x));
#else
  for (int i = 0; i < 32; i += 8)
    sums += reinterpret_cast<Ints>(w >> i & 255) * static_cast<int32_t>(static_cast<int8_t>(x >> i));
  return sums;
#endif
}

inline Ints load_ints(const int32_t* p) {
  return reinterpret_cast<Ints>(*reinterpret_cast<const LooseWords*>(p));
}

inline void store_ints(int32_t* p, Ints x) {
  *reinterpret_cast<LooseWords*>(p) = reinterpret_cast<Words>(x);
}

// sums += dots without the weights' bias, scaled by those of the weights and of a row of x
inline Floats add_dots(Ints dots, int32_t bias, Floats unit, float factor, Floats sums) {
  return fma(__builtin_convertvector(dots - bias, Floats), unit * factor, sums);
}

template <int BITS, int R, int P>
void product_ints(const Operand& x, int64_t row, int64_t panel, const Target& to) {
  const Matrix& m = *to.matrix;
  constexpr int64_t SIZE = LANES * BITS;  // words in a panel's step
  constexpr uint32_t LOW = 0x0f0f0f0f;
  const uint32_t* w = static_cast<const uint32_t*>(m.data) + panel * x.steps * SIZE;
  const int64_t per_scale = m.group / STEP, groups = m.groups();
  const uint16_t* scales = m.scales + panel * groups * LANES;
  const uint32_t* fours = reinterpret_cast<const uint32_t*>(x.bytes);
  Floats sums[R][P] = {};
  int64_t group = 0, left_of_group = per_scale;
  for (int64_t s = 0; s < x.steps; s++) {
    Ints dots[R][P] = {};
    int64_t place[R];
    for (int r = 0; r < R; r++) place[r] = x.place(row + r, s);
    for (int64_t k = 0; k < BITS; k++) {
      Words right[P];
      for (int p = 0; p < P; p++)
        right[p] = *reinterpret_cast<const LooseWords*>(w + (p * x.steps + s) * SIZE + k * LANES);
      for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++)
          if constexpr (BITS == 8) {
            dots[r][p] = dot_fours(dots[r][p], fours[place[r] * 8 + k], right[p]);
          } else {
            dots[r][p] = dot_fours(dots[r][p], fours[place[r] * 8 + k], right[p] & LOW);
            dots[r][p] = dot_fours(dots[r][p], fours[place[r] * 8 + 4 + k], right[p] >> 4 & LOW);
          }
    }
    Floats unit[P];
    for (int p = 0; p < P; p++) unit[p] = load_scales(scales + (p * groups + group) * LANES);
    for (int r = 0; r < R; r++) {
      const int32_t bias = x.sums[place[r]] * m.offset();
      const float factor = x.scales[place[r]] * m.factor;
      for (int p = 0; p < P; p++)
        sums[r][p] = add_dots(dots[r][p], bias, unit[p], factor, sums[r][p]);
    }
    if (--left_of_group == 0) group++, left_of_group = per_scale;
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) to.put(row + r, panel + p, sums[r][p]);
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

// One row streams through memory, four panels at a time; more rows share the registers.
template <template <int, int> class Piece>
void cover_as(const Operand& x, int64_t row, int64_t rows, int64_t panel, int64_t panels,
              const Target& to) {
  if (rows == 1) return cover<Piece, 1, 4>(x, row, 1, panel, panels, to);
  cover<Piece, 4, 2>(x, row, rows, panel, panels, to);
}

inline void cover_ints(const Operand& x, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                       const Target& to) {
  if (to.matrix->kind == INT8) return cover_as<PieceInt8>(x, row, rows, panel, panels, to);
  cover_as<PieceInt4>(x, row, rows, panel, panels, to);
}

}  // namespace
