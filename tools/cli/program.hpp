// SPDX-License-Identifier: Apache-2.0
// What every program shares: the common options, help, errors in one line, exit codes, Ctrl-C.
//   int main(int argc, char** argv) {
//     Options o;
//     return espalier::run_program(argc, argv, "prune", "Removes experts that a plan drops.",
//         [&](CLI::App& app) { app.add_option("--model", o.model, "...")->required(); },
//         [&](const espalier::CommonOptions& common) { ... });
//   }
// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. The second function may return one.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <new>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include <espalier/core/control_characters.hpp>
#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/peak_memory.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/io/mapped_file.hpp>
#include <espalier/io/output_lock.hpp>

#include "cli/numbers.hpp"
#ifndef ESPALIER_COMPILED  // what CLI11 has but in these two is a third of its cost
#include <CLI/CLI.hpp>
#endif

#include "cli/progress.hpp"

namespace espalier {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;

struct CommonOptions {
  int threads = 0;  // 0: all cores
  std::uint64_t seed = 0;
  std::string device = "cpu";
  bool json = false;
  bool remove_leftovers = false;  // of programs with --output
};

/// Ends the program with exit code 130 and its message; throw it once the state is saved.
struct Interrupted : Error {
  using Error::Error;
};

namespace detail {
inline volatile sig_atomic_t interrupt_count = 0;

inline void on_interrupt(int signal) {
  const bool by_a_person = signal == SIGINT || signal == SIGTERM;  // SIGXCPU comes every second
  if (interrupt_count > 0 && !by_a_person) return;
  if (interrupt_count > 0) _exit(kExitInterrupted);
  interrupt_count = 1;
  constexpr char kText[] =
      "\ninterrupted: finishing this step; press Ctrl-C again to stop at once\n";
  (void)!write(STDERR_FILENO, kText, sizeof kText - 1);
}
}  // namespace detail

/// Has the user pressed Ctrl-C, the terminal gone away (SIGHUP), or a batch system asked for the
/// end (SIGTERM, SIGUSR1, SIGXCPU)? From the first call on such a signal no longer ends the
/// program: the caller finishes its step, saves and throws `Interrupted`. A second Ctrl-C or
/// SIGTERM ends it at once.
[[nodiscard]] inline bool interrupted() {
  static const bool installed = [] {
    struct sigaction action = {}, before = {};
    action.sa_handler = detail::on_interrupt;
    action.sa_flags = SA_RESTART;
    bool all = true;
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU}) {
      const bool known = sigaction(signal, nullptr, &before) == 0;
      if (signal == SIGHUP && known && before.sa_handler == SIG_IGN) continue;  // nohup
      all = sigaction(signal, &action, nullptr) == 0 && all;
    }
    return all;
  }();
  return installed && detail::interrupt_count > 0;
}

namespace detail {

inline std::string one_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return escape_controls(text);
}

inline std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// ", did you mean --lora-r?" for an option that is a few letters off; else empty.
inline std::string suggestion(const CLI::App& app, const std::string& unknown) {
  std::string best;
  std::size_t distance = 1 + unknown.size() / 3;
  for (const CLI::Option* option : app.get_options()) {
    const std::string known = option->get_name();
    if (const std::size_t d = edit_distance(unknown, known); d < distance) {
      best = known;
      distance = d;
    }
  }
  return best.empty() ? best : ", did you mean " + best + "?";
}

inline void declare_common(CLI::App& app, CommonOptions& common) {
  app.set_help_flag("--help", "Print this help and exit");
  app.option_defaults()->always_capture_default();
  app.add_option("--device", common.device, "Where to compute")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->group("Common");
  app.add_option("--threads", common.threads, "CPU threads; 0 takes all cores")
      ->check(integer_within(0, 4096))
      ->group("Common");
  app.add_option("--seed", common.seed, "Seed of everything random")
      ->check(integer_within(0, ~std::uint64_t{0}))
      ->group("Common");
  app.add_flag("--json", common.json, "Print one JSON object instead of text")->group("Common");
}

/// Opens /dev/null in the place of standard streams that are closed: else the next file that is
/// opened becomes one of them, and gets what is printed.
inline void open_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", O_RDWR);  // takes the lowest free number
  }
}

/// A checkpoint keeps a file open per shard; the usual soft limit is 1024.
inline void allow_many_open_files() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)!setrlimit(RLIMIT_NOFILE, &limit);
}

/// Of a program whose product is an output folder: the reader of its messages may go away. Others
/// end quietly then (`program | head`), whatever the parent had set.
inline void set_broken_pipe(const CLI::App& app) {
  signal(SIGPIPE, app.get_option_no_throw("--output") != nullptr ? SIG_IGN : SIG_DFL);
}

/// Removes what dead runs left at the output and says so; names what may be another machine's.
inline void remove_leftovers(const CLI::App& app, bool undecided_too) {
  const CLI::Option* option = app.get_option_no_throw("--output");
  if (option == nullptr || option->count() == 0 || option->results()[0].empty()) return;
  io::Leftovers found;
  try {
    found = io::remove_leftovers(option->results()[0], undecided_too);
  } catch (const Error&) {
    return;  // another run writes there: this one will say so, if it wants to write too
  }
  for (const auto& path : found.dead) {
    print(stderr, "{}: removed {}, which a run that was killed had left\n", app.get_name(),
          path.string());
  }
  for (const auto& path : found.undecided) {
    if (undecided_too) {
      print(stderr, "{}: removed {}\n", app.get_name(), path.string());
    } else {
      print(
          stderr,
          "{}: warning: {} ({}) is an unfinished output of an earlier version or another machine; "
          "if no run writes it, --remove-leftovers removes it\n",
          app.get_name(), path.string(), format_bytes(static_cast<double>(io::size_on_disk(path))));
    }
  }
}

/// The exit code, or -1 to go on.
inline int parse(CLI::App& app, int argc, char** argv) {
  const std::string name = app.get_name();
  try {
    app.parse(argc, argv);
    return -1;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return 0;
  } catch (const CLI::ExtrasError& e) {
    const std::vector<std::string> rest = app.remaining();
    if (rest.empty()) {
      print(stderr, "{}: {}; see {} --help\n", name, one_line(e.what()), name);
    } else {
      const bool option = rest[0].rfind("--", 0) == 0;
      print(stderr, "{}: {} {}{}; see {} --help\n", name,
            option ? "unknown option" : "unexpected argument", one_line(rest[0]),
            suggestion(app, rest[0].substr(0, rest[0].find('='))), name);
    }
  } catch (const CLI::ParseError& e) {
    print(stderr, "{}: {}; see {} --help\n", name, one_line(e.what()), name);
  }
  return kExitUsage;
}

inline void check_device(const CommonOptions& common) {
#ifndef ESPALIER_CUDA
  ESP_REQUIRE(common.device != "cuda", DeviceError,
              "--device cuda: this program was built without CUDA; use --device cpu, or build with "
              "the preset cuda where the CUDA toolkit is installed");
#else
  (void)common;
#endif
}

inline int fail(const char* name, const std::string& message, int code) {
  std::fflush(stdout);
  print(stderr, "{}: {}\n", name, one_line(message));
  return code;
}

/// A full disk behind standard output shows only when the buffer is written.
inline int flush_output(const char* name, int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return code;
  const char* why = errno != 0 ? std::strerror(errno) : "a write failed";
  print(stderr, "{}: cannot write to standard output: {}\n", name, why);
  return kExitFailed;
}

ESP_INLINE int run_program(int argc, char** argv, const char* name, const char* summary,
                           const std::function<void(CLI::App&)>& declare,
                           const std::function<int(const CommonOptions&)>& run) {
  try {
    open_standard_streams();
    allow_many_open_files();
    io::report_cut_files(name);
    CommonOptions common;
    CLI::App app(summary, name);
    declare_common(app, common);
    declare(app);
    set_broken_pipe(app);
    if (app.get_option_no_throw("--output") != nullptr) {
      app.add_flag("--remove-leftovers", common.remove_leftovers,
                   "Remove what unfinished runs of other machines left at the output")
          ->group("Common");
    }
    if (const int code = parse(app, argc, argv); code >= 0) return flush_output(name, code);
    remove_leftovers(app, common.remove_leftovers);
    set_num_threads(common.threads);
    return flush_output(name, run(common));
  } catch (const UsageError& e) {
    return fail(name, fmt::format("{}; see {} --help", e.what(), name), kExitUsage);
  } catch (const Interrupted& e) {
    return fail(name, e.what(), kExitInterrupted);
  } catch (const std::bad_alloc&) {
    return fail(
        name,
        fmt::format("out of memory ({} MiB were in use at most); ask for less at a time: a smaller "
                    "batch, shorter sequences or a smaller dtype",
                    peak_memory_bytes() >> 20),
        kExitFailed);
  } catch (const std::exception& e) {
    return fail(name, e.what(), kExitFailed);
  }
}

}  // namespace detail

/// Parses the command line (`declare` adds the program's own options), calls `run(common)`, and
/// turns whatever is thrown into one line on stderr and an exit code.
template <class Declare, class Run>
int run_program(int argc, char** argv, const char* name, const char* summary, Declare&& declare,
                Run&& run) {
  return detail::run_program(argc, argv, name, summary, std::ref(declare),
                             [&](const CommonOptions& common) -> int {
                               detail::check_device(common);
                               if constexpr (std::is_void_v<decltype(run(common))>) {
                                 run(common);
                                 return 0;
                               } else {
                                 return run(common);
                               }
                             });
}

}  // namespace espalier

// The options of every program, compiled once.
#define ESP_ADD_OPTION(T) \
  ESP_COMPILED_TEMPLATE(CLI::Option* CLI::App::add_option<T>(std::string, T&, std::string))
ESP_ADD_OPTION(bool);
ESP_ADD_OPTION(double);
ESP_ADD_OPTION(int);
ESP_ADD_OPTION(std::int64_t);
ESP_ADD_OPTION(std::uint64_t);
ESP_ADD_OPTION(std::string);
ESP_ADD_OPTION(std::vector<std::string>);
#undef ESP_ADD_OPTION
