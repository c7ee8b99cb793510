// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Entry points of the decoder: checks, a step, logits, single products.

#include "step.h"

namespace {

// What is wrong with a step; mirrored in decoder.py.
enum Fault { NONE, TOKEN, POSITION, OWNER, ORDER, BLOCK, WANTED, ADAPTER };

// Earliest token that any layer still sees from a position.
int64_t earliest(const Model& model, int64_t position) {
  int64_t first = position;
  for (int64_t l = 0; l < model.layers; l++) {
    const int64_t window = model.layer[l].window;
    first = std::min(first, window ? std::max<int64_t>(0, position - window + 1) : 0);
  }
  return first;
}

// Cuts a step into segments; `row` is the faulty one.
Fault check(const Model& model, const Step& step, std::vector<Segment>& segments, int64_t& row) {
  std::vector<bool> met(step.sequences);
  for (row = 0; row < step.rows; row++) {
    const int64_t position = step.positions[row], owner = step.owners[row];
    if (step.tokens[row] < 0 || step.tokens[row] >= model.embed.outputs) return TOKEN;
    if (position < 0 || position >= model.max_positions ||
        position >= step.max_blocks * step.block_size)
      return POSITION;
    if (owner < 0 || owner >= step.sequences) return OWNER;
    if (step.adapters && step.adapters[row] >= step.num_adapters) return ADAPTER;
    if (row && step.owners[row - 1] == owner) {
      if (step.positions[row - 1] + 1 != position) return ORDER;
      segments.back().rows++;
      continue;
    }
    if (met[owner]) return ORDER;
    met[owner] = true;
    segments.push_back({row, 1, owner});
  }
  for (const Segment& s : segments) {
    row = s.first;
    const int64_t last = step.positions[s.first + s.rows - 1] / step.block_size;
    int64_t block = earliest(model, step.positions[s.first]) / step.block_size;
    for (; block <= last; block++) {
      const int32_t number = step.tables[s.owner * step.max_blocks + block];
      if (number < 0 || number >= step.num_blocks) return BLOCK;
    }
  }
  for (row = 0; row < step.wanted; row++)
    if (step.wanted_rows[row] < 0 || step.wanted_rows[row] >= step.rows) return WANTED;
  return NONE;
}

}  // namespace

extern "C" {

int has_tile_unit() { return has_tiles(); }

// Bytes of memory that a step needs.
int64_t decoder_memory(const Model* model, int64_t rows) {
  Slicer memory(nullptr);
  furnish(*model, rows, memory);
  return memory.used();
}

// Returns a fault, and in `row` where; then nothing has been computed.
int64_t decoder_step(const Model* model, const Step* step, int64_t* row, int threads) {
  std::vector<Segment> segments;
  if (Fault fault = check(*model, *step, segments, *row)) return fault;
  if (step->half_cache)
    Run<bf16>(*model, *step, segments, threads);
  else
    Run<float>(*model, *step, segments, threads);
  return NONE;
}

int64_t packed_memory(const Matrix* matrix, int64_t rows) {
  Slicer memory(nullptr);
  take_operand(memory, rows, matrix->inputs, matrix->form());
  return memory.used();
}

// (R, K) -> (R, N); cap tanh(y / cap) if there is a cap.
void packed_product(const Matrix* matrix, const float* x, int64_t rows, float* out, float cap,
                    char* scratch, int threads) {
  Slicer memory(scratch);
  const Operand operand = take_operand(memory, rows, matrix->inputs, matrix->form());
  Team team(3);
#pragma omp parallel num_threads(threads)
  {
    Tiles registers;
    Team::Member me;
    team.each(me, rows, 1, [&](int64_t row, int64_t) {
      pack_row(x + row * matrix->inputs, matrix->inputs, row, matrix->form(), operand);
    });
    const int64_t units = matrix->units();
    team.each(me, units, std::max<int64_t>(1, units / (8 * team.size())),
              [&](int64_t first, int64_t last) {
                for (int64_t u = first; u < last; u++)
                  product_unit(*matrix, operand, u, out, matrix->outputs);
              });
    if (cap > 0)
      team.each(me, rows, 1, [&](int64_t row, int64_t) {
        float* y = out + row * matrix->outputs;
        for (int64_t n = 0; n < matrix->outputs; n += LANES)
          store(y + n, cap * tanh16(load(y + n, matrix->outputs - n) / cap), matrix->outputs - n);
      });
  }
}

void packed_rows(const Matrix* matrix, const int64_t* rows, int64_t count, float* out,
                 int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < count; i++)
    unpack_row(*matrix, rows[i], out + i * matrix->inputs);
}
}
