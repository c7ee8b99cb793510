// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// One step of a whole decoder: new tokens of several sequences in, their hidden states out.

#pragma once
#include "elementwise.h"
#include "paged.h"
#include "team.h"

namespace {

// New tokens of one sequence, in consecutive rows.
struct Segment {
  int64_t first, rows, owner;
};

// Rows of a segment that attend together.
struct Tile {
  int64_t first, rows, owner;
};

// Products of the same rows, one after another.
struct Product {
  const Matrix* matrix;
  float* out;
};

// Memory of a step; strides are in floats.
struct Rooms {
  float *x, *normed, *q, *k, *v, *mixed, *gate, *up, *y;
  Operand operand;
};

int forms_of(const Model& model) {
  int forms = 0;
  for (int64_t l = 0; l < model.layers; l++) {
    const Layer& at = model.layer[l];
    for (const Matrix* m : {&at.q, &at.k, &at.v, &at.o, &at.gate, &at.up, &at.down})
      if (m->data) forms |= m->form();
  }
  return forms;
}

Rooms furnish(const Model& model, int64_t rows, Slicer& memory) {
  const int64_t query = model.heads * model.head_dim, key = model.kv_heads * model.head_dim;
  Rooms rooms;
  rooms.x = memory.take<float>(rows * model.dim);
  rooms.normed = memory.take<float>(rows * model.dim);
  rooms.q = memory.take<float>(rows * query);
  rooms.k = memory.take<float>(rows * key);
  rooms.v = memory.take<float>(rows * key);
  rooms.mixed = memory.take<float>(rows * query);
  rooms.gate = memory.take<float>(rows * model.hidden);
  rooms.up = memory.take<float>(rows * model.hidden);
  rooms.y = memory.take<float>(rows * model.dim);
  const int64_t widest = std::max({model.dim, query, model.hidden});
  rooms.operand = take_operand(memory, rows, widest, forms_of(model));
  return rooms;
}

// Runs a step. Every row (token) goes through the same arithmetic in the same order, alone or in
// company; all that is not a matrix is float32. Every method is called by all threads of the team.
template <typename T>
class Run {
 public:
  Run(const Model& model, const Step& step, const std::vector<Segment>& segments, int threads)
      : model_(model), step_(step), segments_(segments), team_(model.layers * 14 + 4) {
    Slicer memory(step.scratch);
    rooms_ = furnish(model, step.rows, memory);
    const int64_t together = std::max<int64_t>(1, QUERIES / model.heads_per_key());
    for (const Segment& s : segments)
      for (int64_t r = 0; r < s.rows; r += together)
        tiles_.push_back({s.first + r, std::min(together, s.rows - r), s.owner});
#pragma omp parallel num_threads(threads)
    {
      Tiles registers;
      Team::Member me = 0;
      all(me);
    }
  }

 private:
  static constexpr int64_t QUERIES = 32;  // that share the load of a page
  static constexpr int64_t AHEAD = 1;     // pages fetched before they are needed

  void all(Team::Member& me) {
    const Layer& first = model_.layer[0];
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      embed(row);
      enter(row, first.norms[0], first.q.form() | first.k.form() | first.v.form());
    });
    for (int64_t l = 0; l < model_.layers; l++) layer(me, l);
    team_.each(me, step_.wanted, 1, [&](int64_t i, int64_t) {
      const float* x = rooms_.x + step_.wanted_rows[i] * model_.dim;
      normalise(x, model_.norm, model_.dim, model_, step_.out + i * model_.dim);
    });
  }

  void layer(Team::Member& me, int64_t number) {
    const Layer& at = model_.layer[number];
    const int64_t dim = model_.dim, query = model_.heads * model_.head_dim;
    multiply(me, dim, {{&at.q, rooms_.q}, {&at.k, rooms_.k}, {&at.v, rooms_.v}});
    add(me, number, 0, rooms_.normed, {{&at.q, rooms_.q}, {&at.k, rooms_.k}, {&at.v, rooms_.v}});
    place(me, number);
    attend(me, number);
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      pack(rooms_.mixed + row * query, query, row, at.o.form());
    });
    multiply(me, query, {{&at.o, rooms_.y}});
    add(me, number, 3, rooms_.mixed, {{&at.o, rooms_.y}});
    const int up_form = at.up.form() | (at.gate.data ? at.gate.form() : 0);
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      leave(row, at.norms[1]);
      enter(row, at.norms[2], up_form);
    });
    if (at.gate.data) {
      multiply(me, dim, {{&at.gate, rooms_.gate}, {&at.up, rooms_.up}});
      add(me, number, 4, rooms_.normed, {{&at.gate, rooms_.gate}, {&at.up, rooms_.up}});
    } else {
      multiply(me, dim, {{&at.up, rooms_.up}});
      add(me, number, 5, rooms_.normed, {{&at.up, rooms_.up}});
    }
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      float* up = rooms_.up + row * model_.hidden;
      activate(model_.mlp, rooms_.gate + row * model_.hidden, up, model_.hidden);
      pack(up, model_.hidden, row, at.down.form());
    });
    multiply(me, model_.hidden, {{&at.down, rooms_.y}});
    add(me, number, 6, rooms_.up, {{&at.down, rooms_.y}});
    const bool last = number + 1 == model_.layers;
    const Layer& next = model_.layer[last ? number : number + 1];
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      leave(row, at.norms[3]);
      if (!last) enter(row, next.norms[0], next.q.form() | next.k.form() | next.v.form());
    });
  }

  void embed(int64_t row) {
    float* x = rooms_.x + row * model_.dim;
    unpack_row(model_.embed, step_.tokens[row], x);
    const float* place = model_.places + step_.positions[row] * model_.dim;
    for (int64_t d = 0; d < model_.dim; d++) {
      x[d] *= model_.embed_scale;
      if (model_.places) x[d] += place[d];
    }
  }

  // From the residual stream into the next product.
  void enter(int64_t row, const Norm& norm, int forms) {
    const int64_t dim = model_.dim;
    float* out = rooms_.normed + row * dim;
    if (norm.gain)
      normalise(rooms_.x + row * dim, norm, dim, model_, out);
    else
      memcpy(out, rooms_.x + row * dim, dim * sizeof(float));
    pack(out, dim, row, forms);
  }

  // From the last product into the residual stream.
  void leave(int64_t row, const Norm& norm) {
    const int64_t dim = model_.dim;
    float *x = rooms_.x + row * dim, *y = rooms_.y + row * dim;
    if (norm.gain) normalise(y, norm, dim, model_, y);
    for (int64_t d = 0; d < dim; d++) x[d] += y[d];
  }

  Operand operand(int64_t inputs) const {
    Operand x = rooms_.operand;
    x.steps = (inputs + STEP - 1) / STEP;
    return x;
  }

  void pack(const float* x, int64_t inputs, int64_t row, int forms) {
    pack_row(x, inputs, row, forms, operand(inputs));
  }

  void multiply(Team::Member& me, int64_t inputs, std::initializer_list<Product> products) {
    const Operand x = operand(inputs);
    int64_t units = 0;
    for (const Product& p : products) units += p.matrix->units();
    team_.each(me, units, std::max<int64_t>(1, units / (8 * team_.size())),
               [&](int64_t first, int64_t last) {
                 for (const Product& p : products) {
                   const int64_t count = p.matrix->units();
                   for (int64_t u = std::max<int64_t>(first, 0); u < std::min(last, count); u++)
                     product_unit(*p.matrix, x, u, p.out, p.matrix->outputs);
                   first -= count, last -= count;
                 }
               });
  }

  // Low-rank additions of rows with an adapter; x are the inputs of the products.
  void add(Team::Member& me, int64_t layer, int64_t target, const float* x,
           std::initializer_list<Product> products) {
    if (!step_.additions) return;
    team_.each(me, step_.rows, 1, [&](int64_t row, int64_t) {
      if (step_.adapters[row] < 0) return;
      const Addition* at = step_.additions[step_.adapters[row]] + layer * TARGETS + target;
      for (const Product& p : products) {
        const int64_t inputs = p.matrix->inputs, outputs = p.matrix->outputs;
        float* y = p.out + row * outputs;
        for (int64_t r = 0; r < at->rank; r++) {
          Floats sum{};
          for (int64_t d = 0; d < inputs; d += LANES)
            sum = fma(load(at->a + r * inputs + d, inputs - d),
                      load(x + row * inputs + d, inputs - d), sum);
          const Floats factor = fill(total(sum) * at->scale);
          for (int64_t d = 0; d < outputs; d += LANES)
            store(y + d, fma(factor, load(at->b + r * outputs + d, outputs - d),
                             load(y + d, outputs - d)), outputs - d);
        }
        at++;
      }
    });
  }

  // Norm and rotation of queries and keys; keys and values go into the cache.
  void place(Team::Member& me, int64_t number) {
    const Layer& at = model_.layer[number];
    const int64_t dim = model_.head_dim, heads = model_.heads, keys = model_.kv_heads;
    const int64_t parts = heads + 2 * keys;
    const bool whole = model_.norm_all && at.q_norm.gain;
    team_.each(me, step_.rows * parts, whole ? parts : 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i++) {
        const int64_t row = i / parts, part = i % parts;
        float *q = rooms_.q + row * heads * dim, *k = rooms_.k + row * keys * dim;
        if (whole && part == 0) {
          normalise(q, at.q_norm, heads * dim, model_, q);
          normalise(k, at.k_norm, keys * dim, model_, k);
        }
        if (part < heads)
          turn(q + part * dim, at, whole ? Norm{} : at.q_norm, row);
        else if (part < heads + keys) {
          float* x = k + (part - heads) * dim;
          turn(x, at, whole ? Norm{} : at.k_norm, row);
          T* place = slot(step_.keys, number, row, part - heads, LANES * dim) +
                     step_.positions[row] % LANES;
          for (int64_t d = 0; d < dim; d++) put(place + d * LANES, x[d]);
          for (int64_t t = fresh(row); t > 0; t--)
            for (int64_t d = 0; d < dim; d++) put(place + d * LANES + t, 0);
        } else {
          const int64_t head = part - heads - keys;
          const float* x = rooms_.v + (row * keys + head) * dim;
          T* place = slot(step_.values, number, row, head, LANES * dim) +
                     step_.positions[row] % LANES * dim;
          for (int64_t d = 0; d < dim; d++) put(place + d, x[d]);
          for (int64_t d = fresh(row) * dim; d > 0; d--) put(place + dim - 1 + d, 0);
        }
      }
    });
  }

  // Number of slots after a row's token that hold nothing yet: those of a unit begun in this step.
  // They are cleared, because what is not seen still has a weight, zero.
  int64_t fresh(int64_t row) const {
    const int64_t place = step_.positions[row] % LANES, owner = step_.owners[row];
    if (row + 1 < step_.rows && step_.owners[row + 1] == owner) return 0;
    return row >= place && step_.owners[row - place] == owner ? LANES - 1 - place : 0;
  }

  void turn(float* x, const Layer& at, const Norm& norm, int64_t row) {
    if (norm.gain) normalise(x, norm, model_.head_dim, model_, x);
    if (at.rope < 0) return;
    const int64_t angle = step_.positions[row] * model_.half;
    rotate(x, model_.cosines[at.rope] + angle, model_.sines[at.rope] + angle, model_.half);
  }

  // The unit of 16 tokens that a row's token belongs to.
  T* slot(void* cache, int64_t layer, int64_t row, int64_t head, int64_t size) const {
    return unit(cache, layer, step_.owners[row], step_.positions[row] / LANES, head, size);
  }

  T* unit(void* cache, int64_t layer, int64_t owner, int64_t number, int64_t head,
          int64_t size) const {
    const int64_t units = step_.block_size / LANES;
    const int64_t block = step_.tables[owner * step_.max_blocks + number / units];
    const int64_t place = (layer * step_.num_blocks + block) * model_.kv_heads + head;
    return static_cast<T*>(cache) + (place * units + number % units) * size;
  }

  void attend(Team::Member& me, int64_t number) {
    const int64_t heads = model_.kv_heads;
    team_.each(me, static_cast<int64_t>(tiles_.size()) * heads, 1, [&](int64_t i, int64_t) {
      attend_tile(number, tiles_[i / heads], i % heads);
    });
  }

  // Pages lie anywhere, so that the CPU cannot foresee them.
  void fetch(const T* page) const {
    const char* start = reinterpret_cast<const char*>(page);
    for (size_t i = 0; i < LANES * model_.head_dim * sizeof(T); i += 64)
      __builtin_prefetch(start + i);
  }

  void attend_tile(int64_t number, const Tile& tile, int64_t head) {
    const Layer& at = model_.layer[number];
    const int64_t dim = model_.head_dim, group = model_.heads_per_key();
    const int64_t padded = round_up(dim, LANES), count = tile.rows * group;
    const Rule rule{model_.softcap, at.window};
    thread_local std::vector<float> memory;
    thread_local std::vector<Query> queries;
    memory.assign(count * (dim + padded) + LANES * padded, 0.f);
    queries.resize(count);
    float *q = memory.data(), *sums = q + count * dim, *staged = sums + count * padded;
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = tile.first + i / group, position = step_.positions[row];
      const float* from = rooms_.q + (row * model_.heads + head * group + i % group) * dim;
      for (int64_t d = 0; d < dim; d++) q[i * dim + d] = from[d] * model_.scale;
      const int64_t first = at.window ? std::max<int64_t>(0, position - at.window + 1) : 0;
      queries[i] = {q + i * dim, sums + i * padded, -INFINITY, Floats{}, first, position};
    }
    int64_t low = 0, high = 0;  // queries that see the unit
    const int64_t last = queries[count - 1].position / LANES;
    for (int64_t u = queries[0].first / LANES; u <= last; u++) {
      if (u + AHEAD <= last) {
        fetch(unit(step_.keys, number, tile.owner, u + AHEAD, head, LANES * dim));
        fetch(unit(step_.values, number, tile.owner, u + AHEAD, head, LANES * dim));
      }
      while (queries[low].position / LANES < u) low++;
      while (high < count && queries[high].first / LANES <= u) high++;
      const T* keys = unit(step_.keys, number, tile.owner, u, head, LANES * dim);
      const T* values = unit(step_.values, number, tile.owner, u, head, LANES * dim);
      if (dim == padded) {
        visit_all(keys, values, dim, dim, u * LANES, rule, &queries[low], high - low);
        continue;
      }
      for (int64_t t = 0; t < LANES; t++)
        for (int64_t d = 0; d < dim; d++) staged[t * padded + d] = get(values[t * dim + d]);
      visit_all(keys, staged, dim, padded, u * LANES, rule, &queries[low], high - low);
    }
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = tile.first + i / group;
      float* out = rooms_.mixed + (row * model_.heads + head * group + i % group) * dim;
      const float inverse = 1 / total(queries[i].weights);
      for (int64_t d = 0; d < dim; d++) out[d] = queries[i].sums[d] * inverse;
    }
  }

  const Model& model_;
  const Step& step_;
  const std::vector<Segment>& segments_;
  std::vector<Tile> tiles_;
  Rooms rooms_;
  Team team_;
};

}  // namespace
