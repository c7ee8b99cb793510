// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Row-wise operations: softmax gradient, RMS norm, rotary embedding, SwiGLU.
// Threads get fixed ranges of rows, so that sums over rows repeat bit for bit.

#include <omp.h>

#include <vector>

#include "simd.h"

namespace {

struct Share {
  int64_t begin, end;
};

Share share(int64_t rows) {
  int64_t count = omp_get_num_threads(), mine = omp_get_thread_num();
  return {rows * mine / count, rows * (mine + 1) / count};
}

// Add the partial sums of the threads in thread order.
void add_up(const std::vector<float>& parts, int threads, int64_t size, float* out) {
  for (int64_t i = 0; i < size; i++) {
    float sum = 0;
    for (int t = 0; t < threads; t++) sum += parts[t * size + i];
    out[i] = sum;
  }
}

// scores <- softmax(scores) - one-hot(target), zero where target < 0; losses <- -log p(target)
template <typename T>
void softmax_slope(T* scores, const int64_t* targets, int64_t rows, int64_t vocab, float* losses,
                   int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> kept(vocab);
    float* power = kept.data();
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
      T* row = scores + r * vocab;
      if (targets[r] < 0) {
        memset(row, 0, vocab * sizeof(T));
        losses[r] = 0;
        continue;
      }
      float top = get(row[0]);
#pragma omp simd reduction(max : top)
      for (int64_t i = 0; i < vocab; i++) {
        float x = get(row[i]);
        top = x > top ? x : top;
      }
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < vocab; i++) {
        power[i] = fast_exp(get(row[i]) - top);
        sum += power[i];
      }
      losses[r] = std::log(sum) + top - get(row[targets[r]]);
      float scale = 1 / sum;
#pragma omp simd
      for (int64_t i = 0; i < vocab; i++) put(row + i, power[i] * scale);
      put(row + targets[r], power[targets[r]] * scale - 1);
    }
  }
}

// y = x / rms(x) * gain
template <typename In, typename Out>
void rms_norm(const In* x, const float* gain, Out* y, float* inverse, int64_t rows, int64_t dim,
              float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) {
    const In* in = x + r * dim;
    Out* out = y + r * dim;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < dim; i++) sum += get(in[i]) * get(in[i]);
    float inv = 1 / std::sqrt(sum / dim + eps);
    inverse[r] = inv;
#pragma omp simd
    for (int64_t i = 0; i < dim; i++) put(out + i, get(in[i]) * inv * gain[i]);
  }
}

template <typename In, typename Out>
void rms_norm_backward(const Out* slope, const In* x, const float* gain, const float* inverse,
                       In* dx, float* dgain, int64_t rows, int64_t dim, int threads) {
  std::vector<float> parts(threads * dim, 0.f);
#pragma omp parallel num_threads(threads)
  {
    float* sums = parts.data() + omp_get_thread_num() * dim;
    Share mine = share(rows);
    for (int64_t r = mine.begin; r < mine.end; r++) {
      const Out* g = slope + r * dim;
      const In* in = x + r * dim;
      In* out = dx + r * dim;
      float inv = inverse[r], dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < dim; i++) {
        float unit = get(in[i]) * inv;
        dot += get(g[i]) * gain[i] * unit;
        sums[i] += get(g[i]) * unit;
      }
      dot /= dim;
#pragma omp simd
      for (int64_t i = 0; i < dim; i++)
        put(out + i, (get(g[i]) * gain[i] - get(in[i]) * inv * dot) * inv);
    }
  }
  add_up(parts, threads, dim, dgain);
}

// Each head of each row: RMS norm (if there is a gain), then rotation by the row's angles.
template <typename T>
void norm_rotate(const T* x, const float* gain, const float* cosines, const float* sines, T* y,
                 int64_t rows, int64_t heads, int64_t dim, float eps, int threads) {
  int64_t half = dim / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < rows; r++) {
    const float *c = cosines + r * half, *s = sines + r * half;
    for (int64_t h = 0; h < heads; h++) {
      const T* in = x + (r * heads + h) * dim;
      T* out = y + (r * heads + h) * dim;
      float inv = 1;
      if (gain) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < dim; i++) sum += get(in[i]) * get(in[i]);
        inv = 1 / std::sqrt(sum / dim + eps);
      }
#pragma omp simd
      for (int64_t i = 0; i < half; i++) {
        float left = get(in[i]) * inv * (gain ? gain[i] : 1.f);
        float right = get(in[i + half]) * inv * (gain ? gain[i + half] : 1.f);
        put(out + i, left * c[i] - right * s[i]);
        put(out + i + half, right * c[i] + left * s[i]);
      }
    }
  }
}

template <typename T>
void norm_rotate_backward(const T* slope, const T* x, const float* gain, const float* cosines,
                          const float* sines, T* dx, float* dgain, int64_t rows, int64_t heads,
                          int64_t dim, float eps, int threads) {
  int64_t half = dim / 2;
  std::vector<float> parts(threads * dim, 0.f);
#pragma omp parallel num_threads(threads)
  {
    float* sums = parts.data() + omp_get_thread_num() * dim;
    std::vector<float> turned(dim);
    float* g = turned.data();
    Share mine = share(rows);
    for (int64_t r = mine.begin; r < mine.end; r++) {
      const float *c = cosines + r * half, *s = sines + r * half;
      for (int64_t h = 0; h < heads; h++) {
        const T* up = slope + (r * heads + h) * dim;
        const T* in = x + (r * heads + h) * dim;
        T* out = dx + (r * heads + h) * dim;
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
          float left = get(up[i]), right = get(up[i + half]);
          g[i] = left * c[i] + right * s[i];
          g[i + half] = right * c[i] - left * s[i];
        }
        if (!gain) {
#pragma omp simd
          for (int64_t i = 0; i < dim; i++) put(out + i, g[i]);
          continue;
        }
        float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < dim; i++) sum += get(in[i]) * get(in[i]);
        float inv = 1 / std::sqrt(sum / dim + eps);
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < dim; i++) {
          float unit = get(in[i]) * inv;
          sums[i] += g[i] * unit;
          g[i] *= gain[i];
          dot += g[i] * unit;
        }
        dot /= dim;
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) put(out + i, (g[i] - get(in[i]) * inv * dot) * inv);
      }
    }
  }
  if (gain) add_up(parts, threads, dim, dgain);
}

// silu(gate) * up
template <typename T>
void swiglu(const T* gate, const T* up, T* y, int64_t size, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (int64_t i = 0; i < size; i++) {
    float g = get(gate[i]);
    put(y + i, g / (1 + fast_exp(-g)) * get(up[i]));
  }
}

template <typename T>
void swiglu_backward(const T* slope, const T* gate, const T* up, T* dgate, T* dup, int64_t size,
                     int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (int64_t i = 0; i < size; i++) {
    float g = get(gate[i]), d = get(slope[i]);
    float sigmoid = 1 / (1 + fast_exp(-g));
    put(dup + i, d * g * sigmoid);
    put(dgate + i, d * get(up[i]) * sigmoid * (1 + g * (1 - sigmoid)));
  }
}

}  // namespace

// Called from Python: _f for float32, _b for bfloat16; rms_norm names input and output.
extern "C" {
void softmax_slope_f(float* s, const int64_t* t, int64_t r, int64_t v, float* l, int n) {
  softmax_slope(s, t, r, v, l, n);
}
void softmax_slope_b(bf16* s, const int64_t* t, int64_t r, int64_t v, float* l, int n) {
  softmax_slope(s, t, r, v, l, n);
}
void rms_norm_ff(const float* x, const float* g, float* y, float* i, int64_t r, int64_t d,
                 float eps, int n) {
  rms_norm(x, g, y, i, r, d, eps, n);
}
void rms_norm_fb(const float* x, const float* g, bf16* y, float* i, int64_t r, int64_t d,
                 float eps, int n) {
  rms_norm(x, g, y, i, r, d, eps, n);
}
void rms_norm_backward_ff(const float* s, const float* x, const float* g, const float* i,
                          float* dx, float* dg, int64_t r, int64_t d, int n) {
  rms_norm_backward(s, x, g, i, dx, dg, r, d, n);
}
void rms_norm_backward_fb(const bf16* s, const float* x, const float* g, const float* i, float* dx,
                          float* dg, int64_t r, int64_t d, int n) {
  rms_norm_backward(s, x, g, i, dx, dg, r, d, n);
}
void norm_rotate_f(const float* x, const float* g, const float* c, const float* s, float* y,
                   int64_t r, int64_t h, int64_t d, float eps, int n) {
  norm_rotate(x, g, c, s, y, r, h, d, eps, n);
}
void norm_rotate_b(const bf16* x, const float* g, const float* c, const float* s, bf16* y,
                   int64_t r, int64_t h, int64_t d, float eps, int n) {
  norm_rotate(x, g, c, s, y, r, h, d, eps, n);
}
void norm_rotate_backward_f(const float* u, const float* x, const float* g, const float* c,
                            const float* s, float* dx, float* dg, int64_t r, int64_t h, int64_t d,
                            float eps, int n) {
  norm_rotate_backward(u, x, g, c, s, dx, dg, r, h, d, eps, n);
}
void norm_rotate_backward_b(const bf16* u, const bf16* x, const float* g, const float* c,
                            const float* s, bf16* dx, float* dg, int64_t r, int64_t h, int64_t d,
                            float eps, int n) {
  norm_rotate_backward(u, x, g, c, s, dx, dg, r, h, d, eps, n);
}
void swiglu_f(const float* g, const float* u, float* y, int64_t size, int n) {
  swiglu(g, u, y, size, n);
}
void swiglu_b(const bf16* g, const bf16* u, bf16* y, int64_t size, int n) {
  swiglu(g, u, y, size, n);
}
void swiglu_backward_f(const float* s, const float* g, const float* u, float* dg, float* du,
                       int64_t size, int n) {
  swiglu_backward(s, g, u, dg, du, size, n);
}
void swiglu_backward_b(const bf16* s, const bf16* g, const bf16* u, bf16* dg, bf16* du,
                       int64_t size, int n) {
  swiglu_backward(s, g, u, dg, du, size, n);
}
}
