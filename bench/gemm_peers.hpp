// SPDX-License-Identifier: Apache-2.0
// Other libraries' matrix products, loaded at run time and optional in the build: sgemm of OpenBLAS
// (its OpenMP build, where installed) and of oneDNN, and oneDNN's matmul primitive (version 2),
// which also takes bf16. What is missing is an empty function.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <espalier/core/dtype.hpp>

#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#if DNNL_VERSION_MAJOR == 2
#define ESP_BENCH_MATMUL
#endif
#endif

namespace espalier::bench {

/// Row-major c[m, n] = a b without gaps; `a_transposed`: a is stored as [k, m], likewise b.
struct Product {
  std::int64_t m, n, k;
  const void* a;
  const void* b;
  void* c;
  bool a_transposed = false, b_transposed = false;
  DType a_type = DType::f32, b_type = DType::f32, c_type = DType::f32;
};
using RunProduct = std::function<void()>;

namespace detail {
template <class F>
F symbol(const std::vector<const char*>& libraries, const char* name) {
  for (const char* library : libraries) {
    if (void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL)) {
      if (void* f = dlsym(handle, name)) return reinterpret_cast<F>(f);
    }
  }
  return nullptr;
}
inline const std::vector<const char*> kOnednn = {"libdnnl.so.2", "libdnnl.so.3"};
inline const std::vector<const char*> kOpenblas = {
    "/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so.0", "libopenblas.so.0"};
}  // namespace detail

/// The processor whose kernels OpenBLAS runs, or why it runs none.
inline std::string openblas_core() {
  using Name = char* (*)();
  static const auto core = detail::symbol<Name>(detail::kOpenblas, "openblas_get_corename");
  return core == nullptr ? "not installed" : core();
}

/// f32 only.
inline RunProduct openblas_sgemm(const Product& p) {
  using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                         float, float*, int);
  static const auto sgemm = detail::symbol<Sgemm>(detail::kOpenblas, "cblas_sgemm");
  if (sgemm == nullptr) return nullptr;
  constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;
  return [p] {
    const auto m = static_cast<int>(p.m), n = static_cast<int>(p.n), k = static_cast<int>(p.k);
    sgemm(kRowMajor, p.a_transposed ? kTransposed : kPlain, p.b_transposed ? kTransposed : kPlain,
          m, n, k, 1, static_cast<const float*>(p.a), p.a_transposed ? m : k,
          static_cast<const float*>(p.b), p.b_transposed ? k : n, 0, static_cast<float*>(p.c), n);
  };
}

/// f32 only.
inline RunProduct onednn_sgemm(const Product& p) {
  using Sgemm = int (*)(char, char, std::int64_t, std::int64_t, std::int64_t, float, const float*,
                        std::int64_t, const float*, std::int64_t, float, float*, std::int64_t);
  static const auto sgemm = detail::symbol<Sgemm>(detail::kOnednn, "dnnl_sgemm");
  if (sgemm == nullptr) return nullptr;
  return [p] {
    sgemm(p.a_transposed ? 'T' : 'N', p.b_transposed ? 'T' : 'N', p.m, p.n, p.k, 1,
          static_cast<const float*>(p.a), p.a_transposed ? p.m : p.k,
          static_cast<const float*>(p.b), p.b_transposed ? p.k : p.n, 0, static_cast<float*>(p.c),
          p.n);
  };
}

#ifdef ESP_BENCH_MATMUL
namespace detail {
/// The functions of the C interface that a product needs.
struct Onednn {
#define ESP_BENCH_SYMBOL(name) \
  decltype(&dnnl_##name) name = symbol<decltype(name)>({"libdnnl.so.2"}, "dnnl_" #name)
  ESP_BENCH_SYMBOL(engine_create);
  ESP_BENCH_SYMBOL(stream_create);
  ESP_BENCH_SYMBOL(stream_wait);
  ESP_BENCH_SYMBOL(memory_desc_init_by_strides);
  ESP_BENCH_SYMBOL(memory_create);
  ESP_BENCH_SYMBOL(memory_destroy);
  ESP_BENCH_SYMBOL(matmul_desc_init);
  ESP_BENCH_SYMBOL(primitive_desc_create);
  ESP_BENCH_SYMBOL(primitive_desc_destroy);
  ESP_BENCH_SYMBOL(primitive_create);
  ESP_BENCH_SYMBOL(primitive_destroy);
  ESP_BENCH_SYMBOL(primitive_execute);
#undef ESP_BENCH_SYMBOL
  dnnl_engine_t engine = nullptr;
  dnnl_stream_t stream = nullptr;

  Onednn() {
    if (engine_create == nullptr || primitive_execute == nullptr) return;
    if (engine_create(&engine, dnnl_cpu, 0) != dnnl_success) engine = nullptr;
    if (engine != nullptr) stream_create(&stream, engine, dnnl_stream_default_flags);
  }
  static const Onednn& instance() {
    static const Onednn* library = new Onednn;  // outlives every product
    return *library;
  }
};

/// One matmul primitive and its operands.
struct Matmul {
  const Onednn& library = Onednn::instance();
  dnnl_primitive_t primitive = nullptr;
  dnnl_memory_t memories[3] = {};

  Matmul() = default;
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;
  ~Matmul() {
    for (dnnl_memory_t memory : memories) {
      if (memory != nullptr) library.memory_destroy(memory);
    }
    if (primitive != nullptr) library.primitive_destroy(primitive);
  }

  static dnnl_data_type_t type(DType t) {
    return t == DType::bf16 ? dnnl_bf16 : t == DType::f16 ? dnnl_f16 : dnnl_f32;
  }
  bool describe(dnnl_memory_desc_t& d, std::int64_t rows, std::int64_t cols, bool transposed,
                DType t) const {
    const dnnl_dims_t dims = {rows, cols};
    const dnnl_dims_t strides = {transposed ? 1 : cols, transposed ? rows : 1};
    return library.memory_desc_init_by_strides(&d, 2, dims, type(t), strides) == dnnl_success;
  }
  /// False where the library is missing or refuses the types on this processor.
  bool prepare(const Product& p) {
    if (library.engine == nullptr) return false;
    dnnl_memory_desc_t a, b, c;
    if (!describe(a, p.m, p.k, p.a_transposed, p.a_type) ||
        !describe(b, p.k, p.n, p.b_transposed, p.b_type) ||
        !describe(c, p.m, p.n, false, p.c_type)) {
      return false;
    }
    dnnl_matmul_desc_t matmul;
    if (library.matmul_desc_init(&matmul, &a, &b, nullptr, &c) != dnnl_success) return false;
    dnnl_primitive_desc_t chosen = nullptr;
    if (library.primitive_desc_create(&chosen, &matmul, nullptr, library.engine, nullptr) !=
        dnnl_success) {
      return false;
    }
    const bool created = library.primitive_create(&primitive, chosen) == dnnl_success;
    library.primitive_desc_destroy(chosen);
    if (!created) return false;
    library.memory_create(&memories[0], &a, library.engine, const_cast<void*>(p.a));
    library.memory_create(&memories[1], &b, library.engine, const_cast<void*>(p.b));
    library.memory_create(&memories[2], &c, library.engine, p.c);
    return true;
  }
  void run() const {
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, memories[0]}, {DNNL_ARG_WEIGHTS, memories[1]}, {DNNL_ARG_DST, memories[2]}};
    library.primitive_execute(primitive, library.stream, 3, args);
    library.stream_wait(library.stream);
  }
};
}  // namespace detail

/// Any types that oneDNN takes. Choosing and compiling its kernel is not timed.
inline RunProduct onednn_matmul(const Product& p) {
  const auto matmul = std::make_shared<detail::Matmul>();
  if (!matmul->prepare(p)) return nullptr;
  return [matmul] { matmul->run(); };
}
#else
inline RunProduct onednn_matmul(const Product&) {
  return nullptr;
}
#endif

}  // namespace espalier::bench
