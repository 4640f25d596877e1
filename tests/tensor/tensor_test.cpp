// SPDX-License-Identifier: Apache-2.0
#include <espalier/tensor/tensor.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("Tensor: a copy shares the memory, a clone does not", "[tensor]") {
  const Tensor<float> a({2, 2}, {1, 2, 3, 4});
  const Tensor<float> deep = a.clone();
  Tensor<float> alias = a;
  alias[0] = 9;
  REQUIRE(a[0] == 9);
  REQUIRE(deep[0] == 1);
}

TEST_CASE("Tensor: rows and reshape are views", "[tensor]") {
  const Tensor<float> a({3, 2}, {1, 2, 3, 4, 5, 6});
  auto r = a.rows(1, 3);
  REQUIRE(r.shape() == Shape{2, 2});
  r[0] = 30;
  REQUIRE(a[2] == 30);
  REQUIRE(a.reshaped({6}).data() == a.data());
  REQUIRE_THROWS_WITH(a.rows(2, 4), "rows: [2, 4) of [3, 2]");
  REQUIRE_THROWS_WITH(a.reshaped({7}), "reshape: [3, 2] holds 6 elements, [7] needs 7");
}

TEST_CASE("Tensor: a view keeps the memory alive, of no rows too", "[tensor]") {
  Tensor<float> rows, none;
  {
    const Tensor<float> a({3, 2}, {1, 2, 3, 4, 5, 6});
    REQUIRE(a.use_count() == 1);
    rows = a.rows(1, 2);
    none = a.rows(3, 3);
    REQUIRE(a.use_count() == 3);
  }
  REQUIRE(to_vector(rows) == std::vector<double>{3, 4});
  REQUIRE(none.shape() == Shape{0, 2});
  REQUIRE(none.reshaped({2, 0}).numel() == 0);
  REQUIRE(none.clone().shape() == Shape{0, 2});
  REQUIRE(rows.on_host().bytes() == rows.bytes());  // it is there already
  REQUIRE(rows.on(memory_of<Cpu>()).bytes() == rows.bytes());
}

TEST_CASE("Tensor: the wrong element type and the wrong count are refused", "[tensor]") {
  const AnyTensor any = make_tensor<bf16>({2}, {1, 2});
  REQUIRE_THROWS_WITH(Tensor<float>(any), "Tensor: holds bf16, asked for f32");
  REQUIRE_THROWS_WITH(Tensor<float>({2, 2}, std::vector<float>{1, 2, 3}),
                      "Tensor: 3 values for shape [2, 2], which holds 4");
  REQUIRE(to_vector(converted<float>(any)) == std::vector<double>{1, 2});
}

TEST_CASE("Tensor: a list has one value per element, a scalar fills", "[tensor]") {
  REQUIRE_THROWS_WITH(Tensor<float>({3}, {5}), "Tensor: 1 values for shape [3], which holds 3");
  REQUIRE_THROWS_WITH(Tensor<float>({2}, {1, 2, 3}),
                      "Tensor: 3 values for shape [2], which holds 2");
  REQUIRE_THROWS_WITH(Tensor<float>({2}, {}), "Tensor: 0 values for shape [2], which holds 2");
  REQUIRE(to_vector(Tensor<float>({3}, 5.0f)) == std::vector<double>{5, 5, 5});
  REQUIRE(to_vector(Tensor<float>({1}, {5})) == std::vector<double>{5});
  REQUIRE(Tensor<float>({0}, {}).numel() == 0);
}

TEST_CASE("Tensor: an index past the end is refused", "[tensor]") {
  Tensor<float> t({2, 2}, {1, 2, 3, 4});
  const Tensor<float> same = t;
  REQUIRE(t[3] == 4);
  REQUIRE_THROWS_WITH(t[7], "Tensor: element 7 of shape [2, 2], which holds 4");
  REQUIRE_THROWS_WITH(t[4] = 1, "Tensor: element 4 of shape [2, 2], which holds 4");
  REQUIRE_THROWS_WITH(same[-1], "Tensor: element -1 of shape [2, 2], which holds 4");
  REQUIRE_THROWS_WITH(t.rows(1, 1)[0], "Tensor: element 0 of shape [0, 2], which holds 0");
  REQUIRE_THROWS_WITH(Tensor<float>()[0], "Tensor: element 0 of an empty tensor");
}

TEST_CASE("pool: memory is aligned, and a freed block is used again", "[tensor][pool]") {
  const std::size_t before = pool_stats().system_allocations;
  for (int i = 0; i < 10; ++i) {
    const Tensor<float> t({12345});
    REQUIRE(reinterpret_cast<std::uintptr_t>(t.data()) % 64 == 0);
  }
  REQUIRE(pool_stats().system_allocations <= before + 1);
  trim_pool();
  REQUIRE(pool_stats().cached_bytes == 0);
}

TEST_CASE("pool: a block serves what needs up to a third less", "[tensor][pool]") {
  trim_pool();
  const std::size_t before = pool_stats().in_use_bytes;
  const std::byte* block = nullptr;
  { block = allocate_bytes(6144).get(); }
  REQUIRE(pool_stats().cached_bytes == 6144);
  {
    const auto less = allocate_bytes(4096);
    REQUIRE(less.get() == block);
    REQUIRE(pool_stats().in_use_bytes == before + 6144);
    const auto more = allocate_bytes(4096);
    REQUIRE(more.get() != block);
  }
  REQUIRE(pool_stats().cached_bytes == 6144 + 4096);
  {
    const auto exact = allocate_bytes(4000);  // the nearest size goes first
    REQUIRE(pool_stats().cached_bytes == 6144);
    const auto much_less = allocate_bytes(3584);
    REQUIRE(much_less.get() != block);
  }
  trim_pool();
  REQUIRE(pool_stats().cached_bytes == 0);
  REQUIRE(pool_stats().in_use_bytes == before);
  REQUIRE_THROWS_AS(allocate_bytes(static_cast<std::size_t>(-1)), std::bad_alloc);
}

TEST_CASE("pool: says what is in use, and what was at most", "[tensor][pool]") {
  trim_pool();
  const std::size_t before = pool_stats().in_use_bytes;
  reset_pool_peak();
  {
    const Tensor<float> a({1024}), b({1024});
    REQUIRE(pool_stats().in_use_bytes == before + 8192);
  }
  const Tensor<float> c({1024});
  REQUIRE(pool_stats().in_use_bytes == before + 4096);
  REQUIRE(pool_stats().peak_bytes == before + 8192);
  reset_pool_peak();
  REQUIRE(pool_stats().peak_bytes == before + 4096);
}
