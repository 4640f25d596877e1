// SPDX-License-Identifier: Apache-2.0
// Dense row-major tensors. `AnyTensor` knows its element type at run time (checkpoints, optimizer
// state, graph edges); `Tensor<T, D>` is the same handle with element type and device known to the
// compiler. Both are handles: a copy shares the memory, `clone()` is deep.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <espalier/core/device.hpp>
#include <espalier/core/dtype.hpp>
#include <espalier/core/shape.hpp>
#include <espalier/tensor/storage.hpp>

namespace espalier {

class AnyTensor {
 public:
  AnyTensor() = default;
  /// Uninitialised memory from the pool.
  AnyTensor(Shape shape, DType dtype)
      : bytes_(allocate_bytes(static_cast<std::size_t>(shape.numel()) * size_of(dtype))),
        shape_(shape),
        dtype_(dtype) {}
  /// A tensor over memory that `bytes` owns (a mapped file, another tensor).
  AnyTensor(std::shared_ptr<std::byte> bytes, Shape shape, DType dtype)
      : bytes_(std::move(bytes)), shape_(shape), dtype_(dtype) {}

  explicit operator bool() const { return bytes_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t shape(int axis) const { return shape_[axis]; }
  DType dtype() const { return dtype_; }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t size_bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  std::byte* bytes() const { return bytes_.get(); }
  /// Handles to this memory; 1 means that nobody else sees a write.
  long use_count() const { return bytes_.use_count(); }

  /// The same memory under another shape of equal size.
  AnyTensor reshaped(Shape shape) const {
    ESP_REQUIRE(shape.numel() == numel(), ShapeError, "reshape: ", shape_, " holds ", numel(),
                " elements, ", shape, " needs ", shape.numel());
    return {bytes_, shape, dtype_};
  }
  /// Rows [begin, end) of the first axis, without a copy.
  AnyTensor rows(std::int64_t begin, std::int64_t end) const {
    ESP_REQUIRE(shape_.rank() >= 1 && 0 <= begin && begin <= end && end <= shape_[0], ShapeError,
                "rows: [", begin, ", ", end, ") of ", shape_);
    Shape part{end - begin};
    std::int64_t row = 1;
    for (int i = 1; i < shape_.rank(); ++i) {
      part.append(shape_[i]);
      row *= shape_[i];
    }
    std::byte* first = bytes_.get() + static_cast<std::size_t>(begin * row) * size_of(dtype_);
    return {std::shared_ptr<std::byte>(bytes_, first), part, dtype_};
  }
  AnyTensor clone() const {
    AnyTensor copy(shape_, dtype_);
    std::memcpy(copy.bytes(), bytes(), size_bytes());
    return copy;
  }

 private:
  std::shared_ptr<std::byte> bytes_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

template <Element T, Device D = Cpu>
class Tensor : public AnyTensor {
 public:
  using value_type = T;
  using device_type = D;

  Tensor() = default;
  /// Uninitialised.
  explicit Tensor(Shape shape) : AnyTensor(shape, dtype_of<T>::value) {}
  Tensor(Shape shape, T fill) : Tensor(shape) { std::fill_n(data(), numel(), fill); }
  Tensor(Shape shape, const std::vector<T>& values) : Tensor(shape) {
    ESP_REQUIRE(static_cast<std::int64_t>(values.size()) == numel(), ShapeError,
                "Tensor: ", values.size(), " values for shape ", shape);
    std::copy(values.begin(), values.end(), data());
  }
  /// The only door from run time to compile time.
  explicit Tensor(AnyTensor any) : AnyTensor(std::move(any)) {
    ESP_REQUIRE(!*this || dtype() == dtype_of<T>::value, DTypeError, "Tensor: holds ",
                name(dtype()), ", asked for ", name(dtype_of<T>::value));
  }

  T* data() const { return reinterpret_cast<T*>(bytes()); }
  T& operator[](std::int64_t i) const { return data()[i]; }
  std::span<T> span() const { return {data(), static_cast<std::size_t>(numel())}; }

  Tensor reshaped(Shape shape) const { return Tensor(AnyTensor::reshaped(shape)); }
  Tensor rows(std::int64_t begin, std::int64_t end) const {
    return Tensor(AnyTensor::rows(begin, end));
  }
  Tensor clone() const { return Tensor(AnyTensor::clone()); }
};

/// A copy in element type `T`, whatever floating type `from` holds.
template <Element T>
[[nodiscard]] Tensor<T> converted(const AnyTensor& from) {
  Tensor<T> to(from.shape());
  visit_dtype<float, double, bf16, f16>("converted", from.dtype(), [&]<class From>() {
    const From* src = reinterpret_cast<const From*>(from.bytes());
    for (std::int64_t i = 0; i < from.numel(); ++i) {
      if constexpr (sizeof(From) == 2 || sizeof(T) == 2) {
        to[i] = static_cast<T>(static_cast<float>(src[i]));
      } else {
        to[i] = static_cast<T>(src[i]);
      }
    }
  });
  return to;
}

}  // namespace espalier
