// SPDX-License-Identifier: Apache-2.0
// Reads a file through mmap. Where another program cuts a mapped file short, touching its pages
// kills the process (SIGBUS); report_cut_files() makes that a sentence.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/mapped_file.hpp is host-only; include it from a .cpp"
#endif

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include <espalier/io/descriptor.hpp>

namespace espalier::io {

/// From here on SIGBUS in the pages of a MappedFile prints "PROGRAM: FILE: was cut short while it
/// was being read ..." and ends the process with exit code 1. `program` must outlive the process.
void report_cut_files(const char* program);

namespace detail {
/// An entry in the table that the handler of SIGBUS looks into, while it lives.
class KnownMapping {
 public:
  KnownMapping(const void* begin, std::size_t bytes, const std::string& path);
  KnownMapping(const KnownMapping&) = delete;
  KnownMapping& operator=(const KnownMapping&) = delete;
  ~KnownMapping();

 private:
  std::string message_;
  int slot_ = -1;  // none is free beyond some thousand files
};
}  // namespace detail

/// The pages are private: a stray write changes this process only.
/// @throws IoError for what is no regular file
class MappedFile {
 public:
  ESP_INLINE explicit MappedFile(const std::filesystem::path& path) : path_(path) {
    struct stat info {};
    fd_ = std::make_shared<detail::FileDescriptor>(detail::open_to_read(path, info));
    size_ = static_cast<std::size_t>(info.st_size);
    if (size_ == 0) return;
    void* at =
        ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd_->get(), 0);
    if (at == MAP_FAILED) detail::throw_errno(path, "map");
    bytes_ = {static_cast<std::byte*>(at),
              [mapping = std::make_unique<detail::KnownMapping>(at, size_, path.string()),
               size = size_](std::byte* p) mutable {
                mapping.reset();
                ::munmap(p, size);
              }};
  }

  const std::shared_ptr<std::byte>& bytes() const { return bytes_; }
  std::size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

  /// Reads without the mapping, so that copying a large file does not fill this process's memory.
  void read(std::size_t offset, void* to, std::size_t bytes) const {
    char* out = static_cast<char*>(to);
    while (bytes > 0) {
      const ssize_t n = ::pread(fd_->get(), out, std::min<std::size_t>(bytes, 1 << 30),
                                static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) detail::throw_errno(path_, "read");
      ESP_REQUIRE(n > 0, IoError, path_.string(), ": ends at byte ", offset, ", ", bytes,
                  " more were expected; something cut it short while it was being read");
      out += n;
      offset += static_cast<std::size_t>(n);
      bytes -= static_cast<std::size_t>(n);
    }
  }

 private:
  std::filesystem::path path_;
  std::shared_ptr<detail::FileDescriptor> fd_;
  std::shared_ptr<std::byte> bytes_;
  std::size_t size_ = 0;
};

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <signal.h>

#include <array>
#include <atomic>

namespace espalier::io {

namespace detail {

struct MappingSlot {
  std::atomic<const char*> begin = nullptr;  // null: free
  std::atomic<const char*> end = nullptr;    // null: not filled yet
  std::atomic<const char*> message = nullptr;
};
inline std::array<MappingSlot, 4096> mapping_slots;
inline const char* cut_file_program = "";

ESP_INLINE KnownMapping::KnownMapping(const void* begin, std::size_t bytes, const std::string& path)
    : message_(": " + path +
               ": was cut short while it was being read; if something replaced it, run again\n") {
  const char* const first = static_cast<const char*>(begin);
  for (std::size_t i = 0; i < mapping_slots.size() && slot_ < 0; ++i) {
    const char* none = nullptr;
    if (!mapping_slots[i].begin.compare_exchange_strong(none, first)) continue;
    slot_ = static_cast<int>(i);
    mapping_slots[i].message = message_.c_str();
    mapping_slots[i].end = first + bytes;
  }
}

ESP_INLINE KnownMapping::~KnownMapping() {
  if (slot_ < 0) return;
  MappingSlot& slot = mapping_slots[static_cast<std::size_t>(slot_)];
  slot.end = nullptr;
  slot.begin = nullptr;
}

/// Calls only what a signal handler may call.
ESP_INLINE void on_bus_error(int, siginfo_t* info, void*) {
  const char* const at = static_cast<const char*>(info->si_addr);
  const auto say = [](const char* text) { (void)!::write(2, text, std::strlen(text)); };
  for (const MappingSlot& slot : mapping_slots) {
    if (slot.begin > at || slot.end <= at || slot.begin == nullptr) continue;
    say(cut_file_program);
    say(slot.message);
    ::_exit(1);
  }
  ::signal(SIGBUS, SIG_DFL);
  ::raise(SIGBUS);
}

}  // namespace detail

ESP_INLINE void report_cut_files(const char* program) {
  detail::cut_file_program = program;
  struct sigaction action = {};
  action.sa_sigaction = detail::on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace espalier::io
#endif
