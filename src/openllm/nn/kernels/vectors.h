// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Vectors of 16 numbers, on any CPU. The order of every sum is written out: sources that include
// this are compiled without reassociation, so that a result never depends on what is computed
// beside it.

#pragma once
#include <algorithm>

#include "simd.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

constexpr int64_t LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef float LooseFloats __attribute__((vector_size(64), aligned(4)));
typedef uint32_t LooseWords __attribute__((vector_size(64), aligned(4)));
typedef uint16_t LooseHalves __attribute__((vector_size(32), aligned(2)));
typedef int8_t Bytes __attribute__((vector_size(16)));
typedef int8_t LooseBytes __attribute__((vector_size(16), aligned(1)));

// The vectors of one instruction are all 16 numbers or, without all that products need of AVX-512,
// half of them. Products are written with these: compilers keep longer ones in memory.
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#define OPENLLM_WIDE
constexpr int64_t PARTS = 1;
#else
constexpr int64_t PARTS = 2;
#endif
constexpr int64_t PART = LANES / PARTS;

typedef float PartFloats __attribute__((vector_size(64 / PARTS)));
typedef int32_t PartInts __attribute__((vector_size(64 / PARTS)));
typedef uint32_t PartWords __attribute__((vector_size(64 / PARTS)));
typedef uint16_t LoosePartHalves __attribute__((vector_size(32 / PARTS), aligned(2)));
typedef float LoosePartFloats __attribute__((vector_size(64 / PARTS), aligned(4)));
typedef uint32_t LoosePartWords __attribute__((vector_size(64 / PARTS), aligned(4)));

union Whole {
  Floats all;
  PartFloats parts[PARTS];
};

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

inline Floats fill(float value) { return value - Floats{}; }
inline Floats load(const float* p) { return *reinterpret_cast<const LooseFloats*>(p); }
inline void store(float* p, Floats x) { *reinterpret_cast<LooseFloats*>(p) = x; }

inline Floats widen(Halves x) {
  return reinterpret_cast<Floats>(__builtin_convertvector(x, Words) << 16);
}
inline Floats load(const bf16* p) { return widen(*reinterpret_cast<const LooseHalves*>(p)); }
inline PartFloats fill_part(float value) { return value - PartFloats{}; }
inline void store_part(float* p, PartFloats x) { *reinterpret_cast<LoosePartFloats*>(p) = x; }
inline PartFloats load_part(const float* p) { return *reinterpret_cast<const LoosePartFloats*>(p); }
inline PartFloats load_part(const bf16* p) {
  const LoosePartHalves x = *reinterpret_cast<const LoosePartHalves*>(p);
  return reinterpret_cast<PartFloats>(__builtin_convertvector(x, PartWords) << 16);
}
inline PartWords load_part(const uint32_t* p) { return *reinterpret_cast<const LoosePartWords*>(p); }

inline Halves narrow(Floats x) {
  Words bits = reinterpret_cast<Words>(x);
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
}
inline void store(bf16* p, Floats x) { *reinterpret_cast<LooseHalves*>(p) = narrow(x); }

inline void store(int8_t* p, Ints x) {
  *reinterpret_cast<LooseBytes*>(p) = __builtin_convertvector(x, Bytes);
}

// The first `count` numbers; the rest are zero.
template <typename T>
inline Floats load(const T* p, int64_t count) {
  if (count >= LANES) return load(p);
  T part[LANES] = {};
  for (int64_t i = 0; i < count; i++) part[i] = p[i];
  return load(part);
}
template <typename T>
inline void store(T* p, Floats x, int64_t count) {
  if (count >= LANES) return store(p, x);
  T part[LANES];
  store(part, x);
  for (int64_t i = 0; i < count; i++) p[i] = part[i];
}

// a b + c: rounded once where the CPU can, but then everywhere
#ifdef OPENLLM_WIDE
inline Floats fma(Floats a, Floats b, Floats c) {
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#else
inline PartFloats fma(PartFloats a, PartFloats b, PartFloats c) {
#ifdef __FMA__
  return (PartFloats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
inline Floats fma(Floats a, Floats b, Floats c) {
  const Whole x{a}, y{b};
  Whole sum{c};
  for (int64_t i = 0; i < PARTS; i++) sum.parts[i] = fma(x.parts[i], y.parts[i], sum.parts[i]);
  return sum.all;
}
#endif

// A part of finite float16
inline PartFloats load_scales(const uint16_t* p) {
#ifdef OPENLLM_WIDE
  return (Floats)_mm512_cvtph_ps((__m256i)*reinterpret_cast<const LooseHalves*>(p));
#elif defined(__F16C__)
  return (PartFloats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  // the exponent's bias differs by 112
  PartWords wide;
  for (int64_t i = 0; i < PART; i++) wide[i] = p[i];
  const PartFloats size = reinterpret_cast<PartFloats>((wide & 0x7fff) << 13) * 0x1p112f;
  return reinterpret_cast<PartFloats>(reinterpret_cast<PartWords>(size) | (wide & 0x8000) << 16);
#endif
}
inline float load_scale(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float value;
  memcpy(&value, &bits, 4);
  return half & 0x8000 ? -value * 0x1p112f : value * 0x1p112f;
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline float total(Floats x) {
  float part[LANES];
  store(part, x);
  for (int64_t width = LANES / 2; width; width /= 2)
    for (int64_t i = 0; i < width; i++) part[i] += part[i + width];
  return part[0];
}
inline int32_t total(Ints x) {
  int32_t sum = 0;
  for (int64_t i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

inline float largest(Floats x) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps((__m512)x);
#endif
  float part[LANES];
  store(part, x);
  for (int64_t width = LANES / 2; width; width /= 2)
    for (int64_t i = 0; i < width; i++) part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
  return part[0];
}

// Relative error below 3e-7 in [-87, 87], clamped to 1e-38 and 1e38 outside.
inline Floats exponential(Floats x) {
  Floats t = x * 1.44269504088896f;
  t = t < -126.f ? fill(-126.f) : t;
  t = t > 126.f ? fill(126.f) : t;
  Floats whole = (t + 12582912.f) - 12582912.f;
  Floats f = t - whole;
  Floats p = fma(fill(1.5403530e-4f), f, fill(1.3333558e-3f));
  p = fma(p, f, fill(9.6181291e-3f));
  p = fma(p, f, fill(5.5504109e-2f));
  p = fma(p, f, fill(2.4022651e-1f));
  p = fma(p, f, fill(6.9314718e-1f));
  p = fma(p, f, fill(1.f));
  Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return p * reinterpret_cast<Floats>(power);
}

inline Floats tanh16(Floats x) { return 1.f - 2.f / (exponential(2.f * x) + 1.f); }
inline Floats silu(Floats x) { return x / (1.f + exponential(-x)); }
inline Floats gelu(Floats x) {  // the tanh approximation
  Floats inner = 0.79788456080287f * (x + 0.044715f * x * x * x);
  return 0.5f * x * (1.f + tanh16(inner));
}

}  // namespace
