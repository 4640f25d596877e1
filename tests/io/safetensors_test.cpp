// SPDX-License-Identifier: Apache-2.0
// Safetensors: files of the reference library, round trips, and every way a file can be wrong.
#include <cstdlib>

#include <espalier/io/safetensors.hpp>
#include <espalier/io/safetensors_writer.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;

namespace {

/// A file made by hand: length, header, data.
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\x01');
}

std::string refusal(const std::string& bytes) {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "x.safetensors", bytes);
  return message_of<FormatError>([&] { SafetensorsFile file(folder / "x.safetensors"); },
                                 folder.path());
}

std::vector<double> values(const AnyTensor& t) {
  std::vector<double> out;
  visit_dtype<double, float, bf16, f16, std::int64_t, std::int32_t, std::uint8_t>(
      "values", t.dtype(), [&]<class T>() {
        const T* p = reinterpret_cast<const T*>(t.bytes());
        for (std::int64_t i = 0; i < t.numel(); ++i) {
          if constexpr (sizeof(T) == 2) {
            out.push_back(static_cast<float>(p[i]));
          } else {
            out.push_back(static_cast<double>(p[i]));
          }
        }
      });
  return out;
}

}  // namespace

TEST_CASE("A file of the reference library gives the same names, types, shapes and values") {
  const SafetensorsFile file(ESPALIER_TESTS_DIR "/golden/safetensors/reference.safetensors");
  const std::vector<double> ramp = {-0.5, -0.25, 0, 0.25, 0.5, 0.75};
  const std::pair<const char*, DType> floats[] = {
      {"f64", DType::f64}, {"f32", DType::f32}, {"bf16", DType::bf16}, {"f16", DType::f16}};
  for (const auto& [name, dtype] : floats) {
    const AnyTensor t = file.tensor(name);
    CHECK(t.dtype() == dtype);
    CHECK(t.shape() == Shape{2, 3});
    CHECK(values(t) == ramp);
  }
  CHECK(values(file.tensor("i64")) == std::vector<double>{-0x1p62, 0, 0x1p62});
  CHECK(values(file.tensor("i32")) == std::vector<double>{-5, 7});
  CHECK(values(file.tensor("u8")) == std::vector<double>{0, 128, 255});
  CHECK(file.tensor("scalar").shape().rank() == 0);
  CHECK(values(file.tensor("scalar")) == std::vector<double>{1.5});
  CHECK(file.tensor("empty").shape() == Shape{0, 4});
  CHECK(file.at("bool").type == "BOOL");
  CHECK(message_of<DTypeError>([&] { (void)file.tensor("bool"); }, file.path().parent_path()) ==
        "reference.safetensors: tensor \"bool\" has dtype BOOL, supported are F64 F32 BF16 F16 I64 "
        "I32 U8; convert the checkpoint first");
  CHECK(message_of<FormatError>([&] { (void)file.tensor("none"); }, file.path().parent_path()) ==
        "reference.safetensors: no tensor \"none\" among 10");
  REQUIRE(file.metadata().size() == 2);
}

TEST_CASE("What is written is read back bit by bit, aligned, in pieces too") {
  test::TemporaryFolder folder;
  const Tensor<float> a(Shape{2, 2}, {1.5f, -0.0f, 3e38f, 1e-45f});
  const Tensor<std::uint8_t> odd(Shape{3}, {1, 2, 3});
  const Tensor<double> scalar(Shape{}, 0.1);
  const Tensor<float> empty(Shape{0, 7});
  save_safetensors(folder / "t", {{"odd", odd}, {"a\n\"", a}, {"s", scalar}, {"none", empty}},
                   {{"format", "pt"}, {"k", "v"}});
  const SafetensorsFile file(folder / "t");
  CHECK(file.tensors().size() == 4);
  CHECK(std::memcmp(file.tensor("a\n\"").bytes(), a.bytes(), 16) == 0);
  CHECK(values(file.tensor("odd")) == std::vector<double>{1, 2, 3});
  CHECK(values(file.tensor("s")) == std::vector<double>{0.1});
  CHECK(file.tensor("none").numel() == 0);
  CHECK(file.metadata() == Metadata{{"format", "pt"}, {"k", "v"}});
  for (const TensorInfo& t : file.tensors()) {
    CHECK(t.offset % (bits_of_type(t.type) / 8) == 0);
    std::string copied;
    file.for_each_piece(
        t, [&](const void* p, std::size_t n) { copied.append(static_cast<const char*>(p), n); });
    CHECK(copied == test::read_bytes(folder / "t").substr(t.offset, t.bytes));
  }
}

TEST_CASE("A tensor keeps the mapping alive, and unaligned data is copied") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "u",
                    file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                            R"("f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                            9));
  AnyTensor f, b;
  {
    const SafetensorsFile file(folder / "u");
    CHECK(file.at("f").offset % 4 != 0);
    f = file.tensor("f");
    b = file.tensor("b");
  }
  CHECK(reinterpret_cast<std::uintptr_t>(f.bytes()) % 4 == 0);
  std::uint32_t bits = 0;
  std::memcpy(&bits, f.bytes() + 4, 4);
  CHECK(bits == 0x01010101u);
  CHECK(values(b) == std::vector<double>{1});
}

TEST_CASE("Every damage to a file is named") {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string(R"({"w":{"dtype":")") + dtype + R"(","shape":)" + shape +
           R"(,"data_offsets":)" + offsets + "}}";
  };
  CHECK(refusal("1234567") ==
        "x.safetensors: is 7 bytes long, a safetensors file has at least 8; download it again");
  CHECK(refusal(std::string("\0\0\0\0\1\0\0\0", 8)) ==
        "x.safetensors: the first 8 bytes announce a header of 4294967296 bytes, at most 100000000 "
        "are allowed; this is not a safetensors file, or it is damaged");
  CHECK(
      refusal(std::string("\x40\0\0\0\0\0\0\0{}", 10)) ==
      "x.safetensors: the header is 64 bytes long, but the file ends after 2 of them; download it "
      "again");
  CHECK(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n") ==
        "x.safetensors: is a Git LFS pointer, not the file itself; run `git lfs pull`");
  CHECK_THAT(refusal(file_of("{\"w\":", 0)),
             Catch::StartsWith("x.safetensors: header: not valid JSON"));
  CHECK(refusal(file_of("[]", 0)) == "x.safetensors: header: expected an object, found an array");
  CHECK(refusal(file_of(R"({"w":{"dtype":"F32","shape":[]}})", 0)) ==
        "x.safetensors: header: at \"w\": \"data_offsets\" is missing");
  CHECK(refusal(file_of(R"({"w":1,"w":2})", 0)) ==
        "x.safetensors: header: the key \"w\" stands twice");
  CHECK(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)) ==
        "x.safetensors: header: at \"__metadata__\".\"a\": expected a string, found an integer");
  CHECK(refusal(file_of(entry("F33", "[2]", "[0,8]"), 8)) ==
        "x.safetensors: tensor \"w\": unknown dtype \"F33\"");
  CHECK(refusal(file_of(entry("F32", "[-2]", "[0,8]"), 8)) ==
        "x.safetensors: header: at \"w\".\"shape\"[0]: expected an integer >= 0, found -2");
  CHECK(refusal(file_of(entry("F32", "[4294967296,4294967296,0]", "[0,0]"), 0)) ==
        "x.safetensors: tensor \"w\": the shape [4294967296, 4294967296, 0] overflows");
  CHECK(refusal(file_of(entry("F32", "[18446744073709551615]", "[0,0]"), 0)) ==
        "x.safetensors: tensor \"w\": the shape overflows");
  CHECK(refusal(file_of(entry("F4", "[3]", "[0,2]"), 2)) ==
        "x.safetensors: tensor \"w\": F4 [3] does not fill whole bytes");
  CHECK(refusal(file_of(entry("F32", "[2]", "[0,8,9]"), 8)) ==
        "x.safetensors: tensor \"w\": data_offsets has 3 numbers, expected 2");
  CHECK(refusal(file_of(entry("F32", "[2]", "[0,8]"), 7)) ==
        "x.safetensors: tensor \"w\": data_offsets are [0, 8], but the file has 7 bytes of data; "
        "download it again");
  CHECK(refusal(file_of(entry("F32", "[2]", "[8,0]"), 8)) ==
        "x.safetensors: tensor \"w\": data_offsets are [8, 0], but the file has 8 bytes of data; "
        "download it again");
  CHECK(refusal(file_of(entry("F32", "[3]", "[0,8]"), 8)) ==
        "x.safetensors: tensor \"w\": F32 [3] needs 12 bytes, data_offsets [0, 8] hold 8");
  CHECK_THAT(refusal(file_of(entry("F32", "[1]", "[4,8]"), 8)),
             Catch::EndsWith("(there is a hole)"));
  CHECK_THAT(refusal(file_of(entry("F32", "[1]", "[0,4]"), 8)),
             Catch::Contains("the tensors end at byte") && Catch::EndsWith("download it again"));
  const std::string two = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                          R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})";
  CHECK_THAT(refusal(file_of(two, 6)), Catch::EndsWith("(it overlaps the one before)"));
}

TEST_CASE("More than six axes can be listed but not loaded") {
  test::TemporaryFolder folder;
  test::write_bytes(
      folder / "x",
      file_of(R"({"w":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1));
  const SafetensorsFile file(folder / "x");
  CHECK(file.at("w").shape.size() == 7);
  CHECK(message_of<FormatError>([&] { (void)file.tensor("w"); }, folder.path()) ==
        "x: tensor \"w\" has 7 axes, at most 6 are supported");
}

TEST_CASE("The writer refuses what was not declared, and leaves nothing unfinished") {
  test::TemporaryFolder folder;
  const Tensor<float> t(Shape{2}, {1, 2});
  const auto specs = [] {
    return std::vector<TensorSpec>{make_spec("a", DType::f32, {2}),
                                   make_spec("b", DType::f32, {2})};
  };
  const auto said = [&](auto f) { return message_of<FormatError>(f, folder.path()); };
  CHECK(said([&] { SafetensorsWriter(folder / "x", specs()).write("b", t); }) ==
        "x: tensor \"b\" is written out of order, expected a");
  CHECK(said([&] { SafetensorsWriter(folder / "x", specs()).append("a", t.bytes(), 9); }) ==
        "x: tensor \"a\" was declared with 8 bytes, more are being written");
  CHECK(said([&] {
          SafetensorsWriter(folder / "x", specs()).write("a", Tensor<double>(Shape{1}, 1.0));
        }) == "x: tensor \"a\" was declared as F32 [2], but is F64 [1]");
  CHECK(said([&] {
          SafetensorsWriter w(folder / "x", specs());
          w.write("a", t);
          w.append("b", t.bytes(), 4);
          w.commit();
        }) == "x: tensor \"b\" was declared but not written in full");
  CHECK(said([&] {
          SafetensorsWriter(folder / "x",
                            {make_spec("a", DType::u8, {1}), make_spec("a", DType::u8, {1})});
        }) == "x: tensor \"a\" is declared twice");
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("Python's safetensors reads our file", "[.python]") {
  test::TemporaryFolder folder;
  save_safetensors(folder / "t", {{"u", Tensor<std::uint8_t>(Shape{3}, {1, 2, 3})},
                                  {"f", Tensor<float>(Shape{1, 2}, {0.5f, -2.0f})}});
  const char* python = std::getenv("ESPALIER_PEERS_PYTHON");
  REQUIRE(python != nullptr);
  const std::string command =
      std::string(python) + " -c \"from safetensors.numpy import load_file; t = load_file('" +
      (folder / "t").string() +
      "'); assert t['u'].tolist() == [1, 2, 3] and t['f'].tolist() == [[0.5, -2.0]]\"";
  CHECK(std::system(command.c_str()) == 0);
}
