// SPDX-License-Identifier: Apache-2.0
// Loads a checkpoint as a LanguageModel.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/load_engine.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <memory>
#include <string>

#include <espalier/hub/load_model.hpp>
#include <espalier/infer/engine.hpp>

namespace espalier::infer {

/// The checkpoint's model with the adapter in a folder (empty: none), computing in T on D.
template <FloatElement T = float, Device D = Cpu>
[[nodiscard]] std::unique_ptr<LanguageModel> load_engine(const hub::Checkpoint& checkpoint,
                                                         const std::string& adapter,
                                                         const text::Tokenizer& tokenizer,
                                                         const EngineOptions& options) {
  return std::make_unique<DecoderEngine<T, D>>(hub::load_model<T, D>(checkpoint, adapter),
                                               tokenizer, options);
}

/// The type of an instance of load_engine, to choose type and device at run time.
using LoadEngine =
    std::function<std::unique_ptr<LanguageModel>(const hub::Checkpoint&, const std::string& adapter,
                                                 const text::Tokenizer&, const EngineOptions&)>;

}  // namespace espalier::infer
