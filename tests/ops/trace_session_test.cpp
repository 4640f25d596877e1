// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/attention.hpp>
#include <espalier/ops/linear.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/trace_session.hpp>

#include <cstdlib>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {
Var<float> leaf(Shape shape) {
  return parameter(test::make_tensor<float>(shape, test::normal(shape.numel(), 1)));
}
trace::Row row_of(const trace::Report& report, const std::string& name) {
  for (const trace::Row& row : report.rows) {
    if (row.name == name) return row;
  }
  FAIL("no row " << name);
  return {};
}
}  // namespace

TEST_CASE("trace: ops tell their flops and bytes, whatever the number of threads",
          "[ops][trace_session]") {
  const int threads = GENERATE(1, 2, 8);
  set_num_threads(threads);
  const auto x = leaf({30, 20}), w = leaf({40, 20});
  const auto q = leaf({6, 4, 8}), k = leaf({6, 2, 8}), v = leaf({6, 2, 8});
  trace::start();
  const auto y = linear(x, w);
  backward(reshape(y, {40, 30}), Tensor<float>({40, 30}, 1.0f));
  backward(attention(q, k, v, {0, 4, 6}), Tensor<float>({6, 4, 8}, 1.0f));
  const trace::Report report = trace::stop();
  set_num_threads(2);
  REQUIRE(row_of(report, "linear").flops == 2 * 30 * 20 * 40);
  REQUIRE(row_of(report, "linear").bytes == 4 * (30 * 20 + 40 * 20 + 30 * 40));
  REQUIRE(row_of(report, "linear backward").flops == 2 * 2 * 30 * 20 * 40);
  REQUIRE(row_of(report, "reshape").bytes == 0);  // a view moves nothing
  REQUIRE(row_of(report, "reshape backward").bytes == 0);
  // Segments of 4 and 2 rows: 10 and 3 visible pairs, of 4 heads and 8 numbers.
  REQUIRE(row_of(report, "attention").flops == 2 * 2 * 13 * 4 * 8);
  REQUIRE(row_of(report, "attention backward").flops == 5 * 2 * 13 * 4 * 8);
  REQUIRE(row_of(report, "attention").bytes == 4 * (2 * 6 * 4 * 8 + 2 * 6 * 2 * 8));
}

TEST_CASE("TraceSession: writes its file where it ends, and nothing when it has none",
          "[ops][trace_session]") {
  const test::TemporaryFolder folder;
  const std::string path = (folder / "trace.json").string();
  {
    const TraceSession session(path);
    REQUIRE(trace::enabled());
    { const TraceSession within(path + ".none"); }
    REQUIRE(trace::enabled());
    (void)linear(leaf({3, 4}), leaf({5, 4}));
  }
  REQUIRE(!trace::enabled());
  REQUIRE(test::read_bytes(path).find("\"name\": \"linear\", \"ph\": \"X\"") != std::string::npos);
  REQUIRE(!std::filesystem::exists(path + ".none"));
  {
    const TraceSession none("");
    REQUIRE(!trace::enabled());
  }
  REQUIRE_THROWS_WITH(TraceSession("/nowhere/t.json"), "trace: cannot write /nowhere/t.json");
  REQUIRE(!trace::enabled());
  setenv("ESPALIER_TRACE", path.c_str(), 1);
  {
    const TraceSession session;
    REQUIRE(trace::enabled());
  }
  unsetenv("ESPALIER_TRACE");
  {
    const TraceSession session;
    REQUIRE(!trace::enabled());
  }
}
