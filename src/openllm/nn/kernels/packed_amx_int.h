// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products of many rows with weights of 8 and 4 bits by the tile unit. Sums of integers are exact
// and are scaled as in packed_int.h, so that the bits are those of vectors.

#pragma once
#include <vector>

#include "packed_amx.h"
#include "packed_int.h"

namespace {

constexpr int64_t ENOUGH = 8;  // rows of a block of 16 for which tiles are faster than vectors

#ifdef OPENLLM_TILES

// Shapes for one step: sums 16 x 16, 16 rows of x of 32 bytes, 8 fours of k of 16 outputs.
inline void shape_for_bytes() {
  static const TileShapes shapes = [] {
    TileShapes s;
    s.bytes[4] = s.bytes[5] = STEP;
    s.rows[6] = s.rows[7] = STEP / 4;
    return s;
  }();
  _tile_loadconfig(&shapes);
}

// Sums of 16 rows with one panel, whose weights have 8 bits.
inline void tiles_bytes(const Operand& x, int64_t row, const uint8_t* w, const uint16_t* scales,
                        const Matrix& m, Floats* sums) {
  constexpr int64_t SIZE = LANES * STEP;
  alignas(64) int32_t dots[2][LANES * LANES];
  const int64_t per_scale = m.group / STEP;
  const int8_t* a = x.bytes + x.place(row, 0) * STEP;
  auto multiply = [&](int64_t s) {
    if (s % 2) {
      _tile_zero(1);
      _tile_loadd(5, a + s * SIZE, STEP);
      _tile_loadd(7, w + s * SIZE, 64);
      _tile_dpbsud(1, 5, 7);
      _tile_stored(1, dots[1], 64);
    } else {
      _tile_zero(0);
      _tile_loadd(4, a + s * SIZE, STEP);
      _tile_loadd(6, w + s * SIZE, 64);
      _tile_dpbsud(0, 4, 6);
      _tile_stored(0, dots[0], 64);
    }
  };
  Floats total[LANES] = {};
  multiply(0);
  for (int64_t s = 0, group = 0, left = per_scale; s < x.steps; s++) {
    if (s + 1 < x.steps) multiply(s + 1);
    const Floats unit = load_scales(scales + group * LANES);
    const int64_t place = x.place(row, s);
    int32_t biases[LANES];
    float factors[LANES];
    store_ints(biases, load_ints(x.sums + place) * m.offset());
    store(factors, load(x.scales + place) * m.factor);
    const int32_t* dot = dots[s % 2];
    for (int64_t r = 0; r < LANES; r++)
      total[r] = add_dots(load_ints(dot + r * LANES), biases[r], unit, factors[r], total[r]);
    if (--left == 0) group++, left = per_scale;
  }
  for (int64_t r = 0; r < LANES; r++) sums[r] = total[r];
}

// Spread the weights of one panel from 4 to 8 bits.
inline void spread(const uint32_t* w, int64_t steps, uint32_t* out) {
  constexpr uint32_t LOW = 0x0f0f0f0f;
  for (int64_t s = 0; s < steps; s++, w += 64, out += 128)
    for (int64_t k = 0; k < 64; k += LANES) {
      Words both = *reinterpret_cast<const LooseWords*>(w + k);
      *reinterpret_cast<LooseWords*>(out + k) = both & LOW;
      *reinterpret_cast<LooseWords*>(out + 64 + k) = both >> 4 & LOW;
    }
}

inline void product_int_tiles(const Operand& x, int64_t panel, int64_t panels, const Target& to) {
  const Matrix& m = *to.matrix;
  const bool eight = m.kind == INT8;
  const int64_t size = x.steps * LANES * STEP, groups = m.groups();
  thread_local std::vector<uint32_t> room;
  if (!eight) room.resize(size / 4);
  shape_for_bytes();
  for (int64_t p = panel; p < panel + panels; p++) {
    const uint8_t* w = static_cast<const uint8_t*>(m.data) + p * (eight ? size : size / 2);
    if (!eight) {
      spread(reinterpret_cast<const uint32_t*>(w), x.steps, room.data());
      w = reinterpret_cast<const uint8_t*>(room.data());
      __asm__ volatile("" ::: "memory");  // tiles are loaded behind the compiler's back
    }
    for (int64_t row = 0; row < x.rows; row += LANES) {
      const int64_t rows = std::min(LANES, x.rows - row);
      if (rows < ENOUGH) {
        cover_ints(x, row, rows, p, 1, to);
        continue;
      }
      Floats sums[LANES];
      tiles_bytes(x, row, w, m.scales + p * groups * LANES, m, sums);
      for (int64_t r = 0; r < rows; r++) to.put(row + r, p, sums[r]);
    }
  }
  Tiles::shape();
}

#else

inline void product_int_tiles(const Operand&, int64_t, int64_t, const Target&) {}

#endif

}  // namespace
