// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// The next token of each row of logits. A row is one thread's, so its result does not depend on
// the others.

#include <algorithm>
#include <limits>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "philox.h"
#include "simd.h"

namespace {

constexpr float NONE = -std::numeric_limits<float>::infinity();
// Noise spans 26.02, so a token further below the best one is never drawn.
constexpr double REACH = 26.1;
constexpr float SLACK = 1e-3f;  // more than float32 may err by
constexpr int64_t FEW = 1024;  // as many are drawn from one by one
constexpr int64_t BINS = 256;

// As `_Row` in sampling.py: eight bytes each.
struct Row {
  int64_t position, sample;
  uint64_t seed;
  int64_t top_k, num_top;  // num_top < 0: no log-probabilities
  double temperature, top_p, min_p, typical_p, repetition, presence, frequency;
  const int64_t* banned;
  int64_t num_banned;
  const uint32_t* mask;
  int64_t num_words;
  const int32_t *used, *counts;
  int64_t num_used;
  const int32_t* bias_ids;
  const float* bias;
  int64_t num_bias;
};

struct Item {
  int32_t id;
  float logit;
  double mass;
  double key;  // where filters sort by something else
};

bool better(const Item& a, const Item& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

bool earlier(const Item& a, const Item& b) { return a.key != b.key ? a.key < b.key : a.id < b.id; }

struct Scratch {
  std::vector<float> raw, block;
  std::vector<int32_t> found;
  std::vector<Item> items, part;
};

// Ids with x >= bound, in order.
int64_t collect(const float* x, int64_t size, float bound, std::vector<int32_t>& out) {
  out.resize(size + 16);
  int64_t n = 0, i = 0;
#ifdef __AVX512F__
  __m512i ids = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512 least = _mm512_set1_ps(bound);
  for (; i + 16 <= size; i += 16) {
    __mmask16 hit = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + i), least, _CMP_GE_OQ);
    if (hit) {
      _mm512_storeu_si512(out.data() + n, _mm512_maskz_compress_epi32(hit, ids));
      n += __builtin_popcount(hit);
    }
    ids = _mm512_add_epi32(ids, _mm512_set1_epi32(16));
  }
#endif
  for (; i < size; i++)
    if (x[i] >= bound) out[n++] = static_cast<int32_t>(i);
  return n;
}

// The largest value; NaN if there is one.
float largest(const float* x, int64_t size) {
  float top = NONE;
  int bad = 0;
#pragma omp simd reduction(max : top) reduction(| : bad)
  for (int64_t i = 0; i < size; i++) {
    bad |= !(x[i] == x[i]);
    top = x[i] > top ? x[i] : top;
  }
  return bad ? std::numeric_limits<float>::quiet_NaN() : top;
}

double mass_of_all(const float* x, int64_t size, float top, float inverse) {
  double sum = 0;
  for (int64_t start = 0; start < size; start += 1024) {
    int64_t end = std::min(size, start + 1024);
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = start; i < end; i++) {
      float z = (x[i] - top) * inverse;
      part += z < -87.f ? 0.f : fast_exp(z);
    }
    sum += part;
  }
  return sum;
}

void list(const float* x, int64_t size, float bound, Scratch& s) {
  int64_t n = collect(x, size, std::max(bound, std::numeric_limits<float>::lowest()), s.found);
  s.items.resize(n);
  for (int64_t i = 0; i < n; i++) s.items[i] = {s.found[i], x[s.found[i]], 0, 0};
}

// List the k best; of equals the lowest ids.
void list_best(const float* x, int64_t size, int64_t k, Scratch& s) {
  int64_t blocks = 256;
  while (blocks < 4 * k) blocks *= 2;
  float bound = NONE;
  if (blocks * 2 <= size) {
    // the k-th largest of all is no less than the k-th largest of the maxima of `blocks` parts
    s.block.assign(x, x + blocks);
    float* most = s.block.data();
    for (int64_t start = blocks; start + blocks <= size; start += blocks)
#pragma omp simd
      for (int64_t i = 0; i < blocks; i++) most[i] = std::max(most[i], x[start + i]);
    std::nth_element(most, most + k - 1, most + blocks, std::greater<float>());
    bound = most[k - 1];
  }
  list(x, size, bound, s);
  if (static_cast<int64_t>(s.items.size()) > k) {
    std::nth_element(s.items.begin(), s.items.begin() + k - 1, s.items.end(), better);
    s.items.resize(k);
  }
}

// What the logits of a row become before tokens are drawn.
struct Scale {
  double top, inverse;
  double z(float logit) const { return (logit - top) * inverse; }
  // in float32, where neither zero nor infinity may meet its opposite
  float slope() const { return std::min(std::max(inverse, 1e-37), 1e38); }
};

double weigh(std::vector<Item>& items, Scale scale) {
  double sum = 0;
  for (Item& item : items) {
    float z = static_cast<float>(std::max(scale.z(item.logit), -1e30));
    item.mass = z < -87.f ? 0.f : fast_exp(z);
  }
  for (const Item& item : items) sum += item.mass;
  return sum;
}

// Keep the fewest items, in the order of key and id, whose mass reaches `target`: whole bins of
// keys first, so that only the items of one bin are sorted.
void keep_mass(Scratch& s, double target) {
  std::vector<Item>& items = s.items;
  if (items.empty()) return;
  double low = items[0].key, high = low;
  for (const Item& item : items) {
    low = std::min(low, item.key);
    high = std::max(high, item.key);
  }
  double per_unit = high - low > 1e-300 ? (BINS - 1) / (high - low) : 0;
  auto bin = [&](const Item& item) { return static_cast<int>((item.key - low) * per_unit); };
  double masses[BINS] = {}, before = 0;
  for (const Item& item : items) masses[bin(item)] += item.mass;
  int last = 0;
  while (last < BINS - 1 && before + masses[last] < target) before += masses[last++];
  s.part.clear();
  int64_t n = 0;
  for (const Item& item : items) {
    int place = bin(item);
    if (place < last) items[n++] = item;
    if (place == last) s.part.push_back(item);
  }
  items.resize(n);
  std::sort(s.part.begin(), s.part.end(), earlier);
  for (const Item& item : s.part) {
    if (!items.empty() && before >= target) break;
    items.push_back(item);
    before += item.mass;
  }
}

// List enough of the best tokens for their share of the whole mass to reach top_p; returns it.
double list_mass(const float* x, int64_t size, Scale scale, double share, Scratch& s) {
  constexpr int DEPTHS = 6;
  constexpr float depths[DEPTHS] = {2, 4, 6, 8, 10, 13};
  double all = mass_of_all(x, size, scale.top, scale.slope());
  float top = scale.top, slope = scale.slope();
  double depth = REACH, nearer = share * all * (1 + 1e-4);
  for (int d = 0; d < DEPTHS && depth == REACH; d++) {
    float least = -depths[d], sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; i++) {
      float z = (x[i] - top) * slope;
      sum += z < least ? 0.f : fast_exp(z);
    }
    if (sum > nearer) depth = depths[d];
  }
  list(x, size, scale.top - depth / scale.inverse, s);
  double sum = weigh(s.items, scale);
  return depth == REACH ? sum : all;
}

// List the tokens that top-k, top-p, min-p and typical-p keep, one after the other.
void filter(const Row& row, const float* x, int64_t size, Scale scale, Scratch& s) {
  std::vector<Item>& items = s.items;
  double sum = 0;
  if (row.top_k > 0 && row.top_k < size) {
    list_best(x, size, row.top_k, s);
    sum = weigh(items, scale);
  } else if (row.top_p < 1) {
    sum = list_mass(x, size, scale, row.top_p, s);
  } else {
    double depth = row.min_p > 0 ? std::min(REACH, SLACK - std::log(row.min_p)) : REACH;
    list(x, size, scale.top - depth / scale.inverse, s);
  }
  if (row.top_p < 1) {
    for (Item& item : items) item.key = scale.top - item.logit;
    keep_mass(s, row.top_p * sum);
  }
  if (row.min_p > 0) {
    double least = std::log(row.min_p);
    auto out = [&](const Item& item) { return scale.z(item.logit) < least; };
    items.erase(std::remove_if(items.begin(), items.end(), out), items.end());
  }
  if (row.typical_p < 1) {
    // arXiv:2202.00666: nearest to the entropy first
    sum = weigh(items, scale);
    double entropy = std::log(sum);
    for (const Item& item : items)
      if (item.mass > 0) entropy -= item.mass / sum * scale.z(item.logit);
    for (Item& item : items)
      item.key = std::abs(std::log(sum) - std::max(scale.z(item.logit), -1e30) - entropy);
    keep_mass(s, row.typical_p * sum);
  }
}

struct Best {
  int64_t id = -1;
  double score = -std::numeric_limits<double>::infinity();

  void offer(int64_t token, double z, uint32_t word) {
    double value = z + gumbel(word);
    if (value > score || (value == score && token < id)) *this = {token, value};
  }
};

// The argmax of z + noise over all tokens. Noise above g needs a word below exp(-g) 2^32, so only
// the few words that could beat the best so far are turned into noise.
int64_t draw(const Row& row, const float* x, int64_t size, Scale scale) {
  constexpr int TILE = 64;
  float top = scale.top, slope = scale.slope();
  Best best;
  for (int64_t start = 0; start < size; start += TILE) {
    int64_t count = std::min<int64_t>(TILE, size - start);
    uint32_t words[TILE];
    philox_tile<TILE / 4>(start / 4, row.position, row.sample, row.seed, words);
    float most = NONE;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = std::max(most, (x[start + i] - top) * slope);
    double least = best.score - most - SLACK;
    if (most == NONE) continue;
    uint32_t limit = least > 0 ? std::min(fast_exp(-least) * 1.001f, 0.999f) * 0x1p32f : ~0u;
    int hit = 0;
#pragma omp simd reduction(| : hit)
    for (int64_t i = 0; i < count; i++) hit |= words[i] <= limit;
    if (!hit) continue;
    for (int64_t i = 0; i < count; i++)
      if (words[i] <= limit) best.offer(start + i, scale.z(x[start + i]), words[i]);
  }
  return best.id;
}

float finite(double value) {
  constexpr double MOST = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(value, -MOST), MOST));
}

// Grammar, bias, penalties. Forbidden tokens stay forbidden; no other becomes infinite.
void adjust(const Row& row, float* x, int64_t size) {
  if (row.mask) {
    for (int64_t start = 0; start < size; start += 32) {
      uint32_t bits = start / 32 < row.num_words ? row.mask[start / 32] : 0;
      int64_t count = std::min<int64_t>(32, size - start);
#pragma omp simd
      for (int64_t i = 0; i < count; i++) x[start + i] = bits >> i & 1 ? x[start + i] : NONE;
    }
  }
  for (int64_t i = 0; i < row.num_bias; i++) {
    float* place = x + row.bias_ids[i];
    if (*place != NONE) *place = finite(static_cast<double>(*place) + row.bias[i]);
  }
  for (int64_t i = 0; i < row.num_used; i++) {
    float* place = x + row.used[i];
    if (*place == NONE) continue;
    double value = *place;
    value = finite(value > 0 ? value / row.repetition : value * row.repetition);
    if (row.counts[i]) value -= row.frequency * row.counts[i] + row.presence;
    *place = finite(value);
  }
}

int64_t choose(const Row& row, float* x, int64_t size, Scratch& s) {
  float top = largest(x, size);
  if (top != top || top == -NONE) return -2;
  if (top == NONE) return -1;
  if (row.temperature == 0) return std::find(x, x + size, top) - x;
  Scale scale{top, std::min(1 / row.temperature, 1e300)};
  bool all = (row.top_k <= 0 || row.top_k >= size) && row.top_p >= 1 && row.min_p <= 0 &&
             row.typical_p >= 1;
  if (all) return draw(row, x, size, scale);
  filter(row, x, size, scale, s);
  if (static_cast<int64_t>(s.items.size()) <= FEW) {
    Best best;
    for (const Item& item : s.items) {
      uint32_t words[4];
      philox_tile<1>(item.id / 4, row.position, row.sample, row.seed, words);
      best.offer(item.id, scale.z(item.logit), words[item.id % 4]);
    }
    return best.id;
  }
  std::fill(x, x + size, NONE);
  for (const Item& item : s.items) x[item.id] = item.logit;
  return draw(row, x, size, scale);
}

}  // namespace

extern "C" {
// Each row's token: -1 if all are forbidden, -2 if the logits are not finite; the natural logarithm
// of its probability by the logits as they came, and the best `width` tokens with theirs. x is
// overwritten.
void sample_f(float* x, const Row* rows, int64_t count, int64_t size, int64_t* tokens,
              float* logprobs, int64_t width, int64_t* best, float* best_logprobs, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t r = 0; r < count; r++) {
    static thread_local Scratch s;
    const Row& row = rows[r];
    float* logits = x + r * size;
    double norm = 0;
    if (row.num_top >= 0) {
      s.raw.assign(logits, logits + size);
      float top = largest(logits, size);
      norm = top + std::log(mass_of_all(logits, size, top, 1));
    }
    for (int64_t i = 0; i < row.num_banned; i++) logits[row.banned[i]] = NONE;
    if (row.num_top > 0) {
      list_best(logits, size, std::min(row.num_top, size), s);
      std::sort(s.items.begin(), s.items.end(), better);
      int64_t n = s.items.size();
      for (int64_t i = 0; i < n; i++) {
        best[r * width + i] = s.items[i].id;
        best_logprobs[r * width + i] = s.items[i].logit - norm;
      }
    }
    adjust(row, logits, size);
    tokens[r] = choose(row, logits, size, s);
    if (row.num_top >= 0 && tokens[r] >= 0) logprobs[r] = s.raw[tokens[r]] - norm;
  }
}
}
