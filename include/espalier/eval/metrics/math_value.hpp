// SPDX-License-Identifier: Apache-2.0
// Exact values of short mathematical expressions: fractions of polynomials, in any letters and pi,
// whose coefficients are rational numbers times square roots. Equality needs no rounding:
//   1/(1+\sqrt{2}) = \sqrt{2}-1,  \frac{n(n+1)}{2} = (n^2+n)/2,  0.75 = 3/4
// Read are LaTeX and plain text: + - * / ^ ( ), \frac, \sqrt, \pi, thousands separators, percent,
// mixed numbers (3\frac{1}{2}). What is not of that form, or beyond a limit (2000 characters, 128
// terms, 64 levels, powers of 64, 128-bit integers), has no value.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/math_value.hpp is host-only; include it from a .cpp"
#endif

#include <compare>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

__extension__ typedef __int128 MathInt;

/// In lowest terms, the denominator positive.
struct Rational {
  MathInt numerator = 0, denominator = 1;
  friend bool operator==(const Rational&, const Rational&) = default;
};

/// sqrt(radicand) times letters to powers; the radicand is square-free and positive.
struct Monomial {
  MathInt radicand = 1;
  std::map<std::string, int> powers;
  friend auto operator<=>(const Monomial&, const Monomial&) = default;
};
using Polynomial = std::map<Monomial, Rational>;  // no coefficient is 0

class MathValue {
 public:
  /// The value of an expression; nothing where it has none.
  [[nodiscard]] static std::optional<MathValue> parse(std::string_view text);

  /// Are both the same function of their letters?
  [[nodiscard]] bool equals(const MathValue& other) const;
  /// The number, if it is rational.
  [[nodiscard]] std::optional<Rational> rational() const;
  /// Was a number written with a decimal point?
  bool is_decimal() const { return is_decimal_; }

 private:
  friend class MathParser;
  Polynomial numerator_, denominator_;
  bool is_decimal_ = false;
};

/// Rational numbers that are equal when rounded to `decimals` places.
[[nodiscard]] bool equal_rounded(const Rational& a, const Rational& b, int decimals);

/// LaTeX without what does not change a value: \left, \right, thin spaces, $, degrees, and with one
/// spelling of fractions and of signs.
[[nodiscard]] std::string plain_math(std::string_view text);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <cmath>
#include <numeric>
#include <utility>

#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// Thrown and caught in this file: an expression has no value that these types can hold.
struct NoMathValue {};

inline void require_value(bool ok) {
  if (!ok) throw NoMathValue();
}

inline MathInt times(MathInt a, MathInt b) {
  MathInt out = 0;
  require_value(!__builtin_mul_overflow(a, b, &out));
  return out;
}
inline MathInt plus(MathInt a, MathInt b) {
  MathInt out = 0;
  require_value(!__builtin_add_overflow(a, b, &out));
  return out;
}
inline MathInt magnitude(MathInt a) {
  require_value(a != MathInt(1) << 127);
  return a < 0 ? -a : a;
}
inline MathInt common_divisor(MathInt a, MathInt b) {
  a = magnitude(a);
  b = magnitude(b);
  while (b != 0) a = std::exchange(b, a % b);
  return a;
}
inline Rational ratio(MathInt n, MathInt d) {
  require_value(d != 0);
  if (d < 0) {
    n = times(n, -1);
    d = times(d, -1);
  }
  const MathInt g = common_divisor(n, d);
  return {n / g, d / g};
}
inline Rational operator*(const Rational& a, const Rational& b) {
  const Rational x = ratio(a.numerator, b.denominator), y = ratio(b.numerator, a.denominator);
  return {times(x.numerator, y.numerator), times(x.denominator, y.denominator)};
}
inline Rational operator+(const Rational& a, const Rational& b) {
  return ratio(plus(times(a.numerator, b.denominator), times(b.numerator, a.denominator)),
               times(a.denominator, b.denominator));
}
inline Rational inverse(const Rational& a) {
  return ratio(a.denominator, a.numerator);
}

/// sqrt(n) as square * sqrt(free); n up to 10^10, so that trial division suffices.
inline std::pair<MathInt, MathInt> square_part(MathInt n) {
  require_value(n >= 0 && n <= MathInt(10'000'000'000));
  MathInt square = 1, free = n;
  for (MathInt p = 2; p * p <= free; ++p) {
    for (; free % (p * p) == 0; free /= p * p) square *= p;
  }
  return {square, free};
}

inline void add_term(Polynomial& sum, const Monomial& monomial, const Rational& coefficient) {
  Rational& c = sum[monomial];
  c = c + coefficient;
  if (c.numerator == 0) sum.erase(monomial);
  require_value(sum.size() <= 128);
}

inline std::pair<Monomial, Rational> term_product(const Monomial& a, const Rational& x,
                                                  const Monomial& b, const Rational& y) {
  Monomial m = a;
  for (const auto& [letter, power] : b.powers) {
    int& p = m.powers[letter];
    p += power;
    require_value(p >= -64 && p <= 64);
    if (p == 0) m.powers.erase(letter);
  }
  const MathInt square = common_divisor(a.radicand, b.radicand);
  m.radicand = times(a.radicand / square, b.radicand / square);
  return {m, x * y * Rational{square, 1}};
}

inline Polynomial operator*(const Polynomial& a, const Polynomial& b) {
  Polynomial out;
  for (const auto& [m, x] : a) {
    for (const auto& [n, y] : b) {
      const auto [monomial, coefficient] = term_product(m, x, n, y);
      add_term(out, monomial, coefficient);
    }
  }
  return out;
}
inline Polynomial operator+(Polynomial a, const Polynomial& b) {
  for (const auto& [m, x] : b) add_term(a, m, x);
  return a;
}
inline Polynomial constant(const Rational& x) {
  Polynomial p;
  if (x.numerator != 0) p[Monomial()] = x;
  return p;
}

inline std::string text_of(MathInt n) {
  std::string s;
  for (MathInt rest = magnitude(n); rest > 0 || s.empty(); rest /= 10) {
    s.insert(s.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
  }
  return n < 0 ? "-" + s : s;
}
/// A name for a polynomial that is the same for equal ones.
inline std::string text_of(const Polynomial& p) {
  std::string s;
  for (const auto& [m, x] : p) {
    s += "+" + text_of(x.numerator) + "/" + text_of(x.denominator) + "r" + text_of(m.radicand);
    for (const auto& [letter, power] : m.powers) s += letter + "^" + std::to_string(power);
  }
  return s;
}

}  // namespace detail

/// Recursive descent over plain_math's text.
class MathParser {
 public:
  explicit MathParser(std::string_view text) : text_(text) {}

  MathValue run() {
    MathValue v = sum();
    skip_spaces();
    detail::require_value(at_ == text_.size());
    v.is_decimal_ = decimal_;
    return v;
  }

  static MathValue of(Polynomial numerator, Polynomial denominator = detail::constant({1, 1})) {
    detail::require_value(!denominator.empty());
    MathValue v;
    if (denominator.size() == 1) {  // divide by its only term
      const auto& [m, x] = *denominator.begin();
      Monomial inverse;
      inverse.radicand = m.radicand;
      for (const auto& [letter, power] : m.powers) inverse.powers[letter] = -power;
      const Rational scale = detail::inverse(detail::operator*(x, {m.radicand, 1}));
      numerator = detail::operator*(numerator, Polynomial{{inverse, scale}});
      denominator = detail::constant({1, 1});
    }
    v.numerator_ = std::move(numerator);
    v.denominator_ = std::move(denominator);
    return v;
  }
  static MathValue product(const MathValue& a, const MathValue& b) {
    return of(detail::operator*(a.numerator_, b.numerator_),
              detail::operator*(a.denominator_, b.denominator_));
  }
  static MathValue quotient(const MathValue& a, const MathValue& b) {
    return of(detail::operator*(a.numerator_, b.denominator_),
              detail::operator*(a.denominator_, b.numerator_));
  }
  static MathValue total(const MathValue& a, const MathValue& b) {
    return of(detail::operator+(detail::operator*(a.numerator_, b.denominator_),
                                detail::operator*(b.numerator_, a.denominator_)),
              detail::operator*(a.denominator_, b.denominator_));
  }

 private:
  /// Counts the levels of brackets.
  struct Level {
    explicit Level(int& depth) : depth_(depth) { detail::require_value(++depth_ <= 64); }
    ~Level() { --depth_; }
    int& depth_;
  };

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  char next() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(std::string_view symbol) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(symbol)) return false;
    at_ += symbol.size();
    return true;
  }
  static MathValue number(const Rational& x) { return of(detail::constant(x)); }

  MathValue sum() {
    const Level level(depth_);
    MathValue v = signed_product();
    while (next() == '+' || next() == '-') {
      // The sign belongs to the next product.
      v = total(v, signed_product());
    }
    return v;
  }
  MathValue signed_product() {
    bool negative = false;
    for (; next() == '+' || next() == '-'; ++at_) negative ^= text_[at_] == '-';
    const MathValue v = factors();
    return negative ? product(number({-1, 1}), v) : v;
  }
  MathValue factors() {
    MathValue v = power();
    for (;;) {
      if (take("*")) {
        v = product(v, signed_power());
      } else if (take("/")) {
        v = quotient(v, signed_power());
      } else if (starts_factor()) {
        v = product(v, power());
      } else {
        return v;
      }
    }
  }
  bool starts_factor() {
    const char c = next();
    return c == '(' || c == '{' || c == '\\' || is_ascii_letter(c);
  }
  MathValue signed_power() {
    if (take("-")) return product(number({-1, 1}), signed_power());
    return power();
  }

  MathValue power() {
    MathValue v = base();
    while (next() == '^' || next() == '%') {
      if (text_[at_++] == '%') {
        v = product(v, number({1, 100}));
        continue;
      }
      const Level level(depth_);
      return raised(v, next() == '-' ? signed_power() : next() == '{' ? base() : power());
    }
    return v;
  }
  MathValue raised(MathValue v, const MathValue& exponent) {
    const std::optional<Rational> e = exponent.rational();
    detail::require_value(e.has_value() && detail::magnitude(e->numerator) <= 64);
    if (e->denominator != 1) {
      detail::require_value(e->denominator <= 64);
      v = root(v, static_cast<int>(e->denominator));
    }
    MathValue out = number({1, 1});
    for (MathInt i = 0; i < detail::magnitude(e->numerator); ++i) out = product(out, v);
    return e->numerator < 0 ? quotient(number({1, 1}), out) : out;
  }
  /// Exact where a rational number has a root of that kind, or a square root; else a new letter.
  MathValue root(const MathValue& v, int n) {
    if (const std::optional<Rational> x = v.rational()) {
      detail::require_value(x->numerator >= 0);
      if (n == 2) {
        const auto [square, free] =
            detail::square_part(detail::times(x->numerator, x->denominator));
        if (square == 0 || free == 0) return number({0, 1});
        return of({{Monomial{free, {}}, detail::ratio(square, x->denominator)}});
      }
      const MathInt a = whole_root(x->numerator, n), b = whole_root(x->denominator, n);
      if (a >= 0 && b > 0) return number({a, b});
    }
    const std::string name = "root" + std::to_string(n) + "(" + detail::text_of(v.numerator_) +
                             ")/(" + detail::text_of(v.denominator_) + ")";
    detail::require_value(name.size() <= 4096);
    return of({{Monomial{1, {{name, 1}}}, Rational{1, 1}}});
  }
  /// -1 where n has no whole root.
  static MathInt whole_root(MathInt x, int n) {
    const auto near = static_cast<MathInt>(
        std::llround(std::pow(static_cast<double>(x), 1.0 / static_cast<double>(n))));
    MathInt back = 1;
    for (int i = 0; i < n; ++i) back = detail::times(back, near);
    return back == x ? near : -1;
  }

  MathValue base() {
    const char c = next();
    if (is_ascii_digit(c) || c == '.') return literal();
    for (const auto& [open, close] : {std::pair{"(", ")"}, std::pair{"{", "}"}}) {
      if (!take(open)) continue;
      MathValue v = sum();
      detail::require_value(take(close));
      return v;
    }
    if (take("\\frac")) {
      const MathValue top = argument();
      return quotient(top, argument());
    }
    if (take("\\sqrt")) {
      int n = 2;
      if (take("[")) {
        const std::optional<Rational> index = sum().rational();
        detail::require_value(take("]") && index && index->denominator == 1 &&
                              index->numerator >= 2 && index->numerator <= 64);
        n = static_cast<int>(index->numerator);
      }
      return root(argument(), n);
    }
    if (take("\\pi")) return letter("pi");
    detail::require_value(is_ascii_letter(c));
    return letter(std::string(1, text_[at_++]));
  }
  static MathValue letter(const std::string& name) {
    return of({{Monomial{1, {{name, 1}}}, Rational{1, 1}}});
  }
  /// What follows \frac or \sqrt: braces, or one digit or letter.
  MathValue argument() {
    if (next() == '{') return base();
    if (is_ascii_digit(next())) return number({text_[at_++] - '0', 1});
    return base();
  }

  MathValue literal() {
    Rational x{0, 1};
    bool digits = false;
    const auto take_digits = [&](bool decimals) {
      MathInt scale = 1;
      for (; at_ < text_.size() && is_ascii_digit(text_[at_]); ++at_) {
        digits = true;
        x.numerator = detail::plus(detail::times(x.numerator, 10), text_[at_] - '0');
        if (decimals) scale = detail::times(scale, 10);
      }
      x.denominator = detail::times(x.denominator, scale);
    };
    take_digits(false);
    const bool whole = digits;
    while (thousands_follow()) {
      ++at_;
      take_digits(false);
    }
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      decimal_ = true;
      take_digits(true);
    }
    detail::require_value(digits);
    MathValue v = number(detail::ratio(x.numerator, x.denominator));
    // A whole number right before a fraction of whole numbers: a mixed number.
    if (whole && text_.substr(at_).starts_with("\\frac")) {
      const std::size_t back = at_;
      const MathValue fraction = base();
      const std::optional<Rational> r = fraction.rational();
      if (r && r->numerator > 0 && r->denominator > r->numerator) return total(v, fraction);
      at_ = back;
    }
    return v;
  }
  /// A comma, three digits, and no fourth.
  bool thousands_follow() const {
    const std::string_view rest = text_.substr(at_);
    return rest.size() >= 4 && rest[0] == ',' && is_ascii_digit(rest[1]) &&
           is_ascii_digit(rest[2]) && is_ascii_digit(rest[3]) &&
           (rest.size() == 4 || !is_ascii_digit(rest[4]));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool decimal_ = false;
};

ESP_INLINE std::string plain_math(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> kSame[] = {
      {"\\left", ""},        {"\\right", ""}, {"\\!", ""},      {"\\,", ""},
      {"\\;", ""},           {"\\ ", " "},    {"\\$", ""},      {"$", ""},
      {"^{\\circ}", ""},     {"^\\circ", ""}, {"\u00b0", ""},   {"\\dfrac", "\\frac"},
      {"\\tfrac", "\\frac"}, {"\\cdot", "*"}, {"\\times", "*"}, {"\\div", "/"},
      {"\u2212", "-"},       {"\u00d7", "*"}, {"\u00f7", "/"},  {"\u03c0", "\\pi "},
      {"\\%", "%"},          {"{,}", ","},    {"**", "^"}};
  std::string s(strip(text));
  for (const auto& [from, to] : kSame) {
    if (s.find(from) != s.npos) s = replace_all(s, from, to);
  }
  std::string_view out = strip(s);
  while (out.size() > 1 && out.ends_with('.')) out = strip(out.substr(0, out.size() - 1));
  return std::string(out);
}

ESP_INLINE std::optional<MathValue> MathValue::parse(std::string_view text) {
  if (text.empty() || text.size() > 2000) return std::nullopt;
  const std::string plain = plain_math(valid_text(text));
  // Words are no products of letters.
  std::size_t run = 0;
  bool command = false;
  for (const char c : plain) {
    command = c == '\\' || (command && is_ascii_letter(c));
    run = is_ascii_letter(c) && !command ? run + 1 : 0;
    if (run > 3) return std::nullopt;
  }
  try {
    return MathParser(plain).run();
  } catch (const detail::NoMathValue&) {
    return std::nullopt;
  }
}

ESP_INLINE bool MathValue::equals(const MathValue& other) const {
  try {
    return detail::operator*(numerator_, other.denominator_) ==
           detail::operator*(other.numerator_, denominator_);
  } catch (const detail::NoMathValue&) {
    return false;
  }
}

ESP_INLINE std::optional<Rational> MathValue::rational() const {
  if (denominator_ != detail::constant({1, 1})) return std::nullopt;
  if (numerator_.empty()) return Rational{0, 1};
  const auto& [monomial, coefficient] = *numerator_.begin();
  if (numerator_.size() > 1 || monomial != Monomial()) return std::nullopt;
  return coefficient;
}

ESP_INLINE bool equal_rounded(const Rational& a, const Rational& b, int decimals) {
  const auto rounded = [&](const Rational& x) {
    return std::nearbyint(static_cast<long double>(x.numerator) *
                          std::pow(10.0L, static_cast<long double>(decimals)) /
                          static_cast<long double>(x.denominator));
  };
  return rounded(a) == rounded(b);
}

}  // namespace espalier::eval::metrics
#endif
