// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products x W^T of a few rows x with a packed weight matrix W (N, K).
//
// W is cut into panels of 16 outputs, so that one vector holds the sums of 16 outputs of one row,
// and each sum runs over K in order, whatever rows are computed together: a row's result does not
// depend on its companions. K is padded with zeros to steps of 32. Layouts, [panel][step]...:
//   float32  [32 k][16 n]
//   bfloat16 [16 pairs of k][16 n][2 k]: operand of the dot product of pairs, and a tile of AMX
//   int8     [8 fours of k][16 n][4 k], biased by 128
//   int4     [4][16 n][4 k], biased by 8: low halves of the bytes are fours 0-3 of k, high ones 4-7
// The rows x are packed alike, in blocks of 16 rows: [block][step][16 rows][32 k].

#pragma once
#include "vectors.h"

namespace {

enum Kind { FP32, BF16, INT8, INT4 };
enum Form { AS_FP32 = 1, AS_BF16 = 2, AS_INT8 = 4 };  // of x

constexpr int64_t STEP = 32;
constexpr int64_t UNIT = 4;  // panels computed together
constexpr float TINY = 1e-30f;  // inputs of 8 bits are zero below it: 127 / x must be finite

// Mirrored in packed.py.
struct Matrix {
  const void* data;
  const uint16_t* scales;  // float16 [panel][group][16 n]
  const float* bias;
  int64_t outputs, inputs, kind, group;
  float factor;  // of the scales, a power of two

  int64_t steps() const { return (inputs + STEP - 1) / STEP; }
  int64_t panels() const { return (outputs + LANES - 1) / LANES; }
  int64_t units() const { return (panels() + UNIT - 1) / UNIT; }
  int64_t groups() const { return (inputs + group - 1) / group; }
  int32_t offset() const { return kind == INT8 ? 128 : 8; }
  Form form() const { return kind == FP32 ? AS_FP32 : kind == BF16 ? AS_BF16 : AS_INT8; }
};

// Rows x of a product in every form that its matrices need.
struct Operand {
  float* floats;   // [row][step][32 k]
  bf16* halves;    // [block][step][16 rows][32 k]
  int8_t* bytes;   // the same
  float* scales;   // [block][step][16 rows]
  int32_t* sums;   // the same: sums of 32 bytes
  int64_t rows, steps;

  int64_t place(int64_t row, int64_t step) const {
    return ((row / LANES * steps + step) * LANES + row % LANES);
  }
};

// Pack one row of x.
inline void pack_row(const float* x, int64_t inputs, int64_t row, int forms, const Operand& out) {
  for (int64_t s = 0; s < out.steps; s++) {
    const int64_t k = s * STEP, place = out.place(row, s);
    Floats low = load(x + k, std::clamp<int64_t>(inputs - k, 0, LANES));
    Floats high = load(x + k + LANES, std::clamp<int64_t>(inputs - k - LANES, 0, LANES));
    if (forms & AS_FP32) {
      store(out.floats + (row * out.steps + s) * STEP, low);
      store(out.floats + (row * out.steps + s) * STEP + LANES, high);
    }
    if (forms & AS_BF16) {
      store(out.halves + place * STEP, low);
      store(out.halves + place * STEP + LANES, high);
    }
    if (forms & AS_INT8) {
      const float trouble = total((low - low) + (high - high));  // comparisons lose a NaN
      const float most = largest(larger(larger(low, -low), larger(high, -high)));
      const float inverse = trouble == 0 && most > TINY ? 127 / most : 0;
      // adding 1.5 2^23 rounds to the nearest integer, ties to even
      Ints a = __builtin_convertvector((low * inverse + 12582912.f) - 12582912.f, Ints);
      Ints b = __builtin_convertvector((high * inverse + 12582912.f) - 12582912.f, Ints);
      store(out.bytes + place * STEP, a);
      store(out.bytes + place * STEP + LANES, b);
      out.scales[place] = most / 127 + trouble;
      out.sums[place] = total(a + b);
    }
  }
}

// Where sums of one unit go.
struct Target {
  float* out;
  int64_t stride;
  const Matrix* matrix;

  void put(int64_t row, int64_t panel, const PartFloats* parts) const {
    Floats sums;
    memcpy(&sums, parts, sizeof sums);
    put(row, panel, sums);
  }

  void put(int64_t row, int64_t panel, Floats sums) const {
    int64_t n = panel * LANES, count = matrix->outputs - n;
    if (count <= 0) return;
    if (matrix->bias) sums += load(matrix->bias + n, count);
    store(out + row * stride + n, sums, count);
  }
};

template <int R, int P>
void product_fp32(const Operand& x, int64_t row, int64_t panel, const Target& to) {
  constexpr int V = P * PARTS;
  const int64_t depth = x.steps * STEP;
  const float* w = static_cast<const float*>(to.matrix->data) + panel * depth * LANES;
  const float* a = x.floats + row * depth;
  PartFloats sums[R][V] = {};
  for (int64_t k = 0; k < depth; k++) {
    PartFloats right[V];
    for (int v = 0; v < V; v++)
      right[v] = load_part(w + (v / PARTS * depth + k) * LANES + v % PARTS * PART);
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) sums[r][v] = fma(fill_part(a[r * depth + k]), right[v], sums[r][v]);
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) to.put(row + r, panel + p, sums[r] + p * PARTS);
}

// sums += x[0] w[0] + x[1] w[1] of bfloat16 pairs
inline PartFloats dot_pairs(PartFloats sums, uint32_t x, PartWords w) {
#if defined(OPENLLM_WIDE) && defined(__AVX512BF16__)
  return (Floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32((int)x), (__m512bh)w);
#else
  constexpr uint32_t HIGH = 0xffff0000;
  const PartWords pair = PartWords{} + x;
  sums = fma(reinterpret_cast<PartFloats>(pair << 16), reinterpret_cast<PartFloats>(w << 16), sums);
  return fma(reinterpret_cast<PartFloats>(pair & HIGH), reinterpret_cast<PartFloats>(w & HIGH), sums);
#endif
}

template <int R, int P>
void product_bf16(const Operand& x, int64_t row, int64_t panel, const Target& to) {
  constexpr int V = P * PARTS;
  constexpr int64_t SIZE = LANES * LANES;  // pairs in a panel's step
  const uint32_t* w = static_cast<const uint32_t*>(to.matrix->data) + panel * x.steps * SIZE;
  const uint32_t* a = reinterpret_cast<const uint32_t*>(x.halves);
  PartFloats sums[R][V] = {};
  for (int64_t s = 0; s < x.steps; s++) {
    const uint32_t* left[R];
    for (int r = 0; r < R; r++) left[r] = a + x.place(row + r, s) * LANES;
    for (int64_t k = 0; k < LANES; k++) {
      PartWords right[V];
      for (int v = 0; v < V; v++)
        right[v] = load_part(w + (v / PARTS * x.steps + s) * SIZE + k * LANES + v % PARTS * PART);
      for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = dot_pairs(sums[r][v], left[r][k], right[v]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int p = 0; p < P; p++) to.put(row + r, panel + p, sums[r] + p * PARTS);
}

// Cover `rows` x `panels` by pieces of at most R x P.
template <template <int, int> class Piece, int R, int P>
void cover(const Operand& x, int64_t row, int64_t rows, int64_t panel, int64_t panels,
           const Target& to) {
  while (panels >= P) {
    int64_t r = row, left = rows;
    for (; left >= R; r += R, left -= R) Piece<R, P>::run(x, r, panel, to);
    if constexpr (R > 1) cover<Piece, R / 2, P>(x, r, left, panel, P, to);
    panel += P, panels -= P;
  }
  if constexpr (P > 1)
    if (panels) cover<Piece, R, P / 2>(x, row, rows, panel, panels, to);
}

// One row streams through memory, `ONE` panels at a time; more rows share the registers, of which
// there are half as many without AVX-512.
template <template <int, int> class Piece, int ONE, int MANY>
void cover_all(const Operand& x, int64_t row, int64_t rows, int64_t panel, int64_t panels,
               const Target& to) {
  if (rows == 1) return cover<Piece, 1, ONE>(x, row, 1, panel, panels, to);
  cover<Piece, 4, PARTS == 1 ? MANY : 1>(x, row, rows, panel, panels, to);
}

template <int R, int P>
struct PieceFp32 {
  static void run(const Operand& x, int64_t row, int64_t panel, const Target& to) {
    product_fp32<R, P>(x, row, panel, to);
  }
};
template <int R, int P>
struct PieceBf16 {
  static void run(const Operand& x, int64_t row, int64_t panel, const Target& to) {
    product_bf16<R, P>(x, row, panel, to);
  }
};

// Weights of one output.
inline void unpack_row(const Matrix& m, int64_t n, float* out) {
  const int64_t steps = m.steps(), panel = n / LANES, lane = n % LANES;
  for (int64_t k = 0; k < m.inputs; k++) {
    const int64_t s = panel * steps + k / STEP, in = k % STEP;
    if (m.kind == FP32) {
      out[k] = static_cast<const float*>(m.data)[(s * STEP + in) * LANES + lane];
    } else if (m.kind == BF16) {
      out[k] = get(static_cast<const bf16*>(m.data)[((s * 16 + in / 2) * LANES + lane) * 2 + in % 2]);
    } else {
      const uint8_t* bytes = static_cast<const uint8_t*>(m.data);
      const int64_t four = in / 4, per_step = m.kind == INT8 ? 8 : 4;
      int q = bytes[((s * per_step + four % per_step) * LANES + lane) * 4 + in % 4];
      q = m.kind == INT8 ? q - 128 : (four < 4 ? q & 15 : q >> 4) - 8;
      const uint16_t* scale = m.scales + (panel * m.groups() + k / m.group) * LANES;
      out[k] = q * (load_scale(scale[lane]) * m.factor);
    }
  }
}

}  // namespace

#include "packed_amx_int.h"

namespace {

// One unit of panels for all rows of x.
inline void product_unit(const Matrix& m, const Operand& x, int64_t unit, float* out,
                         int64_t stride) {
  const Target to{out, stride, &m};
  const int64_t panel = unit * UNIT, panels = std::min(UNIT, m.panels() - panel);
  switch (m.kind) {
    case FP32: return cover_all<PieceFp32, 4, 4>(x, 0, x.rows, panel, panels, to);
    case BF16:
      if (has_tiles()) return product_tiles(x, panel, panels, to);
      return cover_all<PieceBf16, 4, 4>(x, 0, x.rows, panel, panels, to);
    default:
      if (has_tiles() && x.rows >= ENOUGH) return product_int_tiles(x, panel, panels, to);
      return cover_ints(x, 0, x.rows, panel, panels, to);
  }
}

}  // namespace
