// SPDX-License-Identifier: Apache-2.0
// Everything in infer/.
#pragma once
#ifdef __CUDACC__
#error "espalier/infer.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/infer/answer_prompts.hpp>
#include <espalier/infer/chat.hpp>
#include <espalier/infer/decode.hpp>
#include <espalier/infer/engine.hpp>
#include <espalier/infer/language_model.hpp>
#include <espalier/infer/load_engine.hpp>
#include <espalier/infer/prefix_steps.hpp>
#include <espalier/infer/prompts.hpp>
#include <espalier/infer/sampling.hpp>
#include <espalier/infer/stopped_text.hpp>
