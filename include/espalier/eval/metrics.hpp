// SPDX-License-Identifier: Apache-2.0
// Filters of answers and metrics of generated texts and of likelihoods: everything in
// eval/metrics/.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/eval/metrics/answer_filter.hpp>
#include <espalier/eval/metrics/bleu.hpp>
#include <espalier/eval/metrics/chrf.hpp>
#include <espalier/eval/metrics/classification.hpp>
#include <espalier/eval/metrics/copying.hpp>
#include <espalier/eval/metrics/drop.hpp>
#include <espalier/eval/metrics/exact_match.hpp>
#include <espalier/eval/metrics/instructions.hpp>
#include <espalier/eval/metrics/letter_answer.hpp>
#include <espalier/eval/metrics/likelihood.hpp>
#include <espalier/eval/metrics/math_answer.hpp>
#include <espalier/eval/metrics/math_match.hpp>
#include <espalier/eval/metrics/math_value.hpp>
#include <espalier/eval/metrics/named_metrics.hpp>
#include <espalier/eval/metrics/ngrams.hpp>
#include <espalier/eval/metrics/porter_stemmer.hpp>
#include <espalier/eval/metrics/python_number.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/rouge.hpp>
#include <espalier/eval/metrics/samples.hpp>
#include <espalier/eval/metrics/sentences.hpp>
#include <espalier/eval/metrics/ter.hpp>
#include <espalier/eval/metrics/text_match.hpp>
#include <espalier/eval/metrics/word_tokens.hpp>
