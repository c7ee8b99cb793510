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

class Team {
 public:
  explicit Team(int64_t phases) : next_(phases) {}

  // Called by every thread at the start of the region.
  struct Member {
    int64_t phase = 0;
    bool turn = false;
  };

  // Runs work(first, last) for pieces of 0..total, then waits for all.
  template <typename Work>
  void each(Member& me, int64_t total, int64_t piece, Work work) {
    std::atomic<int64_t>& next = next_[me.phase++].value;
    for (;;) {
      int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= total) break;
      work(first, std::min(first + piece, total));
    }
    wait(me);
  }

  int size() const { return omp_get_num_threads(); }

 private:
  // Spinning is faster than the runtime's barrier, whose threads may fall asleep; others get the
  // core if they need it.
  void wait(Member& me) {
    const int threads = omp_get_num_threads();
    if (threads == 1) return;
    me.turn = !me.turn;
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      turn_.store(me.turn, std::memory_order_release);
      return;
    }
    for (int64_t spins = 1; turn_.load(std::memory_order_acquire) != me.turn; spins++)
      spins % 64 ? rest() : (void)sched_yield();
  }

  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  std::vector<Counter> next_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<bool> turn_{false};
};

}  // namespace
