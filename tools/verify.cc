// SPDX-License-Identifier: Apache-2.0
// ckpt-tool verify
#include <fmt/format.h>

#include "tools/command.h"
#include "tools/format.h"
#include "tools/progress_bar.h"

namespace ckpt {
namespace {

constexpr CommandHelp kVerifyHelp{
    "verify", "Compares primary and back-up by digests, block by block",
    "Clients go on meanwhile. Blocks changed since the last checkpoint cannot be compared: they "
    "are\n"
    "counted as skipped. Exit status 8 if any block differs, 3 if there was none to compare; "
    "nothing\n"
    "is repaired. A volume that has mismatches was changed behind its back, or a disk is failing:\n"
    "look at the ranges, and decide which side is right. Interrupting it does no harm.\n\n"
    "  ckpt-tool verify disk.img"};

// More than these do not help a reader; -v tells them all.
constexpr size_t kMismatchesSaid = 10;

void say_mismatches(Console& console, const VerifyOutcome& outcome) {
  const size_t all = outcome.mismatches.size();
  const size_t said = console.verbosity().verbose ? all : std::min(all, kMismatchesSaid);
  for (size_t i = 0; i < said; ++i) {
    const ByteRange& range = outcome.mismatches[i];
    console.print(fmt::format("  offset {}, {}\n", range.offset, format_bytes(range.length)));
  }
  if (said < all) {
    console.print(fmt::format("  and {} more ranges (-v)\n", all - said));
  } else if (all == kMismatchesMax) {
    console.print("  and perhaps more: no more ranges are kept\n");
  }
}

void say(Console& console, const VerifyOutcome& outcome) {
  const bool equal = outcome.mismatched_bytes == 0;
  const bool compared = outcome.checked_bytes > 0;
  const std::string verdict =
      !compared ? console.paint(Colour::kWarning, "nothing compared")
      : equal
          ? console.paint(Colour::kGood, "no mismatch")
          : console.paint(Colour::kBad, format_bytes_exact(outcome.mismatched_bytes) + " differ");
  console.print(fmt::format("checkpoint {}{}: {} checked, {} skipped (changed since), {}\n",
                            outcome.checkpoint.id.number.value, quoted_name(outcome.checkpoint),
                            format_bytes(outcome.checked_bytes),
                            format_bytes(outcome.skipped_bytes), verdict));
  say_mismatches(console, outcome);
  if (!compared) {
    console.remark("every block may have changed since the checkpoint");
  }
}

// The fields that scripts rely on, and no others.
Json to_result(const VerifyOutcome& outcome) {
  const Json all = to_json(outcome);
  Json result;
  for (const char* field :
       {"checkpoint", "checked_bytes", "skipped_bytes", "mismatched_bytes", "mismatches"}) {
    result[field] = all[field];
  }
  return result;
}

Result<int> verify(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  Result<VerifyOutcome> outcome = [&] {
    ProgressBar bar(context.console, "verifying", system_clock());
    return opened.volume->verify(bar.progress());
  }();
  if (!outcome) {
    return Unexpected(outcome.error());
  }
  context.console.result(to_result(*outcome));
  if (!context.console.verbosity().quiet) {
    say(context.console, *outcome);
  }
  if (outcome->mismatched_bytes > 0) {
    return kExitMismatch;
  }
  return outcome->checked_bytes > 0 ? kExitDone : kExitDegraded;
}

}  // namespace

void add_verify(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kVerifyHelp, verify);
}

}  // namespace ckpt
