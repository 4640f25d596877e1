// SPDX-License-Identifier: Apache-2.0
#include "cli/program.hpp"

#include <fcntl.h>
#include <sys/wait.h>

#include <algorithm>
#include <functional>

#include "cli/progress.hpp"
#include "support/catch.hpp"

namespace {

struct Outcome {
  int status = -1;
  std::string out, err;
};

std::string drain(int fd) {
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) all.append(buffer, n);
  close(fd);
  return all;
}

/// Runs `program` in a child whose standard streams are pipes (stdout: `out_path` when given).
Outcome run_child(const std::function<int()>& program, const char* out_path = nullptr) {
  int out[2], err[2];
  REQUIRE(pipe(out) == 0);
  REQUIRE(pipe(err) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(out_path != nullptr ? open(out_path, O_WRONLY) : out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    const int status = program();
    std::fflush(nullptr);
    _exit(status);
  }
  close(out[1]);
  close(err[1]);
  Outcome outcome;
  outcome.out = drain(out[0]);
  outcome.err = drain(err[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  return outcome;
}

using Body = std::function<void(const espalier::CommonOptions&)>;

Outcome run_with(std::vector<std::string> arguments, const Body& body,
                 const char* out_path = nullptr) {
  return run_child(
      [&] {
        arguments.insert(arguments.begin(), "demo");
        std::vector<char*> argv;
        for (std::string& a : arguments) argv.push_back(a.data());
        argv.push_back(nullptr);
        std::string model = "none";
        return espalier::run_program(
            static_cast<int>(arguments.size()), argv.data(), "demo", "A demonstration.",
            [&](CLI::App& app) { app.add_option("--model", model, "The model's folder"); }, body);
      },
      out_path);
}

const Body kNothing = [](const espalier::CommonOptions&) {};

}  // namespace

TEST_CASE("program: the common options reach the body", "[tools][program]") {
  const Outcome o = run_with({"--threads", "2", "--seed", "7", "--json"}, [](const auto& common) {
    fmt::print("{} {} {} {} {}", common.threads, common.seed, common.device, common.json,
               espalier::num_threads());
  });
  CHECK(o.status == 0);
  CHECK(o.err.empty());
#ifdef _OPENMP
  CHECK(o.out == "2 7 cpu true 2");
#else
  CHECK(o.out == "2 7 cpu true 1");
#endif
}

TEST_CASE("program: help names every option with its default", "[tools][program]") {
  const Outcome o = run_with({"--help"}, kNothing);
  CHECK(o.status == 0);
  CHECK(o.err.empty());
  for (const char* part : {"A demonstration.", "--model", "=none", "--device", "=cpu", "--threads",
                           "--seed", "--json"}) {
    CHECK_THAT(o.out, Catch::Matchers::Contains(part));
  }
}

TEST_CASE("program: wrong usage is exit 2 and one line that helps", "[tools][program]") {
  using Catch::Matchers::Contains;
  const auto check = [](const Outcome& o, const char* part) {
    CHECK(o.status == 2);
    CHECK(o.out.empty());
    CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
    CHECK_THAT(o.err, Contains(part) && Contains("see demo --help"));
  };
  check(run_with({"--modle", "x"}, kNothing), "unknown option --modle, did you mean --model?");
  check(run_with({"--frobnicate"}, kNothing), "unknown option --frobnicate;");
  check(run_with({"stray"}, kNothing), "unexpected argument stray;");
  check(run_with({"--threads", "many"}, kNothing), "--threads");
  check(run_with({"--device", "tpu"}, kNothing), "tpu");
  check(run_with({}, [](const auto&) { throw espalier::UsageError("--keep 9 of 8 experts"); }),
        "demo: --keep 9 of 8 experts");
}

TEST_CASE("program: a failure is exit 1 and one line", "[tools][program]") {
  const Outcome format =
      run_with({}, [](const auto&) { throw espalier::FormatError("a.json:\nbroken\n"); });
  CHECK(format.status == 1);
  CHECK(format.err == "demo: a.json: broken\n");

  const Outcome memory = run_with({}, [](const auto&) { throw std::bad_alloc(); });
  CHECK(memory.status == 1);
  CHECK_THAT(memory.err, Catch::Matchers::StartsWith("demo: out of memory"));
}

#ifndef ESPALIER_CUDA
TEST_CASE("program: cuda without CUDA is an error, not a fallback", "[tools][program]") {
  const Outcome o = run_with({"--device", "cuda"}, [](const auto&) { fmt::print("ran"); });
  CHECK(o.status == 1);
  CHECK(o.out.empty());
  CHECK_THAT(o.err, Catch::Matchers::Contains("built without CUDA"));
}
#endif

TEST_CASE("program: a full disk behind stdout is noticed", "[tools][program]") {
  const Outcome o = run_with(
      {}, [](const auto&) { fmt::print("result\n"); }, "/dev/full");
  CHECK(o.status == 1);
  CHECK_THAT(o.err, Catch::Matchers::Contains("No space left on device"));
}

TEST_CASE("program: the first interrupt asks, the second ends", "[tools][program]") {
  const Outcome first = run_with({}, [](const auto&) {
    const bool before = espalier::interrupted();
    raise(SIGINT);
    if (!before && espalier::interrupted()) throw espalier::Interrupted("stopped at step 3");
  });
  CHECK(first.status == 130);
  CHECK_THAT(first.err, Catch::Matchers::EndsWith("demo: stopped at step 3\n"));

  const Outcome second = run_with({}, [](const auto&) {
    (void)espalier::interrupted();
    raise(SIGTERM);
    raise(SIGINT);
    fmt::print("still here");
  });
  CHECK(second.status == 130);
  CHECK(second.out.empty());

  const Outcome unasked = run_with({}, [](const auto&) { raise(SIGTERM); });
  CHECK(unasked.status == 1000 + SIGTERM);
}

TEST_CASE("table: numbers go right, words left, and UTF-8 counts characters", "[tools][table]") {
  espalier::Table table({"name", "score"});
  table.add_row({"é", "1.5"});
  table.add_row({"layers", "-12"});
  CHECK(table.text() == "name    score\né         1.5\nlayers    -12\n");
}

TEST_CASE("progress: durations and sizes read as people write them", "[tools][progress]") {
  CHECK(espalier::format_duration(3723.4) == "1:02:03");
  CHECK(espalier::format_duration(65) == "1:05");
  CHECK(espalier::format_bytes(512) == "512 B");
  CHECK(espalier::format_bytes(1.5e9) == "1.50 GB");
}

TEST_CASE("progress: a pipe gets whole lines with what was done", "[tools][progress]") {
  const Outcome o = run_child([] {
    espalier::Progress progress("train", 10, "steps");
    for (int i = 1; i <= 10; ++i) progress.update(i, "loss 1.5");
    return 0;
  });
  CHECK(o.status == 0);
  CHECK(o.out.empty());
  CHECK_THAT(o.err, Catch::Matchers::StartsWith("train: 10 steps in 0:00"));
  CHECK_THAT(o.err, Catch::Matchers::EndsWith("loss 1.5\n"));
}
