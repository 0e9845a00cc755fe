#pragma once

// Tensor maps that are kept from one run of a sequence of launches to the next. The driver takes time to
// encode each, and a network of 16 blocks has 200: where tensors lie where they lay, nothing is encoded.

#include <memory>
#include <mutex>
#include <vector>

#include "cuda/common/tensor_memory.cuh"

namespace effkernels::cuda {

inline bool operator==(const TensorBoxes& a, const TensorBoxes& b) {
  if (a.data != b.data || a.dtype != b.dtype || a.sides != b.sides || a.swizzle != b.swizzle) return false;
  for (int i = 0; i < a.sides; ++i) {
    if (a.size[i] != b.size[i] || a.box[i] != b.box[i]) return false;
    if (i > 0 && a.stride[i] != b.stride[i]) return false;
  }
  return true;
}

// Those of one run, in the order in which launches ask for them. Each is encoded anew where other boxes are
// asked for than in its turn of the run before.
class TensorMaps {
 public:
  // Before each run.
  void begin() { next_ = 0; }

  // As `encode`.
  const char* get(const TensorBoxes& boxes, TensorMap& map) {
    if (next_ == kept_.size()) kept_.emplace_back();
    Kept& own = kept_[next_++];
    if (!own.encoded || !(own.boxes == boxes)) {
      own.encoded = false;
      if (const char* error = encode(boxes, own.map)) return error;
      own.boxes = boxes;
      own.encoded = true;
    }
    map = own.map;
    return nullptr;
  }

 private:
  struct Kept {
    TensorBoxes boxes{};
    TensorMap map{};
    bool encoded = false;
  };
  std::vector<Kept> kept_;
  size_t next_ = 0;
};

// Gives each run maps that no other run uses at the same time: those that one left, if there are any.
class TensorMapPool {
 public:
  std::unique_ptr<TensorMaps> take() {
    const std::lock_guard lock(mutex_);
    if (left_.empty()) return std::make_unique<TensorMaps>();
    std::unique_ptr<TensorMaps> maps = std::move(left_.back());
    left_.pop_back();
    return maps;
  }

  void leave(std::unique_ptr<TensorMaps> maps) {
    const std::lock_guard lock(mutex_);
    left_.push_back(std::move(maps));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<TensorMaps>> left_;
};

// `encode`, with the maps of the stream's sequence if it keeps any.
inline const char* encode(const TensorBoxes& boxes, const Stream& stream, TensorMap& map) {
  TensorMaps* kept = stream.sequence() == nullptr ? nullptr : stream.sequence()->maps();
  return kept == nullptr ? encode(boxes, map) : kept->get(boxes, map);
}

}  // namespace effkernels::cuda
