// SPDX-License-Identifier: Apache-2.0
// ckpt-tool metrics
#include "plugin/metrics.h"

#include "tools/command.h"

namespace ckpt {
namespace {

constexpr CommandHelp kMetricsHelp{
    "metrics", "State and counters for Prometheus",
    "Prints them in its text exposition format. A running server gives the same itself, to GET "
    "/metrics\n"
    "on its control socket. Counters count from the server's start; without a server ckpt_up is "
    "0,\n"
    "and what is not known is left out.\n\n"
    "  ckpt-tool metrics disk.img\n"
    "  curl --unix-socket disk.img.ckpt/control.sock http://localhost/metrics"};

Result<int> metrics(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const OpenedVolume opened, open_primary(context, name));
  const VolumeStatus status = opened.volume->status();
  if (status.state.empty()) {
    return fail(ErrorKind::kIo, status.problem);
  }
  const std::string text = encode_metrics(status, opened.served);
  context.console.result(Json{{"text", text}});
  context.console.print(text);
  return kExitDone;
}

}  // namespace

void add_metrics(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kMetricsHelp, metrics);
}

}  // namespace ckpt
