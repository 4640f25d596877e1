// SPDX-License-Identifier: Apache-2.0
// Scores and plans: what is chosen, what is refused and in which words, and damaged input.
#include <espalier/prune/plan.hpp>

#include <espalier/core/random.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "synthetic_checkpoint.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::message_of;

namespace {

std::string plan_refusal(const std::string& text) {
  return message_of<Error>([&] {
    const Plan plan = parse_plan(io::parse_json(text, "p.json"), "p.json");
    check_plan_fits(plan, hub::mixture_of(test::synthetic_config()), "p.json");
    check_exportable(plan, hub::mixture_of(test::synthetic_config()), "p.json");
  });
}
std::string scores_refusal(const std::string& text) {
  return message_of<Error>([&] {
    const Scores s = parse_scores(io::parse_json(text, "s.json"), "s.json");
    check_scores_fit("x", s.at("x", "s.json"), hub::mixture_of(test::synthetic_config()), "s.json");
  });
}

}  // namespace

TEST_CASE("plan: the highest scores stay, of equal ones the lowest id") {
  const Plan plan = plan_from_scores({{1, 5, 3, 5, 2}, {0, 0, 0, 0, 0}, {-1, -2, 7, -1, -1}}, 3);
  CHECK(plan.keep == std::vector<std::vector<int>>{{1, 2, 3}, {0, 1, 2}, {0, 2, 3}});
  CHECK(plan.keeps(0, 3));
  CHECK_FALSE(plan.keeps(0, 0));
  CHECK(plan.new_id(2, 3) == 2);
  // Nested: what 2 keep, 3 keep too.
  const Plan fewer = plan_from_scores({{1, 5, 3, 5, 2}}, 2);
  for (const int e : fewer.keep[0]) CHECK(plan.keeps(0, e));
  CHECK(message_of<UsageError>([] {
          (void)plan_from_scores({{1, 2}}, 3);
        }) == "cannot keep 3 experts per layer, the model has 2");
}

TEST_CASE("plan: keep alone is valid, and a plan written is read back the same") {
  const std::string text = "{\"keep\": [[0, 1], [2, 5], [1, 4]]}";
  CHECK(plan_refusal(text) == "no exception");
  Plan plan = parse_plan(io::parse_json(text, "p"), "p");
  plan.provenance["criterion"] = "reap";
  const Plan again = parse_plan(io::parse_json(plan_json(plan), "q"), "q");
  CHECK(again.keep == plan.keep);
  CHECK(again.provenance == plan.provenance);
}

TEST_CASE("plan: a bad plan is refused in one line that names key, layer and id") {
  CHECK(plan_refusal("{\"keep\": [[0,1],[0,1],[0,1]], \"kept\": 2}") ==
        "p.json: unknown key \"kept\"; a plan has \"keep\" and may have \"provenance\"");
  // The shape of a plan that its reader once took for a list, and then ignored.
  CHECK(plan_refusal("{\"0\": [0,1], \"1\": [0,1]}") ==
        "p.json: unknown key \"0\"; a plan has \"keep\" and may have \"provenance\"");
  CHECK(plan_refusal("{\"keep\": {\"0\": [0,1]}}") ==
        "p.json: \"keep\": expected an array with the kept ids of each layer, found an object");
  CHECK(plan_refusal("{}") == "p.json: \"keep\" is missing");
  CHECK(plan_refusal("[[0,1]]") == "p.json: expected an object with \"keep\", found an array");
  CHECK(plan_refusal("{\"keep\": [[0,1],[1,0],[0,1]]}") ==
        "p.json: layer 1: expert id 0 stands after 1, expected ascending ids");
  CHECK(plan_refusal("{\"keep\": [[0,1],[2,2],[0,1]]}") ==
        "p.json: layer 1: expert id 2 stands twice");
  CHECK(plan_refusal("{\"keep\": [[0,1],[0,1],[0,6]]}") ==
        "p.json: layer 2: expert id 6 is out of range, the model has 6 experts (0 to 5)");
  CHECK(plan_refusal("{\"keep\": [[0,1],[-1,1],[0,1]]}") ==
        "p.json: layer 1: expert id -1 is out of range");
  CHECK(plan_refusal("{\"keep\": [[0,1.0],[0,1],[0,1]]}") ==
        "p.json: layer 0: expert id 1.0 is not an integer");
  CHECK(plan_refusal("{\"keep\": [[0,1],[\"0\",1],[0,1]]}") ==
        "p.json: layer 1: expert id \"0\" is not an integer");
  CHECK(plan_refusal("{\"keep\": [[0,1],[],[0,1]]}") == "p.json: layer 1: keeps no expert");
  CHECK(plan_refusal("{\"keep\": [[0,1],3,[0,1]]}") ==
        "p.json: layer 1: expected an array of expert ids, found an integer");
  CHECK(plan_refusal("{\"keep\": [[0,1],[0,1]]}") == "p.json: has 2 layers, the model has 3");
  CHECK(plan_refusal("{\"keep\": [[0],[0],[0]]}") ==
        "p.json: layer 0 keeps 1 experts, but num_experts_per_tok is 2; keep at least as many");
  CHECK(plan_refusal("{\"keep\": [[0,1,2],[0,1,2],[0,1]]}") ==
        "p.json: layer 2 keeps 2 experts, layer 0 keeps 3; config.json has one number of "
        "experts for all layers, and transformers, vLLM and llama.cpp load nothing else: keep "
        "equally many in every layer");
}

TEST_CASE("plan: layers without a mixture keep nothing, and have no scores") {
  hub::Mixture m = hub::mixture_of(test::synthetic_config());
  m.sparse[1] = false;
  const Plan plan = plan_from_scores({{1, 2, 3, 4, 5, 6}, {}, {6, 5, 4, 3, 2, 1}}, 2);
  CHECK(plan.keep == std::vector<std::vector<int>>{{4, 5}, {}, {0, 1}});
  check_plan_fits(plan, m, "p");
  check_exportable(plan, m, "p");
  CHECK(kept_count(plan) == 2);
  check_scores_fit("x", {{1, 2, 3, 4, 5, 6}, {}, {6, 5, 4, 3, 2, 1}}, m, "s");
  CHECK(message_of<FormatError>([&] {
          check_plan_fits({{{0, 1}, {0, 1}, {0, 1}}, {}}, m, "p");
        }) == "p: layer 1 keeps 2 experts, but it is dense; expected []");
  m.sparse = {false, true, true};
  CHECK(message_of<FormatError>([&] {
          check_exportable({{{}, {0, 1}, {0, 1, 2}}, {}}, m, "p");
        }).starts_with("p: layer 2 keeps 3 experts, layer 1 keeps 2;"));
}

TEST_CASE("plan: grouped experts are chosen and checked group by group") {
  hub::Mixture m = hub::mixture_of(test::synthetic_config());
  m.layers = 1;
  m.sparse = {true};
  m.experts = 12;
  m.groups = 3;
  m.top_groups = 2;
  m.top_k = 3;
  m.groups_by_best_two = true;
  const LayerScores scores = {{9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 0, 2}};
  CHECK(plan_from_scores(scores, 6, 3).keep[0] == std::vector<int>{0, 1, 4, 5, 8, 11});
  CHECK(plan_from_scores(scores, 12, 3).keep[0].size() == 12);
  CHECK(message_of<UsageError>([&] { (void)plan_from_scores(scores, 7, 3); }) ==
        "cannot keep 7 experts per layer: the router chooses from 3 groups, which must stay equal; "
        "keep a multiple of 3");
  const auto refusal = [&](std::vector<int> keep) {
    return message_of<FormatError>([&] { check_exportable({{std::move(keep)}, {}}, m, "p"); });
  };
  CHECK(refusal({0, 1, 4, 5, 8, 11}) == "no exception");
  // Six are left of twelve, as before, but three of the first group: loaders shift the others.
  CHECK(refusal({0, 1, 2, 4, 8, 11}) ==
        "p: layer 0 keeps 1 experts of group 1 and 3 of group 0; the router chooses from 3 equal "
        "groups: keep equally many of each");
  CHECK(refusal({0, 4, 8}) ==
        "p: layer 0 keeps one expert of each group; the router scores a group by its best two: "
        "keep at least two of each");
  m.groups_by_best_two = false;
  CHECK(refusal({0, 4, 8}) ==
        "p: layer 0: the 2 groups that a token chooses from keep 2 experts, but 3 are chosen per "
        "token");
  m.top_k = 2;
  CHECK(refusal({0, 4, 8}) == "no exception");
}

TEST_CASE("plan: layers of multi-token prediction are planned all or not at all") {
  hub::Mixture m = hub::mixture_of(test::synthetic_config());
  m.prediction = {{3, false}, {0, true}};
  const std::vector<int> two = {0, 1};
  check_plan_fits({{two, two, two}, {}}, m, "p");
  check_plan_fits({{two, two, two, two, two}, {}}, m, "p");
  CHECK(message_of<FormatError>([&] {
          check_plan_fits({{two, two, two, two}, {}}, m, "p");
        }) == "p: has 4 layers, the model has 3 and 2 for multi-token prediction; expected 3 or 5");
  CHECK(message_of<FormatError>([&] {
          check_plan_fits({{two, two, two, two, {}}, {}}, m, "p");
        }) == "p: layer 4: keeps no expert");
  CHECK(m.entry_of({.layer = 2}) == 2);
  CHECK(m.entry_of({.layer = 3}) == 3);
  CHECK(m.entry_of({.layer = 0, .mtp = true}) == 4);
  CHECK(m.entry_of({.layer = 1, .mtp = true}) == 5);  // none
}

TEST_CASE("plan: a dense model has nothing to drop") {
  DecoderConfig dense = test::synthetic_config();
  dense.mixture.experts = 0;
  CHECK(message_of<FormatError>([&] {
          check_plan_fits({{{0}}, {}}, hub::mixture_of(dense), "p");
        }) == "p: the model is dense, it has no experts to drop");
}

TEST_CASE("scores: criteria alone are valid; json and csv agree") {
  Scores s =
      parse_scores(io::parse_json("{\"criteria\": {\"x\": [[1, 2.5], [-3e-9, 0]]}}", "s"), "s");
  CHECK(s.at("x", "s") == LayerScores{{1, 2.5}, {-3e-9, 0}});
  s.criteria.emplace_back("y", LayerScores{{0.1, 1e300}, {7, 8}});
  s.provenance["seed"] = 3;
  test::TemporaryFolder folder;
  write_scores(folder.path(), s);
  const Scores again = read_scores(folder / "scores.json");
  CHECK(again.criteria == s.criteria);
  CHECK(again.provenance == s.provenance);
  CHECK(test::read_bytes(folder / "scores.csv") ==
        "layer,expert,x,y\n0,0,1.0,0.1\n0,1,2.5,1e+300\n1,0,-3e-09,7.0\n1,1,0.0,8.0\n");
  CHECK(message_of<UsageError>([&] { (void)s.at("z", "s"); }) ==
        "s: no criterion \"z\"; there are: x, y");
}

TEST_CASE("scores: bad scores are refused in one line that names criterion and layer") {
  const std::string row = "[1,2,3,4,5,6]";
  const auto three = [&](const std::string& middle) {
    return "{\"criteria\": {\"x\": [" + row + "," + middle + "," + row + "]}}";
  };
  CHECK(scores_refusal(three(row)) == "no exception");
  CHECK(scores_refusal(three("[1,2,3]")) ==
        "s.json: criterion \"x\": layer 1 has 3 experts, layer 0 has 6");
  CHECK(scores_refusal(three("[1,2,3,4,null,6]")) ==
        "s.json: criterion \"x\": layer 1, expert 4: expected a number, found null");
  CHECK(scores_refusal(three("[1,2,3,\"4\",5,6]")) ==
        "s.json: criterion \"x\": layer 1, expert 3: expected a number, found a string");
  CHECK(scores_refusal(three("7")) ==
        "s.json: criterion \"x\": layer 1: expected an array of scores, found an integer");
  CHECK(scores_refusal("{\"criteria\": {\"x\": [" + row + "]}}") ==
        "s.json: criterion \"x\" has 1 layers, the model has 3");
  CHECK(scores_refusal("{\"criteria\": {\"x\": [[1],[2],[3]]}}") ==
        "s.json: criterion \"x\": layer 0 has 1 experts, the model has 6");
  CHECK(scores_refusal("{\"criteria\": {\"x\": []}}") == "s.json: criterion \"x\" has no layers");
  CHECK(scores_refusal("{\"criteria\": {\"x\": [[]]}}") ==
        "s.json: criterion \"x\": no layer has experts");
  CHECK(scores_refusal("{\"criteria\": {}}") == "s.json: \"criteria\" is empty");
  CHECK(scores_refusal("{\"criteria\": {\"x\": [[1, 2]], \"y\": [[1]]}}") ==
        "s.json: criterion \"y\": layer 0 has 1 experts, of \"x\" it has 2");
  CHECK(scores_refusal("{\"criteria\": {\"x\": [[1]], \"y\": [[1], [2]]}}") ==
        "s.json: criterion \"y\" has 2 layers, \"x\" has 1");
  CHECK(scores_refusal("{\"scores\": {}}") == "s.json: \"criteria\" is missing");
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    const Scores s{{{"x", {{0, 1}, {2, bad}}}}, {}};
    CHECK_THAT(message_of<FormatError>([&] { check_scores(s, "s"); }),
               Catch::StartsWith("s: criterion \"x\": layer 1, expert 1: the score is "));
  }
}

TEST_CASE("plan and scores: no damage to their text does more than throw an Error") {
  const std::string texts[] = {
      "{\"keep\": [[0, 1], [2, 5], [1, 4]], \"provenance\": {\"a\": [1, {\"b\": null}]}}",
      "{\"criteria\": {\"x\": [[1, 2.5, -1e-3], [3, 0, 1e9]]}, \"provenance\": {}}"};
  int accepted = 0, refused = 0;
  for (std::uint64_t round = 0; round < 4000; ++round) {
    const Philox random(round);
    std::string text = texts[round % 2];
    for (std::uint64_t k = 0; k <= round % 4; ++k) {
      const std::size_t at = random.below(4 * k, static_cast<std::uint32_t>(text.size()));
      constexpr char kBytes[] = "0123456789-.,:[]{}\"eE \\\0\x80\xffnt";
      switch (random.below(4 * k + 1, 3)) {
        case 0:
          text[at] = kBytes[random.below(4 * k + 2, sizeof kBytes)];
          break;
        case 1:
          text.erase(at, 1 + random.below(4 * k + 2, 5));
          break;
        default:
          text.insert(at, text.substr(random.below(4 * k + 2, static_cast<std::uint32_t>(at + 1)),
                                      random.below(4 * k + 3, 12)));
      }
      if (text.empty()) text = " ";
    }
    try {
      const io::Json json = io::parse_json(text, "damaged");
      if (round % 2 == 0) {
        check_plan_fits(parse_plan(json, "damaged"), hub::mixture_of(test::synthetic_config()),
                        "damaged");
      } else {
        (void)plan_from_scores(parse_scores(json, "damaged").criteria[0].second, 2);
      }
      ++accepted;
    } catch (const Error& e) {
      CHECK(std::string(e.what()).find("damaged") == 0);
      ++refused;
    }
  }
  CHECK(accepted > 50);
  CHECK(refused > 1000);
}
