// SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
// Copyright (C) 2024-2026 The OpenLLM Authors
// Threads that go through phases of work together, sharing out the tasks of each.

#pragma once
#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace {

inline void rest() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// A phase ends when its tasks are done, not when all threads have arrived: one that has lost its
// core to another program holds nobody up, unless it is in the midst of a task.
class Team {
 public:
  explicit Team(int64_t phases) : phases_(phases) {}

  // The next phase of a thread; each starts with 0.
  using Member = int64_t;

  // Runs work(first, last) for pieces of 0..total, until all are done.
  template <typename Work>
  void each(Member& me, int64_t total, int64_t piece, Work work) {
    Phase& phase = phases_[me++];
    for (;;) {
      int64_t first = phase.next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= total) break;
      int64_t last = std::min(first + piece, total);
      work(first, last);
      phase.done.fetch_add(last - first, std::memory_order_acq_rel);
    }
    for (int64_t spins = 1; phase.done.load(std::memory_order_acquire) < total; spins++)
      spins % 64 ? rest() : (void)sched_yield();
  }

  int size() const { return omp_get_num_threads(); }

 private:
  struct Phase {
    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int64_t> done{0};
  };
  std::vector<Phase> phases_;
};

}  // namespace
