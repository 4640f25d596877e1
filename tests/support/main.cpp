// SPDX-License-Identifier: Apache-2.0
// The one Catch main. Beside Catch2's own command line:
//   test_io --need shared "[.shared]"
// asks whether what the hidden cases need is there; if not it says why and exits 77, which ctest
// reports as skipped. Needs: shared (the data folder beside the repository), python (packages to
// compare with), smollm2 (a real tokenizer).
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

constexpr int kSkipped = 77;

/// Why the cases cannot run here; empty when they can.
std::string missing(std::string_view need) {
  if (need == "shared") {
    if (access(ESPALIER_SHARED_DATA, R_OK) == 0) return {};
    return std::string("no data folder ") + ESPALIER_SHARED_DATA;
  }
  if (need == "python") {
    const char* python = std::getenv("ESPALIER_PEERS_PYTHON");
    if (python == nullptr) {
      return "set ESPALIER_PEERS_PYTHON to a python that has torch, transformers and peft";
    }
    const std::string probe =
        std::string("\"") + python +
        "\" -c 'import importlib.util as u, sys; "
        "sys.exit(any(u.find_spec(m) is None for m in (\"torch\", \"transformers\", \"peft\")))'";
    if (std::system(probe.c_str()) == 0) return {};
    return std::string(python) + " lacks torch, transformers or peft";
  }
  if (need == "smollm2") {
    const char* folder = std::getenv("ESPALIER_SMOLLM2");
    if (folder != nullptr && access(folder, R_OK) == 0) return {};
    return "set ESPALIER_SMOLLM2 to a folder with the tokenizer of SmolLM2-135M-Instruct";
  }
  if (need == "file_limit") {  // ulimit -f, which stands for a full disk
#ifdef __SANITIZE_THREAD__
    return "ThreadSanitizer keeps its shadow memory in a file";
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    return "ThreadSanitizer keeps its shadow memory in a file";
#endif
#endif
    return {};
  }
  return "unknown need '" + std::string(need) + "'";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 3 && std::string_view(argv[1]) == "--need") {
    if (const std::string why = missing(argv[2]); !why.empty()) {
      std::printf("skipped: %s\n", why.c_str());
      return kSkipped;
    }
    argv[2] = argv[0];
    argc -= 2;
    argv += 2;
  }
  return Catch::Session().run(argc, argv);
}
