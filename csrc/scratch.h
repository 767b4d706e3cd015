// SPDX-License-Identifier: Apache-2.0
// Scratch memory of a call. Fresh pages cost more than a small call computes, so a few blocks are kept.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace qllm {

constexpr int64_t kHugePage = int64_t{1} << 21;

// Asks for huge pages before the memory is touched; a refusal costs speed alone.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) & ~(kHugePage - 1);
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kHugePage - 1);
  if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

// Blocks not in use, at most kKept of them. A call that is stopped keeps its own, so nested calls get others.
class ScratchPool {
 public:
  struct Block {
    char* memory = nullptr;
    int64_t bytes = 0;
  };

  Block take(int64_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (size_t i = 0; i < free_.size(); i++)
        if (free_[i].bytes >= bytes) return remove(i);
      // None is large enough: the largest is replaced, so that sizes grow to what is needed.
      if (!free_.empty()) std::free(remove(free_.size() - 1).memory);
    }
    bytes = (bytes + kHugePage - 1) & ~(kHugePage - 1);
    auto* memory = static_cast<char*>(std::aligned_alloc(kHugePage, bytes));
    if (memory) prefer_huge_pages(memory, bytes);
    return {memory, memory ? bytes : 0};
  }

  void give(Block block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t at = 0;  // smallest first, so that a small call does not take a large block
    while (at < free_.size() && free_[at].bytes < block.bytes) at++;
    free_.insert(free_.begin() + at, block);
    if (free_.size() > kKept) std::free(remove(0).memory);
  }

 private:
  static constexpr size_t kKept = 3;

  Block remove(size_t i) {
    const Block block = free_[i];
    free_.erase(free_.begin() + i);
    return block;
  }

  std::mutex mutex_;
  std::vector<Block> free_;
};

inline ScratchPool& scratch_pool() {
  static auto* pool = new ScratchPool;  // never destroyed: calls may outlive static destructors
  return *pool;
}

}  // namespace qllm
