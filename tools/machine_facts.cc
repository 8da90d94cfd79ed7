// SPDX-License-Identifier: Apache-2.0
#include "tools/machine_facts.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "common/fd.h"
#include "common/posix_file.h"
#include "common/shared_memory.h"
#include "common/uring.h"
#include "tools/contained_command.h"
#include "tools/criu.h"
#include "tools/fuse_disk.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kProgramPatience{10};
// `criu check` loads modules; on a busy, emulated machine it was seen to take more than ten
// seconds.
constexpr std::chrono::seconds kCriuPatience{60};
// What an ordinary user's PATH may lack.
constexpr const char* kSystemFolders = ":/usr/local/sbin:/usr/sbin:/sbin";

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool has_line(const std::string& path, const std::string& part) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.find(part) != std::string::npos) {
      return true;
    }
  }
  return false;
}

utsname kernel() {
  utsname names{};
  uname(&names);
  return names;
}

uint64_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  const bool known = getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return known ? uint64_t{limit.rlim_cur} : std::numeric_limits<uint64_t>::max();
}

Result<MapsPlace> find_maps_place() {
  CKPT_ASSIGN(const auto store, TmpfsMemoryStore::open());
  CKPT_ASSIGN(const auto directory, PosixDirectory::open(store->path(), false, RingUse{}));
  CKPT_ASSIGN(const uint64_t free_bytes, directory->free_bytes());
  return MapsPlace{store->path(), free_bytes};
}

// Only root can have it tried; what it says is on standard error, and its exit status says less.
void look_at_criu(MachineFacts& facts) {
  const auto criu = find_criu();
  facts.criu = criu ? *criu : "";
  if (!criu || geteuid() != 0) {
    return;
  }
  const auto said =
      output_of({"/bin/sh", "-c", "\"$0\" check 2>&1 || echo 'Error (check): failed'", facts.criu},
                kCriuPatience);
  facts.criu_problem = said ? errors_of(*said) : said.error().message();
}

void look_at_programs(MachineFacts& facts) {
  const std::string path = variable("PATH");
  facts.nbdkit = find_program("nbdkit", path);
  facts.nbd_client = find_program("nbd-client", path + kSystemFolders);
  const auto fuse_programs = find_fuse_programs();
  facts.no_fuse_disk = fuse_programs ? "" : fuse_programs.error().message();
  facts.qemu = find_qemu(path, kernel().machine);
  look_at_criu(facts);
  if (!facts.qemu.empty()) {
    facts.qemu_version = output_of({facts.qemu, "--version"}, kProgramPatience);
  }
  if (!facts.nbdkit.empty()) {
    facts.nbdkit_version = output_of({facts.nbdkit, "--version"}, kProgramPatience);
    facts.plugin = output_of({facts.nbdkit, "ckpt", "--dump-plugin"}, kProgramPatience);
  }
}

bool may_trace() {
  constexpr const char* kLabel = "CapEff:";
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kLabel)) {
      const uint64_t all = std::strtoull(line.c_str() + std::strlen(kLabel), nullptr, 16);
      return (all >> CAP_SYS_PTRACE & 1U) != 0;
    }
  }
  return false;
}

// As QEMU asks for what its background-snapshot takes (userfaultfd(2)).
Result<> find_write_protection() {
  const UniqueFd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!fd) {
    return fail_errno(errno, "userfaultfd");
  }
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) {
    return fail_errno(errno, "userfaultfd: UFFDIO_API");
  }
  return (api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) != 0
             ? Result<>()
             : Result<>(fail_errno(EOPNOTSUPP, "userfaultfd: write protection"));
}

// As CRIU finds it out: a page that was just written has the bit in the pagemap (pagemap.rst in the
// kernel's documentation).
bool has_soft_dirty() {
  constexpr uint64_t kSoftDirty = uint64_t{1} << 55U;
  const auto page_bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  void* const page =
      ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!pagemap || page == MAP_FAILED) {  // NOLINT: mmap(2)'s own cast
    return false;
  }
  *static_cast<volatile char*>(page) = 1;
  uint64_t entry = 0;
  const auto at =
      static_cast<off_t>(reinterpret_cast<uintptr_t>(page) / page_bytes * sizeof(entry));  // NOLINT
  const bool is_known = ::pread(pagemap.get(), &entry, sizeof(entry), at) == sizeof(entry);
  ::munmap(page, page_bytes);
  return is_known && (entry & kSoftDirty) != 0;
}

}  // namespace

std::string find_qemu(const std::string& path, const std::string& machine) {
  const std::string prefix = "qemu-system-";
  std::string found = find_program(prefix + machine, path);
  std::istringstream folders(path);
  for (std::string folder; found.empty() && std::getline(folders, folder, ':');) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      found = found.empty() && name.starts_with(prefix) ? find_program(name, folder) : found;
    }
  }
  return found;
}

NbdModule find_nbd_module(const std::string& root, const std::string& release) {
  std::error_code ignored;
  // One that is built in is there as well (it has parameters).
  if (std::filesystem::exists(root + "/sys/module/nbd", ignored)) {
    return NbdModule::kLoaded;
  }
  return has_line(root + "/lib/modules/" + release + "/modules.dep", "/nbd.ko")
             ? NbdModule::kLoadable
             : NbdModule::kMissing;
}

MachineFacts look_at_machine() {
  MachineFacts facts;
  facts.kernel = kernel().release;
  facts.nbd = find_nbd_module("", facts.kernel);
  facts.uring = uring_available();
  facts.uring_disabled = first_line_of("/proc/sys/kernel/io_uring_disabled");
  look_at_programs(facts);
  facts.write_protection = find_write_protection();
  facts.unprivileged_userfaultfd = first_line_of("/proc/sys/vm/unprivileged_userfaultfd");
  facts.may_trace = may_trace();
  facts.soft_dirty = has_soft_dirty();
  facts.namespaces = check_can_contain();
  facts.is_root = geteuid() == 0;
  facts.maps = find_maps_place();
  facts.runtime_directory = variable("XDG_RUNTIME_DIR");
  facts.open_files_max = limit_of(RLIMIT_NOFILE);
  facts.file_bytes_max = limit_of(RLIMIT_FSIZE);
  return facts;
}

}  // namespace ckpt
