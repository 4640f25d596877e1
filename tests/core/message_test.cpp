// SPDX-License-Identifier: Apache-2.0
// What messages are made of, against what a stream writes.
#include <espalier/core/function.hpp>
#include <espalier/core/shape.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>

#include "support/catch.hpp"

using namespace espalier;

TEST_CASE("message: every part as a stream writes it", "[core]") {
  const auto same = [](const auto& part) {
    std::ostringstream os;
    os << part;
    CHECK(detail::concat({part}) == os.str());
  };
  for (const double x : {0.0, -0.0, 1.0, 0.1, 1e-300, 123456.0, 1234567.0, -2.5e17,
                         std::numeric_limits<double>::infinity()}) {
    same(x);
    same(static_cast<float>(x));
  }
  same(std::numeric_limits<std::int64_t>::min());
  same(std::numeric_limits<std::uint64_t>::max());
  same(std::size_t{7});
  same(-3);
  same(true);
  same('x');
  same(std::string("text"));
  same(std::string_view("view"));
  same("literal");
  same(Shape{});
  same(Shape{5});
  same(Shape{0, 12, std::int64_t{1} << 62});
  CHECK(detail::concat({"a ", 1, ',', ' ', Shape{2, 3}}) == "a 1, [2, 3]");
  CHECK(detail::concat({}).empty());
}

TEST_CASE("message: its parts are evaluated on failure only", "[core]") {
  int evaluated = 0;
  const auto part = [&] { return ++evaluated; };
  ESP_REQUIRE(true, Error, part());
  CHECK(evaluated == 0);
  const auto fail = [&] { ESP_REQUIRE(false, ShapeError, "part ", part()); };
  CHECK_THROWS_AS(fail(), ShapeError);
  CHECK(evaluated == 1);
}

TEST_CASE("function: empty, copied, with a state and with arguments that only move", "[core]") {
  Function<int(int)> f;
  CHECK_FALSE(f);
  f = [calls = 0](int x) mutable { return x + ++calls; };
  const Function<int(int)> copy = f;
  CHECK(f(10) == 11);
  CHECK(copy(10) == 12);  // copies share what was captured
  f = nullptr;
  CHECK_FALSE(f);
  CHECK(copy(10) == 13);

  const Function<std::unique_ptr<int>(std::unique_ptr<int>)> pass = [](std::unique_ptr<int> p) {
    ++*p;
    return p;
  };
  CHECK(*pass(std::make_unique<int>(1)) == 2);

  const auto alive = std::make_shared<int>(0);
  Function<void()> holds = [alive] {};
  CHECK(alive.use_count() == 2);
  holds = nullptr;
  CHECK(alive.use_count() == 1);
}
