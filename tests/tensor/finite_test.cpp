// SPDX-License-Identifier: Apache-2.0
#include <espalier/tensor/finite.hpp>

#include <limits>

#include "support/catch.hpp"

using namespace espalier;

namespace {

template <class T>
void check_type(double largest) {
  const Tensor<T> t({2, 3}, static_cast<T>(static_cast<float>(1)));
  CHECK_NOTHROW(require_finite("file", "x", t));
  t.data()[2] = static_cast<T>(largest);
  CHECK_NOTHROW(require_finite("file", "x", t));
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
    t.data()[5] = static_cast<T>(bad);
    const std::string shown = bad != bad ? "nan" : bad > 0 ? "inf" : "-inf";
    CHECK_THROWS_WITH(require_finite("file", "x", t),
                      "file: tensor \"x\" [2, 3] holds " + shown +
                          " (element 5); values must be finite to be written");
  }
}

}  // namespace

TEST_CASE("require_finite: finds NaN and infinity in every floating type", "[tensor]") {
  check_type<float>(std::numeric_limits<float>::max());
  check_type<double>(std::numeric_limits<double>::max());
  check_type<bf16>(3e38);
  check_type<f16>(65504);
  CHECK_NOTHROW(require_finite("file", "x", Tensor<std::int32_t>({2}, 7)));
  CHECK_NOTHROW(require_finite("file", "x", Tensor<float>(Shape{0})));
}
