// SPDX-License-Identifier: Apache-2.0
// A mixture-of-experts layer in bf16 that can stop between work items and go on later.
//
// The layer is a list of items in four ranges, the phases: gather rows by expert, gate-up projection with the
// activation, down projection, sum over the experts of a token. An item writes memory that no other item
// writes, so an item claimed is an item done, and a stopped call is described by the number of items claimed.
// Every sum is taken in one order, whoever computes it: results do not depend on threads or on stops.
#include <ATen/Parallel.h>
#include <omp.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "activation.h"
#include "scratch.h"
#include "tiles.h"

namespace qllm {
namespace {

// Sizes in rows, columns and steps of K. What an item reads again and again must stay in a 2 MiB L2: the rows
// of a group and its panels of weights. What the innermost loop reads must stay in L1 of 48 KiB: 16 KiB of rows,
// as much of a panel, and the partial sums of two panels. Four panels are 10 to 15 % slower. That is for AMX: AVX512
// computes a tenth as fast, caches of 1 MiB and 32 KiB keep up, and groups of half or twice the bytes take as long.
constexpr int64_t kGroupBytes = 5 << 18;  // of rows
constexpr int64_t kGroupTiles = 32;       // of 32 rows
constexpr int64_t kPanels = 2;            // of 32 columns
constexpr int64_t kBlockSteps = 8;        // of K, 32 each
constexpr int64_t kAheadBytes = 4 << 10;  // how far before its use a panel is asked for from memory
constexpr int64_t kStreamBytes = 4 << 20;  // results larger than this are written past the caches

enum Kernel : int32_t { kAmx = 0, kBrgemm = 1, kAvx512 = 2 };

struct Problem {
  void* output;
  const void *hidden, *w13, *w2, *bias13, *bias2, *topk_weights, *topk_ids;
  int64_t tokens, topk, experts, hidden_size, inter_size;
  int32_t ids_are_64_bit, activation, unweighted, kernel;
};

struct Group {  // rows of one expert that are multiplied together
  int64_t expert, tile, rows;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Work {
 public:
  explicit Work(const Problem& problem) : p_(problem) {
    sort();
    const int64_t h = p_.hidden_size, i = p_.inter_size, rows = tiles_ * kTile;
    threads_ = at::get_num_threads();
    const int64_t bytes_x = rows * h * 2, bytes_act = rows * i * 2, bytes_y = rows * h * 4;
    stream_ = bytes_y > kStreamBytes;
    block_ = scratch_pool().take(bytes_x + bytes_act + bytes_y + threads_ * kBuffer * 4);
    if (!block_.memory) throw std::bad_alloc();
    y_ = reinterpret_cast<float*>(block_.memory);
    buffers_ = y_ + rows * h;
    x_ = reinterpret_cast<bf16*>(buffers_ + threads_ * kBuffer);
    act_ = x_ + rows * h;

    gather_rows_ = tiles_;
    gate_up_columns_ = ceil_div(i / kTile, kPanels / 2);
    down_columns_ = ceil_div(h / kTile, kPanels);
    sum_tokens_ = std::max<int64_t>(1, (64 << 10) / (p_.topk * h * 4));
    ends_[0] = gather_rows_;
    ends_[1] = ends_[0] + gate_up_.size() * gate_up_columns_;
    ends_[2] = ends_[1] + down_.size() * down_columns_;
    ends_[3] = ends_[2] + ceil_div(p_.tokens, sum_tokens_);
  }

  ~Work() { scratch_pool().give(block_); }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  int64_t items() const { return ends_[3]; }
  int64_t position() const { return next_.load(std::memory_order_relaxed); }

  void run(const int64_t* stop_word, int64_t stop_value, int64_t max_items) {
    const int64_t end = max_items < 0 ? items() : std::min(items(), position() + max_items);
    const int threads = std::min<int64_t>({at::get_num_threads(), threads_, end - position()});
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
      work(stop_word, stop_value, end, omp_get_thread_num(), true);
    } else if (threads == 1) {
      work(stop_word, stop_value, end, 0, false);
    }
  }

 private:
  static constexpr int64_t kBuffer = kPanels * kTile * kTile;  // floats of C that a thread keeps

  // Places the rows of each expert one after another, experts at multiples of 32 rows.
  void sort() {
    const int64_t n = p_.tokens * p_.topk;
    place_.reset(new int32_t[n]);
    std::vector<int64_t> count(p_.experts, 0);
    for (int64_t j = 0; j < n; j++) {
      const int64_t e = expert(j);
      place_[j] = e < 0 ? -1 : count[e]++;
    }
    std::vector<int64_t> first(p_.experts);
    for (int64_t e = 0; e < p_.experts; e++) {
      first[e] = tiles_ * kTile;
      add_groups(gate_up_, e, count[e], p_.hidden_size);
      add_groups(down_, e, count[e], p_.inter_size);
      tiles_ += ceil_div(count[e], kTile);
    }
    token_.reset(new int32_t[tiles_ * kTile]);
    std::fill_n(token_.get(), tiles_ * kTile, -1);
    for (int64_t j = 0; j < n; j++) {
      if (place_[j] < 0) continue;
      place_[j] += first[expert(j)];
      token_[place_[j]] = j / p_.topk;
    }
  }

  void add_groups(std::vector<Group>& groups, int64_t e, int64_t rows, int64_t k) {
    const int64_t tiles = ceil_div(rows, kTile);
    const int64_t most = std::clamp(kGroupBytes / (kTile * k * 2), int64_t{1}, kGroupTiles);
    const int64_t step = ceil_div(tiles, std::max(int64_t{1}, ceil_div(tiles, most))) * kTile;
    for (int64_t r = 0; r < rows; r += step)
      groups.push_back({e, tiles_ + r / kTile, std::min(step, rows - r)});
  }

  int64_t expert(int64_t j) const {  // -1: not one of ours
    const int64_t e = p_.ids_are_64_bit ? static_cast<const int64_t*>(p_.topk_ids)[j]
                                        : static_cast<const int32_t*>(p_.topk_ids)[j];
    return e >= 0 && e < p_.experts ? e : -1;
  }

  // One thread's share of run(). A phase begins when the one before is complete, which the barrier makes
  // known to all threads alike: nobody claims between the barrier and the comparison unless it is complete.
  void work(const int64_t* stop_word, int64_t stop_value, int64_t end, int thread, bool team) {
    if (p_.kernel == kAmx) amx_acquire();
    float* buffer = buffers_ + thread * kBuffer;
    for (int phase = 0; phase < 4; phase++) {
      const int64_t begin = phase ? ends_[phase - 1] : 0, limit = std::min(end, ends_[phase]);
      if (next_.load() < begin) break;
      for (;;) {
        if (stop_word && __atomic_load_n(stop_word, __ATOMIC_RELAXED) == stop_value) break;
        int64_t item = next_.load(std::memory_order_relaxed);
        while (item < limit && !next_.compare_exchange_weak(item, item + 1)) {
        }
        if (item >= limit) break;
        switch (phase) {
          case 0: gather(item); break;
          case 1: gate_up(item - begin, buffer); break;
          case 2: down(item - begin, buffer); break;
          case 3: sum(item - begin); break;
        }
      }
      if (team) {
#pragma omp barrier
      }
    }
    if (p_.kernel == kAmx) amx_release();
    if (p_.kernel == kBrgemm) at::native::cpublas::brgemm_release();
  }

  Layout layout(int64_t k) const { return p_.kernel == kBrgemm ? brgemm_layout(k) : tile_layout(); }

  void gather(int64_t tile) {
    const int64_t k = p_.hidden_size;
    const Layout to = layout(k);
    for (int r = 0; r < kTile; r++) {
      const int64_t token = token_[tile * kTile + r];
      if (token < 0) break;
      const bf16* row = static_cast<const bf16*>(p_.hidden) + token * k;
      bf16* x = x_ + tile * kTile * k + r * to.row_stride;
      for (int64_t step = 0; step < k / kTile; step++)
        std::memcpy(x + step * to.step_stride, row + step * kTile, kTile * 2);
    }
  }

  // Multiplies one tile of `rows` rows by `count` panels: C of panel i goes to buffer + i * kStep.
  // With `blocked`, K is cut so that the rows stay in L1 while panels that are in L2 pass by; partial sums
  // wait in `buffer`, exactly. Otherwise, for the first tile of a group, each panel is fetched from memory
  // in one sweep; `next` is the panel that this thread will probably need then, or null.
  void multiply(const bf16* a, int64_t k, int rows, const bf16* const* panels, int64_t count,
                float* buffer, bool blocked, const bf16* next) {
    const int64_t steps = k / kTile;
    // AVX512 reads a panel slowly enough to take it from L2: 128 bytes in some 20 cycles.
    const int64_t block = blocked && p_.kernel != kAvx512 ? kBlockSteps : steps;
    const Layout from = layout(k);
    for (int64_t s = 0; s < steps; s += block) {
      const int64_t n = std::min(block, steps - s);
      for (int64_t i = 0; i < count; i++) {
        float* c = buffer + i * kStep;
        const bf16 *a_s = a + s * from.step_stride, *b_s = panels[i] + s * kStep;
        const float* in = s ? c : nullptr;
        if (p_.kernel == kBrgemm) {
          brgemm_multiply(a_s, k, b_s, in, c, n);
          continue;
        }
        if (p_.kernel == kAvx512) {
          const bf16* after = i + 1 < count ? panels[i + 1] : next;
          avx512_multiply(a_s, b_s, in, c, n, rows, blocked ? nullptr : after);
          continue;
        }
        const Source source{!blocked, b_s + kAheadBytes / 2};
        if (rows > 16) {
          amx_multiply<true>(a_s, b_s, in, c, n, source);
        } else {
          amx_multiply<false>(a_s, b_s, in, c, n, source);
        }
      }
    }
  }

  const bf16* gate_up_weights(const Group& group) const {
    return static_cast<const bf16*>(p_.w13) + group.expert * 2 * p_.inter_size * p_.hidden_size;
  }

  const bf16* down_weights(const Group& group) const {
    return static_cast<const bf16*>(p_.w2) + group.expert * p_.hidden_size * p_.inter_size;
  }

  void gate_up(int64_t item, float* buffer) {
    const Group& group = gate_up_[item / gate_up_columns_];
    const int64_t k = p_.hidden_size, panels = p_.inter_size / kTile;
    const int64_t first = item % gate_up_columns_ * (kPanels / 2);
    const int64_t pairs = std::min(kPanels / 2, panels - first);
    const bool alternate = p_.activation == kSwigluOai;
    int64_t columns[kPanels];
    const bf16* panel_of[kPanels];
    for (int64_t i = 0; i < 2 * pairs; i++) {
      const int64_t panel = alternate ? 2 * first + i : first + i % pairs + i / pairs * panels;
      columns[i] = panel * kTile;
      panel_of[i] = gate_up_weights(group) + columns[i] * k;
    }
    const bf16* next = nullptr;
    if (const int64_t then = item + threads_; then < ends_[1] - ends_[0])
      next = gate_up_weights(gate_up_[then / gate_up_columns_]) +
             then % gate_up_columns_ * (alternate ? kPanels : kPanels / 2) * kTile * k;
    const auto* bias = static_cast<const bf16*>(p_.bias13);
    if (bias) bias += group.expert * 2 * p_.inter_size;
    const Layout to = layout(p_.inter_size);
    for (int64_t r = 0; r < group.rows; r += kTile) {
      const int rows = std::min<int64_t>(kTile, group.rows - r);
      const int64_t tile = group.tile + r / kTile;
      multiply(x_ + tile * kTile * k, k, rows, panel_of, 2 * pairs, buffer, r > 0, next);
      for (int64_t i = 0; i < pairs; i++) {
        const int64_t a = alternate ? 2 * i : i, b = alternate ? a + 1 : pairs + i;
        const float *c_a = buffer + a * kStep, *c_b = buffer + b * kStep;
        const bf16* bias_a = bias ? bias + columns[a] : nullptr;
        const bf16* bias_b = bias ? bias + columns[b] : nullptr;
        bf16* act = act_ + tile * kTile * p_.inter_size + (first + i) * to.step_stride;
        switch (p_.activation) {
          case kSilu: activate<kSilu>(c_a, c_b, bias_a, bias_b, rows, act, to.row_stride); break;
          case kGelu: activate<kGelu>(c_a, c_b, bias_a, bias_b, rows, act, to.row_stride); break;
          case kGeluTanh:
            activate<kGeluTanh>(c_a, c_b, bias_a, bias_b, rows, act, to.row_stride);
            break;
          default: activate<kSwigluOai>(c_a, c_b, bias_a, bias_b, rows, act, to.row_stride);
        }
      }
    }
  }

  void down(int64_t item, float* buffer) {
    const Group& group = down_[item / down_columns_];
    const int64_t k = p_.inter_size, h = p_.hidden_size;
    const int64_t first = item % down_columns_ * kPanels;
    const int64_t count = std::min(kPanels, h / kTile - first);
    const bf16* b[kPanels];
    for (int64_t i = 0; i < count; i++) b[i] = down_weights(group) + (first + i) * kTile * k;
    const bf16* next = nullptr;
    if (const int64_t then = item + threads_; then < ends_[2] - ends_[1])
      next = down_weights(down_[then / down_columns_]) + then % down_columns_ * kPanels * kTile * k;
    for (int64_t r = 0; r < group.rows; r += kTile) {
      const int rows = std::min<int64_t>(kTile, group.rows - r);
      const int64_t tile = group.tile + r / kTile;
      multiply(act_ + tile * kTile * k, k, rows, b, count, buffer, r > 0, next);
      put(buffer, y_ + tile * kTile * h + first * kTile, rows, count);
    }
  }

  // Many results go past the caches, which are too small for them and needed for weights and rows.
  QLLM_AVX512 void put(const float* c, float* y, int rows, int64_t panels) const {
    for (int r = 0; r < rows; r++, c += kTile, y += p_.hidden_size)
      for (int64_t column = 0; column < panels * kTile; column += 16) {
        const __m512 part = _mm512_load_ps(c + column / kTile * kStep + column % kTile);
        if (stream_) {
          _mm512_stream_ps(y + column, part);
        } else {
          _mm512_store_ps(y + column, part);
        }
      }
    if (stream_) _mm_sfence();
  }

  QLLM_AVX512 void sum(int64_t item) {
    const int64_t h = p_.hidden_size, end = std::min(p_.tokens, (item + 1) * sum_tokens_);
    const auto* weights = static_cast<const float*>(p_.topk_weights);
    const auto* bias = static_cast<const bf16*>(p_.bias2);
    for (int64_t token = item * sum_tokens_; token < end; token++) {
      bf16* out = static_cast<bf16*>(p_.output) + token * h;
      for (int64_t c = 0; c < h; c += kTile) {
        __m512 low = _mm512_setzero_ps(), high = low;
        for (int64_t j = token * p_.topk; j < (token + 1) * p_.topk; j++) {
          if (place_[j] < 0) continue;
          const float* y = y_ + place_[j] * h + c;
          __m512 a = _mm512_loadu_ps(y), b = _mm512_loadu_ps(y + 16);
          if (bias) {
            const bf16* of = bias + expert(j) * h + c;
            a = _mm512_add_ps(a, widen16(of));
            b = _mm512_add_ps(b, widen16(of + 16));
          }
          const __m512 weight = _mm512_set1_ps(p_.unweighted ? 1.f : weights[j]);
          low = _mm512_fmadd_ps(a, weight, low);
          high = _mm512_fmadd_ps(b, weight, high);
        }
        store_bf16x32(out + c, low, high);
      }
    }
  }

  const Problem p_;
  std::unique_ptr<int32_t[]> place_, token_;  // (token, choice) -> row; row -> token, or -1
  std::vector<Group> gate_up_, down_;
  int64_t tiles_ = 0, threads_ = 1;
  bool stream_ = false;
  int64_t gather_rows_ = 0, gate_up_columns_ = 0, down_columns_ = 0, sum_tokens_ = 0;
  int64_t ends_[4] = {};
  ScratchPool::Block block_;
  bf16 *x_ = nullptr, *act_ = nullptr;
  float *y_ = nullptr, *buffers_ = nullptr;
  std::atomic<int64_t> next_{0};
};

// [N, K] -> [N/32][K/2][32][2]
void pack_expert(const uint32_t* from, uint32_t* to, int64_t n, int64_t k) {
  constexpr int64_t kBlock = 16;  // pairs of K: what a cache line of the source holds
  for (int64_t panel = 0; panel < n; panel += kTile, to += kTile * k / 2)
    for (int64_t block = 0; block < k / 2; block += kBlock)
      for (int64_t column = 0; column < kTile; column++)
        for (int64_t pair = block; pair < block + kBlock; pair++)
          to[pair * kTile + column] = from[(panel + column) * (k / 2) + pair];
}

}  // namespace
}  // namespace qllm

extern "C" {

const char* qllm_release() { return QLLM_RELEASE; }
const char* qllm_torch_version() { return TORCH_VERSION; }

// Null when the kernel can be used here.
const char* qllm_unavailable(int32_t kernel) {
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl"))
    return "this CPU lacks AVX512-BF16";
  if (kernel == qllm::kBrgemm)
    return at::native::cpublas::could_pack(at::kBFloat16) ? nullptr
                                                          : "oneDNN has no bf16 micro-kernel for this CPU";
  if (kernel == qllm::kAvx512) return nullptr;
  if (!__builtin_cpu_supports("amx-bf16")) return "this CPU lacks AMX-BF16";
  return qllm::amx_permitted() ? nullptr : "the kernel does not permit the use of AMX";
}

void qllm_pack(const void* from, void* to, int64_t experts, int64_t n, int64_t k) {
  qllm::prefer_huge_pages(to, experts * n * k * 2);
  at::parallel_for(0, experts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; e++)
      qllm::pack_expert(static_cast<const uint32_t*>(from) + e * n * k / 2,
                        static_cast<uint32_t*>(to) + e * n * k / 2, n, k);
  });
}

// Null when there is no memory for it.
void* qllm_work_new(const qllm::Problem* problem) try {
  return new qllm::Work(*problem);
} catch (const std::bad_alloc&) {
  return nullptr;
}

void qllm_work_delete(void* work) { delete static_cast<qllm::Work*>(work); }
int64_t qllm_work_items(const void* work) { return static_cast<const qllm::Work*>(work)->items(); }

// Returns how many items are done.
int64_t qllm_work_run(void* work, const int64_t* stop_word, int64_t stop_value, int64_t max_items) {
  auto* w = static_cast<qllm::Work*>(work);
  w->run(stop_word, stop_value, max_items);
  return w->position();
}

}  // extern "C"
