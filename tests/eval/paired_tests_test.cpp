// SPDX-License-Identifier: Apache-2.0
// Against scipy 1.16 (binomtest, its Wilson interval) and values worked out by hand.
#include <espalier/eval/paired_tests.hpp>

#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::eval;
using Catch::WithinAbs;
using Catch::WithinRel;

TEST_CASE("paired: McNemar's exact test is scipy's binomial test", "[eval]") {
  CHECK_THAT(mcnemar_exact(14, 2), WithinRel(0.004180908203125, 1e-12));
  CHECK(mcnemar_exact(0, 0) == 1);
  CHECK_THAT(mcnemar_exact(3, 0), WithinRel(0.25, 1e-12));
  CHECK_THAT(mcnemar_exact(10, 10), WithinAbs(1.0, 1e-12));
  CHECK_THAT(mcnemar_exact(7, 5), WithinRel(0.7744140625, 1e-12));
  CHECK_THAT(mcnemar_exact(120, 95), WithinRel(0.10145232764870649, 1e-10));
  CHECK_THAT(mcnemar_exact(1, 30), WithinRel(2.9802322387695312e-08, 1e-10));
}

TEST_CASE("paired: Wilson's interval is scipy's", "[eval]") {
  struct Case {
    std::int64_t hits, count;
    double low, high;
  };
  for (const Case& c :
       {Case{0, 10, 0.0, 0.27753279986288926}, Case{10, 10, 0.7224672001371109, 1.0},
        Case{3, 10, 0.10779126740630102, 0.6032218525388546},
        Case{433, 1000, 0.4026038718810217, 0.46390891375604265},
        Case{1, 2, 0.09453120573423074, 0.9054687942657693}, Case{0, 2, 0.0, 0.6576197724933469}}) {
    CAPTURE(c.hits, c.count);
    const Interval i = wilson_interval(c.hits, c.count);
    CHECK_THAT(i.low, WithinAbs(c.low, 1e-12));
    CHECK_THAT(i.high, WithinAbs(c.high, 1e-12));
  }
}

TEST_CASE("paired: the difference's error is that of the differences", "[eval]") {
  // 400 questions, 14 lost and 2 gained: (14 - 2) / 400, and the spread of 16 ones among zeros.
  std::vector<double> a(400, 1.0), b(400, 1.0);
  for (int i = 0; i < 14; ++i) b[i] = 0;
  a[20] = a[21] = 0;
  const Estimate d = paired_difference(b, a);
  CHECK_THAT(d.value, WithinRel(-0.03, 1e-12));
  CHECK_THAT(d.standard_error, WithinAbs(0.0099, 5e-5));
}

TEST_CASE("paired: the bootstrap's interval is about the normal one, wider for groups", "[eval]") {
  std::vector<double> d;
  std::vector<std::int64_t> groups;
  const Philox random(3);
  for (std::uint64_t i = 0; i < 600; ++i) {
    const double shared = random.normal(10000 + i / 30);
    d.push_back(shared + random.normal(i));
    groups.push_back(static_cast<std::int64_t>(i / 30));
  }
  const Estimate mean = mean_of(d);
  const Interval plain = bootstrap_interval(d, {}, 1), clustered = bootstrap_interval(d, groups, 1);
  CHECK_THAT(plain.low, WithinAbs(mean.value - kNormal95 * mean.standard_error, 0.01));
  CHECK_THAT(plain.high, WithinAbs(mean.value + kNormal95 * mean.standard_error, 0.01));
  CHECK(clustered.high - clustered.low > 2 * (plain.high - plain.low));
  CHECK(bootstrap_interval(d, {}, 1).low == plain.low);
}

TEST_CASE("paired: Holm's procedure", "[eval]") {
  const std::vector<double> p = {0.01, 0.04, 0.03, 0.005};
  const std::vector<double> want = {0.03, 0.06, 0.06, 0.02};
  const std::vector<double> found = holm(p);
  for (std::size_t i = 0; i < p.size(); ++i) CHECK_THAT(found[i], WithinRel(want[i], 1e-12));
  CHECK(holm(std::vector<double>{0.9, 0.8}) == std::vector<double>{1, 1});
}

TEST_CASE("paired: the smallest difference that can be found", "[eval]") {
  CHECK_THAT(smallest_detectable(400, 0.04), WithinAbs(2.8016 * 0.01, 1e-4));
}
