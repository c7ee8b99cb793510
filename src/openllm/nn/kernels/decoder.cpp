// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Entry points of the decoder and of packed matrices.

#include "step.h"

namespace {

// Cuts a step into its sequences.
std::vector<Segment> segments_of(const Step& step) {
  std::vector<Segment> segments;
  for (int64_t row = 0; row < step.rows; row++) {
    if (row && step.owners[row - 1] == step.owners[row])
      segments.back().rows++;
    else
      segments.push_back({row, 1, step.owners[row]});
  }
  return segments;
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

void decoder_step(const Model* model, const Step* step, int threads) {
  const std::vector<Segment> segments = segments_of(*step);
  if (step->half_cache)
    Run<bf16>(*model, *step, segments, threads);
  else
    Run<float>(*model, *step, segments, threads);
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
    Team::Member me = 0;
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
