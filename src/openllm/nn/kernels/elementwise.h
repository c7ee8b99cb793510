// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// The parts of a decoder layer that are not products, for one row.

#pragma once
#include "decoder.h"

namespace {

// x / rms(x) * gain, or (x - mean) / deviation * gain + bias
void normalise(const float* x, const Norm& norm, int64_t dim, const Model& model, float* out) {
  Floats sum{}, squares{};
  float mean = 0;
  if (model.layer_norm) {
    for (int64_t d = 0; d < dim; d += LANES) sum += load(x + d, dim - d);
    mean = total(sum) / dim;
  }
  for (int64_t d = 0; d < dim; d += LANES) {
    int64_t count = std::min(LANES, dim - d);
    Floats off = load(x + d, count) - mean;
    if (mean != 0 && count < LANES)
      for (int64_t i = count; i < LANES; i++) off[i] = 0;
    squares = fma(off, off, squares);
  }
  float inverse = 1 / std::sqrt(total(squares) / dim + model.eps);
  for (int64_t d = 0; d < dim; d += LANES) {
    Floats y = (load(x + d, dim - d) - mean) * inverse * load(norm.gain + d, dim - d);
    if (norm.bias) y += load(norm.bias + d, dim - d);
    store(out + d, y, dim - d);
  }
}

// Rotates the pairs (i, i + half) of a head.
void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i += LANES) {
    int64_t count = half - i;
    Floats left = load(x + i, count), right = load(x + half + i, count);
    Floats cos = load(cosines + i, count), sin = load(sines + i, count);
    store(x + i, left * cos - right * sin, count);
    store(x + half + i, right * cos + left * sin, count);
  }
}

void activate(int64_t kind, const float* gate, float* up, int64_t dim) {
  for (int64_t d = 0; d < dim; d += LANES) {
    Floats y = load(up + d, dim - d);
    switch (kind) {
      case SWIGLU: y = silu(load(gate + d, dim - d)) * y; break;
      case GEGLU: y = gelu(load(gate + d, dim - d)) * y; break;
      case GELU: y = gelu(y); break;
      default: y = larger(y, Floats{}) * larger(y, Floats{});
    }
    store(up + d, y, dim - d);
  }
}

// A number and where it stands.
struct Best {
  float value;
  int32_t place;
};

// The greatest of y[first..last); NaN if one of them is not finite.
float greatest(const float* y, int64_t first, int64_t last) {
  Floats most = fill(-INFINITY), zeros{};
  int64_t n = first;
  for (; n + LANES <= last; n += LANES) {
    Floats x = load(y + n);
    most = larger(x, most);
    zeros += x - x;  // NaN if x is not finite; without signed zeros, GCC makes x * 0 zero
  }
  float value = -INFINITY, trouble = total(zeros);
  for (int i = 0; i < LANES; i++) value = std::max(value, most[i]);
  for (; n < last; n++) {
    value = std::max(value, y[n]);
    trouble += y[n] - y[n];
  }
  return trouble != 0 ? NAN : value;
}

// Where it stands, the first of equals; `first` if it is NaN.
int32_t place_of(float value, const float* y, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; n++)
    if (y[n] == value) return static_cast<int32_t>(n);
  return static_cast<int32_t>(first);
}

}  // namespace
