// SPDX-License-Identifier: Apache-2.0
// Frobenius norms of stored matrices, of the difference of two, and of W + s B A, read row by row
// without holding a matrix. Sums are doubles in a fixed order: the same bits for any number of
// threads. ‖B A‖² = <BᵀB, A Aᵀ> needs only the two r x r Gram matrices.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/norms.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/adapter.hpp>

namespace espalier::prune {

/// Sum of squares in eight interleaved chains, which lets the compiler use vectors.
[[nodiscard]] inline double sum_of_squares(const double* x, std::int64_t n) {
  double chain[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int k = 0; k < 8; ++k) chain[k] += x[i + k] * x[i + k];
  }
  for (int k = 0; i < n; ++i, ++k) chain[k] += x[i] * x[i];
  return ((chain[0] + chain[4]) + (chain[2] + chain[6])) +
         ((chain[1] + chain[5]) + (chain[3] + chain[7]));
}

/// A matrix as it is stored: a tensor, or one expert's rows of a tensor [E, rows, columns]; and the
/// module that an adapter on it would name.
struct StoredMatrix {
  std::string tensor, module;
  std::int64_t first_row = 0, rows = -1;  // -1: all
};

/// @throws UnsupportedError for a tensor whose elements are not floats, naming it and its type
inline void require_numbers(const hub::Checkpoint& checkpoint, const std::string& name) {
  const std::string& type = checkpoint.at(name).type;
  const bool number = type == "F32" || type == "F64" || type == "BF16" || type == "F16";
  ESP_REQUIRE(number, UnsupportedError, checkpoint.shard_of(name).content.path().string(),
              ": tensor \"", name, "\" is ", type,
              "; norms of experts need their weights as numbers: take the bf16, f16 or f32 "
              "checkpoint, or a criterion of the router");
}

/// The matrices of one expert, in the order of the files. Where all experts share a tensor whose
/// rows are no modules, the expert's part of it is one matrix without a module.
/// @throws FormatError when the layer has no such expert, UnsupportedError when it is quantized
[[nodiscard]] inline std::vector<StoredMatrix> expert_matrices(const hub::Checkpoint& checkpoint,
                                                               int layer, int expert) {
  const TensorNames& names = checkpoint.family().names;
  std::vector<StoredMatrix> list;
  for (const NamePattern& p : names.patterns) {
    const bool matrix =
        p.part == Part::expert_gate || p.part == Part::expert_up || p.part == Part::expert_down;
    if (!matrix || p.text.find("{e}") == std::string_view::npos) continue;
    const std::string name = names.of(p.part, layer, expert);
    if (checkpoint.find(name) == nullptr) continue;
    require_numbers(checkpoint, name);
    list.push_back({name, names.module(p.part, layer, expert)});
  }
  if (!list.empty()) return list;
  const bool by_rows =
      checkpoint.computable() && checkpoint.config().mixture.storage == ExpertStorage::fused;
  if (by_rows) {
    const std::int64_t f = checkpoint.config().mixture.width, h = checkpoint.config().hidden_size;
    const std::string both = names.of(Part::experts_gate_up, layer);
    const std::string down = names.of(Part::experts_down, layer);
    return {{both, names.module(Part::expert_gate, layer, expert), 2 * f * expert, f},
            {both, names.module(Part::expert_up, layer, expert), 2 * f * expert + f, f},
            {down, names.module(Part::expert_down, layer, expert), h * expert, h}};
  }
  for (const std::string& name : checkpoint.names()) {
    const std::optional<ExpertTensor> t = checkpoint.expert_names().find(name);
    const bool of_expert = t && (t->expert < 0 ? !t->of_router() : t->expert == expert);
    if (!of_expert || t->mtp || t->layer != layer) continue;
    require_numbers(checkpoint, name);
    const std::vector<std::int64_t>& shape = checkpoint.at(name).shape;
    if (t->expert >= 0 || shape.size() != 3) continue;
    list.push_back({name, "", shape[1] * expert, shape[1]});
  }
  ESP_REQUIRE(!list.empty(), FormatError, checkpoint.folder().string(), ": layer ", layer,
              " has no matrices of expert ", expert);
  return list;
}

/// Rows of a stored matrix as doubles, read from the file in pieces, not through the memory map.
class MatrixRows {
 public:
  MatrixRows(const hub::Checkpoint& checkpoint, const StoredMatrix& matrix)
      : file_(checkpoint.shard_of(matrix.tensor).content), info_(checkpoint.at(matrix.tensor)) {
    dtype_ = io::supported_dtype(info_, file_.path().string());
    columns_ = info_.shape.back();
    first_ = matrix.first_row;
    rows_ = matrix.rows >= 0 ? matrix.rows : info_.shape[0];
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

  /// Row `r`. Call with ascending rows.
  const std::vector<double>& row(std::int64_t r) {
    if (r >= buffered_end_) fill(r);
    values_.resize(static_cast<std::size_t>(columns_));
    const std::size_t at = static_cast<std::size_t>(r - buffered_begin_) * row_bytes();
    visit_dtype<float, double, bf16, f16>("norm", dtype_, [&]<class T>() {
      for (std::size_t c = 0; c < values_.size(); ++c) {
        T v;
        std::memcpy(&v, buffer_.data() + at + c * sizeof(T), sizeof(T));
        if constexpr (sizeof(T) == 2) {
          values_[c] = static_cast<double>(static_cast<float>(v));
        } else {
          values_[c] = static_cast<double>(v);
        }
      }
    });
    return values_;
  }

 private:
  std::size_t row_bytes() const { return static_cast<std::size_t>(columns_) * size_of(dtype_); }
  void fill(std::int64_t first) {
    constexpr std::size_t kBufferBytes = 1 << 20;
    const auto fit = static_cast<std::int64_t>(
        std::max<std::size_t>(kBufferBytes / std::max<std::size_t>(row_bytes(), 1), 1));
    buffered_begin_ = first;
    buffered_end_ = std::min(rows_, first + fit);
    buffer_.resize(static_cast<std::size_t>(buffered_end_ - first) * row_bytes());
    file_.read(info_.offset + static_cast<std::size_t>(first_ + first) * row_bytes(),
               buffer_.data(), buffer_.size());
  }

  const io::SafetensorsFile& file_;
  const io::TensorInfo& info_;
  DType dtype_ = DType::f32;
  std::int64_t first_ = 0, rows_ = 0, columns_ = 0, buffered_begin_ = 0, buffered_end_ = 0;
  std::vector<char> buffer_;
  std::vector<double> values_;
};

/// Rows of s B A as doubles.
class DeltaRows {
 public:
  explicit DeltaRows(const io::LoraFactors& f)
      : a_(converted<double>(f.a)), b_(converted<double>(f.b)), scale_(f.scale) {}

  /// values += row `r` of s B A
  void add_row(std::int64_t r, std::vector<double>& values) const {
    const std::int64_t rank = a_.shape(0), in = a_.shape(1);
    for (std::int64_t j = 0; j < rank; ++j) {
      const double factor = scale_ * b_.data()[r * rank + j];
      const double* a = a_.data() + j * in;
      for (std::int64_t c = 0; c < in; ++c) values[static_cast<std::size_t>(c)] += factor * a[c];
    }
  }
  /// ‖s B A‖² by the Gram matrices. A tiny negative result of rounding is 0.
  double sum_of_squares() const {
    const std::int64_t rank = a_.shape(0), in = a_.shape(1), out = b_.shape(0);
    const double *a = a_.data(), *b = b_.data();
    double sum = 0;
    for (std::int64_t i = 0; i < rank; ++i) {
      for (std::int64_t j = 0; j < rank; ++j) {
        double aa = 0, bb = 0;
        for (std::int64_t c = 0; c < in; ++c) aa += a[i * in + c] * a[j * in + c];
        for (std::int64_t r = 0; r < out; ++r) bb += b[r * rank + i] * b[r * rank + j];
        sum += aa * bb;
      }
    }
    return std::max(scale_ * scale_ * sum, 0.0);
  }

 private:
  Tensor<double> a_, b_;
  double scale_;
};

/// Squared norms of one matrix, or of one of its rows, before and after fine-tuning.
struct SquaredNorms {
  double before = 0, after = 0, delta = 0;
};

/// Input of the criteria: a model, and its fine-tuned checkpoint or its adapter, or neither.
struct ModelPair {
  const hub::Checkpoint& base;
  const hub::Checkpoint* tuned = nullptr;
  const io::Adapter* adapter = nullptr;

  bool has_tuning() const { return tuned != nullptr || adapter != nullptr; }
};

/// Calls `body(row index, norms of that row)` for each row.
template <class Body>
void for_each_row_norm(const ModelPair& models, const StoredMatrix& matrix, Body&& body) {
  MatrixRows before(models.base, matrix);
  std::optional<MatrixRows> after;
  if (models.tuned != nullptr) after.emplace(*models.tuned, matrix);
  const io::LoraFactors factors =
      models.adapter ? models.adapter->find(matrix.module) : io::LoraFactors{};
  std::optional<DeltaRows> lora;
  if (factors) lora.emplace(factors);
  const std::int64_t n = before.columns();
  std::vector<double> delta(static_cast<std::size_t>(n)), sum(delta.size());
  for (std::int64_t r = 0; r < before.rows(); ++r) {
    const std::vector<double>& w = before.row(r);
    SquaredNorms norms;
    norms.before = norms.after = sum_of_squares(w.data(), n);
    if (after || lora) {
      const std::vector<double>* tuned = after ? &after->row(r) : nullptr;
      std::fill(delta.begin(), delta.end(), 0.0);
      if (lora) lora->add_row(r, delta);
      for (std::size_t c = 0; c < delta.size(); ++c) {
        if (tuned != nullptr) delta[c] = (*tuned)[c] - w[c];
        sum[c] = tuned != nullptr ? (*tuned)[c] : w[c] + delta[c];
      }
      norms.after = sum_of_squares(sum.data(), n);
      norms.delta = sum_of_squares(delta.data(), n);
    }
    body(r, norms);
  }
}

}  // namespace espalier::prune
