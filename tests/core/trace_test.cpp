// SPDX-License-Identifier: Apache-2.0
#include <espalier/core/trace_report.hpp>

#include <chrono>
#include <thread>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {
void wait_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}
const trace::Row& row_of(const trace::Report& report, const std::string& name) {
  for (const trace::Row& row : report.rows) {
    if (row.name == name) return row;
  }
  FAIL("no row " << name);
  return report.rows[0];
}
}  // namespace

TEST_CASE("trace: inner time and work are taken off the outer row", "[core][trace]") {
  { const trace::Scope ignored("before"); }
  trace::count(1, 1);
  trace::start();
  REQUIRE(trace::enabled());
  for (int i = 0; i < 3; ++i) {
    const trace::Scope outer("outer", " x");
    trace::count(10, 100);
    trace::estimate_bytes(7);
    {
      const trace::Scope inner("inner");
      trace::count(1, 0, /*narrow=*/true);
      trace::estimate_bytes(7);
      wait_ms(5);
    }
    wait_ms(1);
    trace::count(5, 0);
  }
  trace::count(1e9, 1e9);  // outside every scope: nobody's
  const trace::Report report = trace::stop();
  REQUIRE(!trace::enabled());
  REQUIRE(report.rows.size() == 2);
  const trace::Row &outer = row_of(report, "outer x"), &inner = row_of(report, "inner");
  REQUIRE(report.rows[0].name == "inner");  // longest first
  REQUIRE((outer.calls == 3 && inner.calls == 3));
  REQUIRE((outer.flops == 45 && outer.bytes == 300 && outer.narrow_flops == 0));
  REQUIRE((inner.flops == 3 && inner.bytes == 21 && inner.narrow_flops == 3));
  REQUIRE(inner.seconds >= 0.015);
  REQUIRE(outer.seconds >= 0.003);
  REQUIRE(inner.seconds + outer.seconds <= report.seconds);
  REQUIRE(report.events.size() == 6);
  for (std::size_t i = 0; i < 6; i += 2) {  // an event lies within the one around it
    const trace::Event &in = report.events[i], &out = report.events[i + 1];
    REQUIRE((std::string(in.name) == "inner" && std::string(out.name) == "outer"));
    REQUIRE(out.begin <= in.begin);
    REQUIRE(in.begin + in.seconds <= out.begin + out.seconds + 1e-6);
  }
  REQUIRE(trace::stop().rows.empty());
}

TEST_CASE("trace: a declared amount is all there is", "[core][trace]") {
  trace::start();
  {
    const trace::Scope scope("op");
    trace::declare(100, 0, true);
    trace::count(7, 7);
    trace::estimate_bytes(50);
  }
  const trace::Report report = trace::stop();
  const trace::Row& row = row_of(report, "op");
  REQUIRE((row.flops == 100 && row.narrow_flops == 100 && row.bytes == 50));
}

TEST_CASE("trace: one that ends within a scope, or of another thread, is left alone",
          "[core][trace]") {
  trace::start();
  {
    const trace::Scope cut("cut");
    trace::start();
  }
  std::thread([] {
    REQUIRE(!trace::enabled());
    const trace::Scope elsewhere("elsewhere");
  }).join();
  REQUIRE(trace::stop().rows.empty());
}

TEST_CASE("trace: the fraction of the ceiling is the best possible time over the time taken",
          "[core][trace]") {
  const trace::Ceilings c{100, 400, 10};
  REQUIRE(trace::of_ceiling({2, 1, 100, 0}, c) == 0.5);   // bound by arithmetic
  REQUIRE(trace::of_ceiling({2, 10, 100, 0}, c) == 0.5);  // by either
  REQUIRE(trace::of_ceiling({4, 20, 100, 0}, c) == 0.5);  // by memory
  REQUIRE(trace::of_ceiling({1, 0, 100, 40}, c) == 0.7);  // 60 / 100 + 40 / 400
  REQUIRE(trace::of_ceiling({1, 5, 100, 0}, {}) == 0);
  REQUIRE(trace::of_ceiling({0, 5, 100, 0}, c) == 0);
}

TEST_CASE("trace: the table has a row per op, the rest and the sum", "[core][trace]") {
  trace::Report report;
  report.seconds = 0.01;
  trace::Row row;
  row.name = "linear backward";
  row.calls = 4;
  row.seconds = 0.005;
  row.bytes = 2e6;
  row.flops = 1e9;
  report.rows = {row};
  REQUIRE(trace::table(report, {400e9, 0, 10e9}) ==
          "op                             calls         ms    share         MB     Mflop    GB/s"
          "  GFLOP/s ceiling\n"
          "linear backward                    4      5.000   50.0 %       2.00    1000.0     0.4"
          "    200.0    0.50\n"
          "outside ops                               5.000   50.0 %\n"
          "all                                4     10.000  100.0 %       2.00    1000.0     0.2"
          "    100.0    0.25\n"
          "ceilings: 400 GFLOP/s f32, 10.0 GB/s copied; above 1: from caches\n");
  const std::string without = trace::table(report);
  REQUIRE(without.find("ceiling") == std::string::npos);
  REQUIRE(without.find("200.0\n") != std::string::npos);
}

TEST_CASE("trace: the file is in Chrome's format, names escaped", "[core][trace]") {
  const test::TemporaryFolder folder;
  trace::Report report;
  report.events = {{"a \"b\\", " backward", 0.5e-3, 0.25e-3, 1024, 2e9}, {"c", "", 0, 1, 0, 0}};
  const std::string path = (folder / "trace.json").string();
  trace::write_chrome(report, path);
  REQUIRE(test::read_bytes(path) ==
          "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n"
          "{\"name\": \"a \\\"b\\\\ backward\", \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": "
          "500.000, \"dur\": 250.000, \"args\": {\"bytes\": 1024, \"flops\": 2000000000}},\n"
          "{\"name\": \"c\", \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": 0.000, \"dur\": "
          "1000000.000, \"args\": {\"bytes\": 0, \"flops\": 0}}\n]}\n");
  REQUIRE_THROWS_WITH(trace::write_chrome(report, "/nowhere/trace.json"),
                      "trace: cannot write /nowhere/trace.json");
}
