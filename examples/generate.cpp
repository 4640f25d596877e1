// SPDX-License-Identifier: Apache-2.0
// generate: continues prompts, or answers in the checkpoint's chat format.
//   generate --model mixtral --prompt "The capital of France is" --max-new-tokens 20 --stop .
//   generate --model mixtral --adapter run --chat "What is 12 times 7?" --temperature 0.7
//   generate --model mixtral --interactive --system "Answer briefly."
//   generate --model mixtral --prompts prompts.jsonl --output answers.jsonl
// Text appears as it is generated; rates go to stderr. --temperature 0 (the default) is greedy.
// Greedy answers to --prompts are generated together, others one after another.
#include <espalier/hub/load_model.hpp>
#include <espalier/infer/answer_prompts.hpp>
#include <espalier/infer/chat.hpp>
#include <espalier/ops/trace_session.hpp>

#include "cli/answers.hpp"
#include "cli/compute.hpp"
#include "cli/generation_options.hpp"
#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"
#include "cli/terminal_chat.hpp"

namespace {

using namespace espalier;
using Ids = std::vector<std::int32_t>;

struct Options {
  std::string model, adapter, dtype = "f32", chat_template = "auto", system;
  std::string prompt, chat, prompts, output;
  bool interactive = false;
  std::int64_t batch = 16;
  infer::GeneratorOptions generate;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
  app.add_option("--adapter", o.adapter, "PEFT adapter folder to apply");
  app.add_option("--dtype", o.dtype, "Computation in f32 or bf16")
      ->check(CLI::IsMember({"f32", "bf16"}));
  const char* group = "Prompt";
  app.add_option("--prompt", o.prompt, "Text to continue")->group(group);
  app.add_option("--chat", o.chat, "A user's message to answer")->group(group);
  app.add_flag("--interactive", o.interactive,
               "A chat: messages are lines of standard input; Ctrl-C ends an answer")
      ->group(group);
  app.add_option("--prompts", o.prompts,
                 "File of prompts, - for standard input: lines of text, or of JSON with \"prompt\" "
                 "or \"messages\"; one JSON line for each on standard output")
      ->group(group);
  app.add_option("--output", o.output, "With --prompts: the file to write instead")->group(group);
  app.add_option("--batch-size", o.batch, "With --prompts: sequences that are generated together")
      ->check(integer_within(1, 4096))
      ->group(group);
  app.add_option("--system", o.system, "System message of chats that have none")->group(group);
  app.add_option("--chat-template", o.chat_template,
                 "auto (the checkpoint's), none, chatml, mixtral or mixtral-v1")
      ->check(CLI::IsMember({"auto", "none", "chatml", "mixtral", "mixtral-v1"}))
      ->group(group);
  declare_generation(app, o.generate);
}

void check(const Options& o, const CommonOptions& common) {
  const int modes = !o.prompt.empty() + !o.chat.empty() + o.interactive + !o.prompts.empty();
  ESP_REQUIRE(modes == 1, UsageError,
              "give exactly one of --prompt, --chat, --interactive and --prompts");
  ESP_REQUIRE(o.output.empty() || !o.prompts.empty(), UsageError, "--output needs --prompts");
  ESP_REQUIRE(o.system.empty() || o.prompt.empty(), UsageError,
              "--system needs a chat: --chat, --interactive, or --prompts with messages");
  ESP_REQUIRE(o.generate.decode.log_probs < 0 || common.json || !o.prompts.empty(), UsageError,
              "--logprobs needs --json or --prompts");
}

/// Generates with one model, as the options say.
template <FloatElement T, Device D>
class Run {
 public:
  Run(const Options& o, const CommonOptions& common, const hub::Checkpoint& checkpoint)
      : o_(o),
        common_(common),
        words_(text::ChatTokenizer::load(o.model, o.chat_template)),
        model_(hub::load_model<T, D>(checkpoint, o.adapter)) {}

  void run() {
    if (!o_.prompts.empty()) return answer_file();
    infer::Generator<T, D> generator(model_, words_, generator_options());
    if (o_.interactive) return chat(generator);
    infer::Prompt prompt;
    prompt.text = o_.prompt;
    if (!o_.chat.empty()) prompt.messages = {{"user", o_.chat}};
    const Ids ids = infer::encode_prompt(prompt, words_, o_.system);
    warn_if_too_long(ids);
    (void)interrupted();  // from here on
    show(generator.answer(ids, !o_.chat.empty(), [&](const std::string& piece) {
      show_piece(piece);
      return !interrupted();
    }));
  }

 private:
  infer::GeneratorOptions generator_options() const {
    infer::GeneratorOptions options = o_.generate;
    options.decode.seed = common_.seed;
    return options;
  }
  void warn_if_too_long(const Ids& ids) {
    const std::int64_t limit = model_.config().max_position_embeddings;
    const std::int64_t longest = std::ssize(ids) + o_.generate.decode.max_new_tokens;
    if (warned_ || longest <= limit) return;
    warned_ = true;
    print(stderr,
          "generate: warning: {} prompt tokens and {} new ones are more than the model's "
          "max_position_embeddings of {}: it was not trained beyond them\n",
          ids.size(), o_.generate.decode.max_new_tokens, limit);
  }
  void show_piece(const std::string& piece) const {
    if (common_.json) return;
    print("{}", piece);
    std::fflush(stdout);
  }
  void show(const infer::Answer& a) const {
    const auto rate = [](std::int64_t tokens, double seconds) {
      return static_cast<double>(tokens) / std::max(seconds, 1e-9);
    };
    const std::int64_t fresh = a.prompt_tokens - a.reused_tokens;
    const double prefill = rate(fresh, a.prefill_seconds);
    const double decode = rate(std::ssize(a.tokens), a.decode_seconds);
    if (common_.json) {
      io::Json j = to_json(a, words_.tokenizer());
      j["prefill_tokens_per_second"] = prefill;
      j["decode_tokens_per_second"] = decode;
      print("{}\n", io::dump(j));
    } else {
      print("\n");
    }
    std::fflush(stdout);
    if (common_.json) return;
    print(stderr, "{} prompt tokens at {:.1f}/s, {} new tokens at {:.1f}/s\n", fresh, prefill,
          a.tokens.size(), decode);
  }

  void chat(infer::Generator<T, D>& generator) {
    infer::Chat<T, D> chat(generator, o_.system);
    TerminalChat terminal;
    while (const auto message = terminal.next_message()) {
      warn_if_too_long(chat.prompt(*message));
      show(chat.say(*message, [&](const std::string& piece) {
        show_piece(piece);
        return !TerminalChat::answer_cut();
      }));
    }
  }

  void answer_file() {
    const std::string source = o_.prompts == "-" ? "/dev/stdin" : o_.prompts;
    const auto prompts = infer::parse_prompts(io::read_text(source), source);
    std::vector<Ids> ids;
    for (const infer::Prompt& p : prompts) {
      ESP_REQUIRE(o_.system.empty() || !p.messages.empty(), UsageError, p.where,
                  ": --system needs \"messages\", this is a text to continue");
      ids.push_back(infer::encode_prompt(p, words_, o_.system));
      words_.tokenizer().require_within(ids.back(), model_.config().vocab_size);
      warn_if_too_long(ids.back());
    }
    OrderedLines lines(o_.output);
    Progress bar("generate", std::ssize(prompts), "prompts");
    const auto add = [&](std::size_t i, const io::Json& line) {
      bar.clear();
      lines.add(i, line);
      bar.add(1);
    };
    const infer::DecodeOptions& d = o_.generate.decode;
    const bool together =
        d.sampling.temperature <= 0 && d.sampling.repetition_penalty == 1 && d.log_probs < 0;
    (void)interrupted();
    together ? answer_together(prompts, ids, add) : answer_each(prompts, ids, add);
    lines.commit();
  }
  template <class Add>
  void answer_each(const std::vector<infer::Prompt>& prompts, const std::vector<Ids>& ids,
                   const Add& add) {
    infer::Generator<T, D> generator(model_, words_, generator_options());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      generator.decode_options().sequence = i;
      const auto answer = generator.answer(ids[i], !prompts[i].messages.empty(),
                                           [](const std::string&) { return !interrupted(); });
      stop_if_interrupted();
      add(i, to_json(answer, words_.tokenizer()));
    }
  }
  template <class Add>
  void answer_together(const std::vector<infer::Prompt>& prompts, const std::vector<Ids>& ids,
                       const Add& add) {
    infer::answer_together(
        model_, words_, prompts, ids, o_.generate, o_.batch, [] { stop_if_interrupted(); },
        [&](std::size_t i, const infer::Completion& c) { add(i, to_json(c, ids[i].size())); });
  }
  static void stop_if_interrupted() {
    if (interrupted()) throw Interrupted("not all prompts are answered");
  }

  const Options& o_;
  const CommonOptions& common_;
  text::ChatTokenizer words_;
  Decoder<T, D> model_;
  bool warned_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "generate", "Continues prompts or answers messages.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        check(o, common);
        if (o.output.empty()) (void)signal(SIGPIPE, SIG_DFL);  // `generate ... | head` ends quietly
        const hub::Checkpoint checkpoint(o.model);
        print_warnings("generate", checkpoint.warnings());
        visit_compute(common.device, o.dtype,
                      [&]<class T, class D>() { Run<T, D>(o, common, checkpoint).run(); });
      });
}
