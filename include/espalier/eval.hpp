// SPDX-License-Identifier: Apache-2.0
// Everything in eval/.
#pragma once
#ifdef __CUDACC__
#error "espalier/eval.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/eval/answer.hpp>
#include <espalier/eval/answer_rule.hpp>
#include <espalier/eval/compare.hpp>
#include <espalier/eval/encode_pair.hpp>
#include <espalier/eval/evaluation.hpp>
#include <espalier/eval/file_name.hpp>
#include <espalier/eval/generation_task.hpp>
#include <espalier/eval/held_out_loss.hpp>
#include <espalier/eval/journal.hpp>
#include <espalier/eval/lighteval_results.hpp>
#include <espalier/eval/lm_eval_results.hpp>
#include <espalier/eval/metrics.hpp>
#include <espalier/eval/mmlu_pro.hpp>
#include <espalier/eval/mmlu_pro_prompt.hpp>
#include <espalier/eval/mmlu_pro_question.hpp>
#include <espalier/eval/mmlu_pro_score.hpp>
#include <espalier/eval/multiple_choice.hpp>
#include <espalier/eval/paired_tests.hpp>
#include <espalier/eval/prompted_task.hpp>
#include <espalier/eval/prompts.hpp>
#include <espalier/eval/python_random.hpp>
#include <espalier/eval/replay.hpp>
#include <espalier/eval/report.hpp>
#include <espalier/eval/report_plots.hpp>
#include <espalier/eval/report_tables.hpp>
#include <espalier/eval/requests.hpp>
#include <espalier/eval/result_files.hpp>
#include <espalier/eval/result_table.hpp>
#include <espalier/eval/row_template.hpp>
#include <espalier/eval/run_file.hpp>
#include <espalier/eval/session.hpp>
#include <espalier/eval/shipped_tasks.hpp>
#include <espalier/eval/statistics.hpp>
#include <espalier/eval/task.hpp>
#include <espalier/eval/task_definition.hpp>
#include <espalier/eval/task_files.hpp>
#include <espalier/eval/task_rows.hpp>
#include <espalier/eval/text_task.hpp>
#include <espalier/eval/wikitext.hpp>
