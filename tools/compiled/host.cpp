// SPDX-License-Identifier: Apache-2.0
// The functions that core/inline.hpp is about: files, tokenizers, plans and command lines, compiled
// once for all programs and tests of this repository.
#include <espalier/data.hpp>
#include <espalier/eval.hpp>
#include <espalier/hub.hpp>
#include <espalier/infer.hpp>
#include <espalier/io.hpp>
#include <espalier/plot.hpp>
#include <espalier/prune.hpp>
#include <espalier/text.hpp>
#include <espalier/train.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

#define ESP_ADD_OPTION(T) \
  template CLI::Option* CLI::App::add_option<T>(std::string, T&, std::string);
ESP_ADD_OPTION(bool)
ESP_ADD_OPTION(double)
ESP_ADD_OPTION(int)
ESP_ADD_OPTION(std::int64_t)
ESP_ADD_OPTION(std::uint64_t)
ESP_ADD_OPTION(std::string)
ESP_ADD_OPTION(std::vector<std::string>)
