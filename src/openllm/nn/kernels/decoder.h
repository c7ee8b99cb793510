// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// What a decoder step is told: model, rows, cache. Mirrored in decoder_layout.py.

#pragma once
#include "packed.h"

namespace {

enum Mlp { SWIGLU, GEGLU, GELU, RELU2 };

struct Norm {
  const float *gain, *bias;  // no gain: no norm
};

struct Layer {
  Matrix q, k, v, o, gate, up, down;
  Norm norms[4];  // before and after attention, before and after the MLP
  Norm q_norm, k_norm;
  int64_t rope;    // number of the table, -1: not rotated
  int64_t window;  // 0: none
};

struct Model {
  int64_t layers, dim, heads, kv_heads, head_dim, hidden, half, mlp, layer_norm, norm_all;
  float eps, scale, softcap, embed_scale;
  Matrix embed;
  const float* places;                // learned positions (max_positions, D)
  const float *cosines[2], *sines[2];  // rotary tables (positions, half)
  Norm norm;
  const Layer* layer;

  int64_t heads_per_key() const { return heads / kv_heads; }
};

// A low-rank addition to a matrix: y += scale B (A x); rank 0: none.
struct Addition {
  const float *a, *b;  // (rank, K), (rank, N)
  int64_t rank;
  float scale;
};

constexpr int64_t TARGETS = 7;  // q, k, v, o, gate, up, down

struct Step {
  int64_t rows, sequences, max_blocks, num_blocks, block_size, half_cache, wanted;
  const int32_t *tokens, *positions, *owners, *tables, *wanted_rows;
  void *keys, *values;
  float* out;
  char* scratch;
  const Addition* const* additions;  // of each adapter [layer][target], or none
  const int32_t* adapters;           // of each row, -1: none
  int64_t num_adapters;
};

// Cuts memory into aligned pieces; without memory it measures.
class Slicer {
 public:
  explicit Slicer(char* memory) : memory_(memory) {}

  template <typename T>
  T* take(int64_t count) {
    char* place = memory_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(place);
  }
  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

inline Operand take_operand(Slicer& memory, int64_t rows, int64_t inputs, int forms) {
  const int64_t steps = (inputs + STEP - 1) / STEP, cells = round_up(rows, LANES) * steps;
  Operand x{};
  x.rows = rows, x.steps = steps;
  if (forms & AS_FP32) x.floats = memory.take<float>(cells * STEP);
  if (forms & AS_BF16) x.halves = memory.take<bf16>(cells * STEP);
  if (forms & AS_INT8) {
    x.bytes = memory.take<int8_t>(cells * STEP);
    x.scales = memory.take<float>(cells);
    x.sums = memory.take<int32_t>(cells);
  }
  return x;
}

}  // namespace
