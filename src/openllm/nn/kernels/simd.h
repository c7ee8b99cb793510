// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// bfloat16 conversion and exp, written so that the compiler vectorises loops over them.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

using bf16 = uint16_t;

static inline float get(float x) { return x; }

static inline float get(bf16 x) {
  uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline void put(float* place, float value) { *place = value; }

// round to nearest, ties to even
static inline void put(bf16* place, float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  *place = static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Relative error below 3e-7 in [-87, 87], clamped to 1e-38 and 1e38 outside; NaN stays NaN.
static inline float fast_exp(float x) {
  float t = x * 1.44269504088896f;
  t = t < -126.f ? -126.f : t;
  t = t > 126.f ? 126.f : t;
  float whole = __builtin_rintf(t);
  float f = t - whole;
  float p = 1.5403530e-4f;
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.f;
  int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  memcpy(&power, &bits, 4);
  return p * power;
}
