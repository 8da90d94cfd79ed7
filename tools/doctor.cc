// SPDX-License-Identifier: Apache-2.0
// ckpt-tool doctor
#include "tools/doctor.h"

#include <algorithm>

#include "tools/command.h"
#include "tools/format.h"
#include "tools/machine_checks.h"
#include "tools/volume_checks.h"

namespace ckpt {
namespace {

constexpr CommandHelp kDoctorHelp{
    .name = "doctor",
    .line = "What on this machine would not work, why, and what to do",
    .text =
        "With VOLUME also what of that volume would not work; it may be an image that was never\n"
        "served. `note` is what works, but not as well as it could, or what not everybody needs.\n"
        "Run it as the user who serves the volume. Exit status 3 if anything failed.\n\n"
        "  ckpt-tool doctor\n"
        "  ckpt-tool doctor disk.img\n"
        "  ckpt-tool --json doctor disk.img",
    .needs_volume = false};

struct Verdict {
  const char* word;
  Colour colour;
};

Verdict verdict_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk: return {"ok", Colour::kGood};
    case Outcome::kNote: return {"note", Colour::kWarning};
    case Outcome::kFailed: break;
  }
  return {"failed", Colour::kBad};
}

constexpr size_t kVerdictWidth = 8;  // "failed" and two spaces

void say(Console& console, const Check& check, size_t name_width) {
  const Verdict verdict = verdict_of(check.outcome);
  const std::string word = verdict.word;
  const std::string name = check.name + std::string(name_width - check.name.size(), ' ');
  console.print(name + console.paint(verdict.colour, word) +
                std::string(kVerdictWidth - word.size(), ' ') + printable(check.detail) + "\n");
  if (!check.advice.empty()) {
    console.print(std::string(name_width + kVerdictWidth, ' ') + printable(check.advice) + "\n");
  }
}

void say_all(Console& console, const std::vector<Check>& checks) {
  size_t width = 0;
  for (const Check& check : checks) {
    width = std::max(width, check.name.size() + 2);
  }
  for (const Check& check : checks) {
    if (!console.verbosity().quiet || check.outcome == Outcome::kFailed) {
      say(console, check, width);
    }
  }
}

Json to_result(const std::vector<Check>& checks) {
  Json list = Json::array();
  for (const Check& check : checks) {
    list.push_back({{"name", check.name},
                    {"ok", check.outcome != Outcome::kFailed},
                    {"detail", printable(check.detail)},
                    {"advice", printable(check.advice)}});
  }
  return {{"checks", list}};
}

Result<int> examine_machine(Context& context, const VolumeName& name) {
  if (!name.state.empty()) {
    return fail(ErrorKind::kInvalid, "--state " + name.state + " is of a volume: say of which");
  }
  return say_checks(context.console, check_machine(look_at_machine()));
}

// The volume first: one that is not there shows at once.
Result<int> examine_volume(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const VolumeFacts volume, look_at_volume(name, context.opener));
  const MachineFacts machine = look_at_machine();
  std::vector<Check> checks = check_machine(machine);
  for (Check& check : check_volume(volume, machine.maps)) {
    checks.push_back(std::move(check));
  }
  return say_checks(context.console, checks);
}

}  // namespace

int say_checks(Console& console, const std::vector<Check>& checks) {
  console.result(to_result(checks));
  say_all(console, checks);
  return std::ranges::any_of(checks, [](const Check& c) { return c.outcome == Outcome::kFailed; })
             ? kExitDegraded
             : kExitDone;
}

void add_doctor(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kDoctorHelp,
              [&invocation](Context& context, const VolumeName& name) {
                return invocation.has_volume ? examine_volume(context, name)
                                             : examine_machine(context, name);
              });
}

}  // namespace ckpt
