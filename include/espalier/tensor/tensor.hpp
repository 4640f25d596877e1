// SPDX-License-Identifier: Apache-2.0
// Dense row-major tensors. `AnyTensor` knows its element type at run time (checkpoints, optimizer
// state, graph edges); `Tensor<T, D>` is the same handle with element type and device known to the
// compiler. Both are handles: a copy shares the memory, `clone()` is deep. `t[i]` checks its index,
// and reads only where the handle is const; a loop over many elements takes `data()`, which is raw
// and writable from any handle.
#pragma once

#include <cstring>
#include <initializer_list>
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
  /// Uninitialised memory from the pool of a device.
  AnyTensor(Shape shape, DType dtype, const Memory& memory = memory_of<Cpu>())
      : bytes_(memory.allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype))),
        memory_(&memory),
        shape_(shape),
        dtype_(dtype) {}
  /// A tensor over memory that `bytes` owns (a mapped file, another tensor).
  AnyTensor(std::shared_ptr<std::byte> bytes, Shape shape, DType dtype,
            const Memory& memory = memory_of<Cpu>())
      : bytes_(std::move(bytes)), memory_(&memory), shape_(shape), dtype_(dtype) {}

  explicit operator bool() const { return bytes_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t shape(int axis) const { return shape_[axis]; }
  DType dtype() const { return dtype_; }
  const Memory& memory() const { return *memory_; }
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t size_bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  std::byte* bytes() const { return bytes_.get(); }
  /// Number of handles that share this memory.
  long use_count() const { return bytes_.use_count(); }

  /// The same memory under another shape of equal size.
  AnyTensor reshaped(Shape shape) const {
    ESP_REQUIRE(shape.numel() == numel(), ShapeError, "reshape: ", shape_, " holds ", numel(),
                " elements, ", shape, " needs ", shape.numel());
    return {bytes_, shape, dtype_, *memory_};
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
    return {std::shared_ptr<std::byte>(bytes_, first), part, dtype_, *memory_};
  }
  AnyTensor clone() const {
    AnyTensor copy(shape_, dtype_, *memory_);
    memory_->copy(copy.bytes(), bytes(), size_bytes());
    return copy;
  }
  /// A copy on the host; the same handle if it is there already.
  AnyTensor on_host() const {
    if (memory_->on_host) return *this;
    AnyTensor copy(shape_, dtype_);
    memory_->download(copy.bytes(), bytes(), size_bytes());
    return copy;
  }
  /// A copy on a device; the same handle if it is there already.
  AnyTensor on(const Memory& memory) const {
    if (&memory == memory_) return *this;
    if (!memory_->on_host) return on_host().on(memory);
    AnyTensor copy(shape_, dtype_, memory);
    memory.upload(copy.bytes(), bytes(), size_bytes());
    return copy;
  }

 private:
  std::shared_ptr<std::byte> bytes_;
  const Memory* memory_ = &memory_of<Cpu>();
  Shape shape_;
  DType dtype_ = DType::f32;
};

namespace detail {
[[noreturn]] ESP_INLINE void index_error(std::int64_t i, const AnyTensor& t) {
  ESP_REQUIRE(t, ShapeError, "Tensor: element ", i, " of an empty tensor");
  throw_error<ShapeError>(
      {"Tensor: element ", i, " of shape ", t.shape(), ", which holds ", t.numel()});
}
}  // namespace detail

template <Element T, Device D = Cpu>
class Tensor : public AnyTensor {
 public:
  using value_type = T;
  using device_type = D;

  Tensor() = default;
  /// Uninitialised.
  explicit Tensor(Shape shape) : AnyTensor(shape, dtype_of<T>::value, memory_of<D>()) {}
  /// `fill` in every element.
  Tensor(Shape shape, T fill) : Tensor(shape) {
    if constexpr (D::is_cuda) {
      upload(std::vector<T>(static_cast<std::size_t>(numel()), fill));
    } else {
      std::fill_n(data(), numel(), fill);
    }
  }
  /// One value per element, in row-major order.
  /// @throws ShapeError if there are more or fewer
  Tensor(Shape shape, const std::vector<T>& values) : Tensor(shape) {
    ESP_REQUIRE(static_cast<std::int64_t>(values.size()) == numel(), ShapeError,
                "Tensor: ", values.size(), " values for shape ", shape, ", which holds ", numel());
    upload(values);
  }
  Tensor(Shape shape, std::initializer_list<T> values) : Tensor(shape, std::vector<T>(values)) {}
  /// The same memory; checks that it holds `T` on `D`.
  /// @throws DTypeError, DeviceError
  explicit Tensor(AnyTensor any) : AnyTensor(std::move(any)) {
    ESP_REQUIRE(!*this || dtype() == dtype_of<T>::value, DTypeError, "Tensor: holds ",
                name(dtype()), ", asked for ", name(dtype_of<T>::value));
    ESP_REQUIRE(!*this || &memory() == &memory_of<D>(), DeviceError, "Tensor: lives on ",
                memory().device, ", asked for on ", memory_of<D>().device);
  }

  T* data() const { return reinterpret_cast<T*>(bytes()); }
  /// Element `i` in row-major order.
  /// @throws ShapeError past the end, or if the tensor is empty
  T& operator[](std::int64_t i) { return data()[checked(i)]; }
  const T& operator[](std::int64_t i) const { return data()[checked(i)]; }
  std::span<T> span() { return {host_data(), static_cast<std::size_t>(numel())}; }
  std::span<const T> span() const { return {host_data(), static_cast<std::size_t>(numel())}; }

  Tensor reshaped(Shape shape) const { return Tensor(AnyTensor::reshaped(shape)); }
  Tensor rows(std::int64_t begin, std::int64_t end) const {
    return Tensor(AnyTensor::rows(begin, end));
  }
  Tensor clone() const { return Tensor(AnyTensor::clone()); }

 private:
  T* host_data() const {
    static_assert(!D::is_cuda, "Tensor: elements on a GPU cannot be read here; use on_host()");
    return data();
  }
  std::int64_t checked(std::int64_t i) const {
    if (i < 0 || i >= numel() || host_data() == nullptr) [[unlikely]] {
      detail::index_error(i, *this);
    }
    return i;
  }
  void upload(const std::vector<T>& values) {
    memory().upload(bytes(), reinterpret_cast<const std::byte*>(values.data()), size_bytes());
  }
};

/// A copy converted to `T` from any floating type.
template <Element T>
[[nodiscard]] Tensor<T> converted(const AnyTensor& from) {
  const Tensor<T> result(from.shape());
  T* const to = result.data();
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
  return result;
}

}  // namespace espalier
