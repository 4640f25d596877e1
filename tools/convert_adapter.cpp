// SPDX-License-Identifier: Apache-2.0
// convert_adapter: a PEFT adapter between its layouts. Espalier reads and writes the layout of
// transformers 4, which every PEFT loads; the others are not supported yet.
#include "cli/program.hpp"

int main(int argc, char** argv) {
  std::string input, output, format;
  return espalier::run_program(
      argc, argv, "convert_adapter", "Converts a PEFT adapter between its layouts.",
      [&](CLI::App& app) {
        app.add_option("--input", input, "PEFT adapter folder")->required();
        app.add_option("--output", output, "Folder to write; must not exist")->required();
        app.add_option("--to", format, "Layout to write")->required();
      },
      [&](const espalier::CommonOptions&) {
        throw espalier::UsageError("--to " + format +
                                   ": not supported yet; adapters are in the layout of "
                                   "transformers 4, which PEFT converts when it loads them");
      });
}
