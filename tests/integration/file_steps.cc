// SPDX-License-Identifier: Apache-2.0
// Loaded into a real program with LD_PRELOAD: names every step that changes a file, and dies or
// fails at the one that a test has chosen. The product has no hook for it.
//
// CKPT_STEPS_UNDER   only files below this folder
// CKPT_STEPS_PAGE    a file, mapped shared, with a Page: what is to happen, and what has (steps.py)
// CKPT_STEPS_LOG     a file to which each step's name is appended, one a line
// CKPT_STEPS_ACTS    set: also what the program itself does to others, and is not in its children:
//                    "kill", "umount", "spawn NAME", and "say", which is what it sends to a socket
// CKPT_STEPS_CONSOLE a file that is told that the power is to be cut, instead of a death: the
// program
//                    goes no farther meanwhile
//
// A step's name is the call and the file, below the folder, with what differs from run to run as *:
// "fdatasync disk.img.ckpt/store/journal/*". Transfers through io_uring are not seen (io=sync).
#undef _FILE_OFFSET_BITS  // both names of each call are wanted
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

enum Act : uint32_t {
  kNothing = 0,
  kKillBefore = 1,
  kKillAfter = 2,
  kFail = 3,
  kShort = 4,
  kPause = 5
};

// The layout that steps.py writes.
struct Page {
  std::atomic<uint32_t> act;
  uint32_t number;                 // of the error; milliseconds of a pause
  uint32_t for_good;               // not only once
  std::atomic<int32_t> countdown;  // the step happens so many times until it is the one
  std::atomic<uint32_t> fired;
  int32_t other;  // a process that dies a moment before; 0: none
  char step[232];
};
static_assert(sizeof(Page) == 256);

// Steps may come before constructors have run, and after destructors.
struct Steps {
  std::string_view under;
  Page* page = nullptr;
  int log = -1;
  bool has_acts = false;
  const char* console = nullptr;
};

template <typename Call>
Call* next_of(const char* name) {
  return reinterpret_cast<Call*>(dlsym(RTLD_NEXT, name));
}

Steps begin_steps() {
  Steps steps;
  const char* under = std::getenv("CKPT_STEPS_UNDER");
  const char* page = std::getenv("CKPT_STEPS_PAGE");
  const char* log = std::getenv("CKPT_STEPS_LOG");
  if (under == nullptr || page == nullptr || log == nullptr) {
    return steps;
  }
  const int fd = ::open(page, O_RDWR | O_CLOEXEC);
  void* mapped = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (mapped == MAP_FAILED) {
    std::abort();
  }
  steps.under = under;
  steps.page = static_cast<Page*>(mapped);
  steps.log = ::open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
  steps.has_acts = std::getenv("CKPT_STEPS_ACTS") != nullptr;
  steps.console = std::getenv("CKPT_STEPS_CONSOLE");
  if (steps.has_acts) {
    ::unsetenv("LD_PRELOAD");
  }
  return steps;
}

const Steps& steps() {
  static const Steps kSteps = begin_steps();
  return kSteps;
}

// Numbers, and names made of them, differ from run to run.
bool differs(std::string_view part) {
  return part.starts_with('#') ||  // a file without a name
         (part.find_first_of("0123456789") != std::string_view::npos &&
          part.find_first_not_of("0123456789abcdef-.") == std::string_view::npos);
}

// A folder that mkdtemp(3) has named, such as "restore.3p7N4x", without what was drawn.
std::string_view undrawn(std::string_view part) {
  constexpr size_t kDrawn = 6;
  const size_t dot = part.rfind('.');
  return dot != std::string_view::npos && part.size() - dot - 1 == kDrawn ? part.substr(0, dot)
                                                                          : part;
}

std::string generalized(std::string_view path) {
  std::string name;
  while (!path.empty()) {
    const size_t end = path.find('/');
    const std::string_view part = path.substr(0, end);
    name += differs(part) ? "*" : undrawn(part);
    path = end == std::string_view::npos ? "" : path.substr(end + 1);
    name += path.empty() ? "" : "/";
  }
  return name.empty() ? "." : name;
}

std::string path_of(int fd, const char* entry) {
  char path[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = fd == AT_FDCWD ? 0 : ::readlink(link.c_str(), path, sizeof path);
  std::string whole(path, length > 0 ? static_cast<size_t>(length) : 0);
  if (entry != nullptr) {
    whole = entry[0] == '/' ? entry : whole + "/" + entry;
  }
  return whole;
}

using Kill = int(pid_t, int) noexcept;

// A line of its own, whatever stands there already.
void ask_for_the_power_cut(const char* console) {
  constexpr std::string_view kLine = "\ncut the power now\n";
  const int fd = ::open(console, O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 || ::write(fd, kLine.data(), kLine.size()) != static_cast<ssize_t>(kLine.size())) {
    std::abort();
  }
  for (;;) {
    ::pause();
  }
}

[[noreturn]] void die() {
  static Kill* const kNext = next_of<Kill>("kill");
  if (steps().console != nullptr) {
    ask_for_the_power_cut(steps().console);
  }
  if (steps().page->other > 0) {
    kNext(steps().page->other, SIGKILL);
  }
  kNext(::getpid(), SIGKILL);
  for (;;) {
    ::pause();
  }
}

// What happens at the step of that name.
Act act_at_name(const std::string& name) {
  const Steps& all = steps();
  const std::string line = name + "\n";
  (void)!::write(all.log, line.data(), line.size());
  const auto wanted = static_cast<Act>(all.page->act.load());
  if (wanted == kNothing || name != all.page->step) {
    return kNothing;
  }
  const int32_t left = all.page->countdown.fetch_sub(1);
  if (left != 1 && (left > 1 || all.page->for_good == 0)) {
    return kNothing;
  }
  all.page->fired.fetch_add(1);
  if (wanted == kKillBefore) {
    die();
  }
  if (wanted == kPause) {
    ::usleep(all.page->number * 1000);
    return kNothing;
  }
  return wanted;
}

// What happens at this step, to a file.
Act act_at(const char* call, int fd, const char* entry = nullptr) {
  const int kept = errno;
  const Steps& all = steps();
  Act act = kNothing;
  const std::string path = all.page == nullptr ? "" : path_of(fd, entry);
  if (!path.empty() && path.starts_with(all.under)) {
    std::string_view below(path);
    below.remove_prefix(std::min(all.under.size() + 1, below.size()));
    act = act_at_name(std::string(call) + " " + generalized(below));
  }
  errno = kept;
  return act;
}

// Does what is not to a file; only deaths happen there.
template <typename Do>
auto act_step(const std::string& name, Do&& doing) {
  const int kept = errno;
  const Steps& all = steps();
  const Act act = all.page != nullptr && all.has_acts ? act_at_name(name) : kNothing;
  errno = kept;
  const auto result = doing();
  if (act == kKillAfter) {
    die();
  }
  return result;
}

// Before the program has children.
[[gnu::constructor]] void look_at_once() { (void)steps(); }

std::string name_of(const char* path) {
  const std::string_view whole(path);
  return std::string(whole.substr(whole.rfind('/') + 1));
}

// Does a step that returns -1 on error, or 0.
template <typename Do>
int step(const char* call, int fd, const char* entry, Do&& doing) {
  const Act act = act_at(call, fd, entry);
  if (act == kFail) {
    errno = static_cast<int>(steps().page->number);
    return -1;
  }
  const int result = doing();
  if (act == kKillAfter) {
    die();
  }
  return result;
}

using Pwrite = ssize_t(int, const void*, size_t, off_t);

ssize_t write_step(int fd, const void* data, size_t bytes, off_t offset) {
  static Pwrite* const kNext = next_of<Pwrite>("pwrite");
  const Act act = act_at("pwrite", fd);
  if (act == kFail) {
    errno = static_cast<int>(steps().page->number);
    return -1;
  }
  const bool part = act == kShort && bytes > 1;
  const ssize_t done = kNext(fd, data, part ? bytes / 2 : bytes, offset);
  if (act == kKillAfter) {
    die();
  }
  return done;
}

}  // namespace

extern "C" {

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  return write_step(fd, data, bytes, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t offset) {
  return write_step(fd, data, bytes, offset);
}

int fdatasync(int fd) {
  static auto* const kNext = next_of<int(int)>("fdatasync");
  return step("fdatasync", fd, nullptr, [&] { return kNext(fd); });
}

int fsync(int fd) {
  static auto* const kNext = next_of<int(int)>("fsync");
  return step("fsync", fd, nullptr, [&] { return kNext(fd); });
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
  static auto* const kNext = next_of<int(int, int, off_t, off_t)>("fallocate");
  return step("fallocate", fd, nullptr, [&] { return kNext(fd, mode, offset, length); });
}

int fallocate64(int fd, int mode, off_t offset, off_t length) {
  return fallocate(fd, mode, offset, length);
}

int ftruncate(int fd, off_t length) noexcept {
  static auto* const kNext = next_of<int(int, off_t)>("ftruncate");
  return step("ftruncate", fd, nullptr, [&] { return kNext(fd, length); });
}

int ftruncate64(int fd, off_t length) noexcept { return ftruncate(fd, length); }

int unlinkat(int fd, const char* name, int flags) noexcept {
  static auto* const kNext = next_of<int(int, const char*, int)>("unlinkat");
  return step("unlink", fd, name, [&] { return kNext(fd, name, flags); });
}

int renameat(int from, const char* name, int to, const char* name_then) noexcept {
  static auto* const kNext = next_of<int(int, const char*, int, const char*)>("renameat");
  return step("rename", to, name_then, [&] { return kNext(from, name, to, name_then); });
}

int linkat(int from, const char* name, int to, const char* name_then, int flags) noexcept {
  static auto* const kNext = next_of<int(int, const char*, int, const char*, int)>("linkat");
  return step("link", to, name_then, [&] { return kNext(from, name, to, name_then, flags); });
}

int mkdirat(int fd, const char* name, mode_t mode) noexcept {
  static auto* const kNext = next_of<int(int, const char*, mode_t)>("mkdirat");
  return step("mkdir", fd, name, [&] { return kNext(fd, name, mode); });
}

int openat(int fd, const char* name, int flags, ...) {
  static auto* const kNext = next_of<int(int, const char*, int, ...)>("openat");
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if ((flags & O_CREAT) == 0) {
    return kNext(fd, name, flags, mode);
  }
  return step("create", fd, name, [&] { return kNext(fd, name, flags, mode); });
}

int kill(pid_t pid, int signal) noexcept {
  static auto* const kNext = next_of<Kill>("kill");
  return signal == 0 ? kNext(pid, signal) : act_step("kill", [&] { return kNext(pid, signal); });
}

int umount2(const char* path, int flags) noexcept {
  static auto* const kNext = next_of<int(const char*, int) noexcept>("umount2");
  return act_step("umount", [&] { return kNext(path, flags); });
}

ssize_t send(int fd, const void* data, size_t bytes, int flags) {
  static auto* const kNext = next_of<ssize_t(int, const void*, size_t, int)>("send");
  return act_step("say", [&] { return kNext(fd, data, bytes, flags); });
}

using Spawn = int(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*,
                  char* const[], char* const[]);

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const arguments[],
                 char* const environment[]) {
  static auto* const kNext = next_of<Spawn>("posix_spawnp");
  return act_step("spawn " + name_of(file),
                  [&] { return kNext(pid, file, actions, attributes, arguments, environment); });
}

int openat64(int fd, const char* name, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return openat(fd, name, flags, mode);
}

}  // extern "C"
