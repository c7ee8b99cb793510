// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Products by the tile unit of x86 server CPUs (AMX): 16 x 16 sums an instruction.
//
// Each sum of a tile is computed by itself, so a row's result does not depend on its companions.
// Tiles sum in another order than vectors do: where there are tiles, they compute every bfloat16
// product, that of one row too, which is bound by memory anyway.

#pragma once
#include "vectors.h"
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define OPENLLM_TILES 1
#endif

namespace {

#ifdef OPENLLM_TILES

// Whether the kernel of the system grants the tile registers to this process; asked once.
inline bool has_tiles() {
  static const bool granted = [] {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  }();
  return granted;
}

struct TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The tile registers of this thread for as long as it lives: 8 of 16 rows of 64 bytes.
struct Tiles {
  Tiles() {
    if (has_tiles()) shape();
  }
  ~Tiles() {
    if (has_tiles()) _tile_release();
  }
  static void shape() {
    static const TileShapes shapes;
    _tile_loadconfig(&shapes);
  }
};

// Tiles 0-3 hold sums, 4 and 5 rows of x, 6 and 7 panels of W.

// 16 rows x P panels
template <int P>
void tiles_one(const bf16* a, const bf16* w, int64_t steps, float* sums) {
  constexpr int64_t SIZE = LANES * STEP;
  const int64_t panel = steps * SIZE;
  _tile_zero(0);
  if constexpr (P > 1) _tile_zero(1);
  if constexpr (P > 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; s++, a += SIZE, w += SIZE) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (P > 1) {
      _tile_loadd(7, w + panel, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (P > 2) {
      _tile_loadd(6, w + 2 * panel, 64);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(7, w + 3 * panel, 64);
      _tile_dpbf16ps(3, 4, 7);
    }
  }
  _tile_stored(0, sums, 64);
  if constexpr (P > 1) _tile_stored(1, sums + 256, 64);
  if constexpr (P > 2) {
    _tile_stored(2, sums + 512, 64);
    _tile_stored(3, sums + 768, 64);
  }
}

// 32 rows x P panels; meanwhile, `next` is fetched: the panels that follow in memory, or null.
template <int P>
void tiles_two(const bf16* a, const bf16* w, int64_t steps, const bf16* next, float* sums) {
  constexpr int64_t SIZE = LANES * STEP;
  const int64_t panel = steps * SIZE;
  _tile_zero(0);
  _tile_zero(2);
  if constexpr (P > 1) {
    _tile_zero(1);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; s++, a += SIZE, w += SIZE) {
    if (next)
      for (int64_t i = 0; i < P * SIZE; i += STEP) __builtin_prefetch(next + s * P * SIZE + i);
    _tile_loadd(4, a, 64);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a + panel, 64);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (P > 1) {
      _tile_loadd(7, w + panel, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(2, sums + 512, 64);
  if constexpr (P > 1) {
    _tile_stored(1, sums + 256, 64);
    _tile_stored(3, sums + 768, 64);
  }
}

// Sums [tile of rows][panel][16 rows][16 n], tiles of rows 512 apart if there are two.
inline void put_tiles(const float* sums, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                      const Target& to) {
  for (int64_t r = 0; r < std::min(rows, LANES); r++)
    for (int64_t p = 0; p < panels; p++)
      to.put(row + r, panel + p, load(sums + (p * LANES + r) * LANES));
}

inline void product_tiles(const Operand& x, int64_t panel, int64_t panels, const Target& to) {
  alignas(64) float sums[4 * 256];
  const int64_t block = x.steps * LANES * STEP;
  const bf16* w = static_cast<const bf16*>(to.matrix->data) + panel * block;
  for (int64_t p = 0; p < panels && x.rows > LANES; p += 2) {
    const int64_t count = std::min<int64_t>(2, panels - p);
    for (int64_t row = 0; row < x.rows; row += 2 * LANES) {
      const bf16* a = x.halves + row / LANES * block;
      const bool last = row + 2 * LANES >= x.rows;
      if (x.rows - row <= LANES) {
        (count == 2 ? tiles_one<2> : tiles_one<1>)(a, w + p * block, x.steps, sums);
      } else {
        const bf16* next = last ? w + (p + count) * block : nullptr;
        (count == 2 ? tiles_two<2> : tiles_two<1>)(a, w + p * block, x.steps, next, sums);
        put_tiles(sums + 512, row + LANES, x.rows - row - LANES, panel + p, count, to);
      }
      put_tiles(sums, row, x.rows - row, panel + p, count, to);
    }
  }
  if (x.rows > LANES) return;
  for (int64_t p = 0; p < panels;) {
    int64_t left = panels - p, count = left == 4 ? 4 : std::min<int64_t>(2, left);
    auto run = count == 4 ? tiles_one<4> : count == 2 ? tiles_one<2> : tiles_one<1>;
    run(x.halves, w + p * block, x.steps, sums);
    put_tiles(sums, 0, x.rows, panel + p, count, to);
    p += count;
  }
}

#else

inline bool has_tiles() { return false; }
struct Tiles {};
inline void product_tiles(const Operand&, int64_t, int64_t, const Target&) {}

#endif

}  // namespace
