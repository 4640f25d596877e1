// SPDX-License-Identifier: Apache-2.0
// Jinja chat templates: recognised or refused; the canonical form is its own canonical form.
#include <espalier/text/chat_template.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  if (const auto form = text::detail::canonical_template(text)) {
    (void)text::detail::canonical_template(*form);
  }
  fuzz::accepts([&] {
    const auto chat = text::ChatTemplate::from_source(text, "a.jinja", "<s>", "</s>");
    (void)chat.render({{"user", "hello"}, {"assistant", "hi"}, {"user", "and?"}}, true);
  });
}
