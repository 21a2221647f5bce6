// `shoal status`: who is here, how far apart, and what runs where.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"
#include "apps/cli/holders.h"
#include "apps/cli/status_text.h"
#include "apps/cli/terminal.h"
#include "base/units.h"

namespace shoal::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw{1000};
constexpr std::size_t kIdShown = 12;  // last characters of a peer id: its start is the same for all

std::string ShortId(const std::string& id) {
  return id.size() > kIdShown ? ".." + id.substr(id.size() - kIdShown) : id;
}

std::string NameOf(const ClusterStatus& status, const std::string& id) {
  const auto node = std::find_if(status.nodes.begin(), status.nodes.end(), [&](const auto& n) { return n.id == id; });
  return Shown(node == status.nodes.end() || node->name.empty() ? ShortId(id) : node->name);
}

std::string RoundTrip(std::uint32_t rtt_us) {
  if (rtt_us == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", rtt_us / 1e3);
  return text;
}

// Of its memory, and what it reaches of its measured speeds.
std::string SpeedText(const NodeStatus& node) {
  if (node.memory_bytes_s <= 0) return "not measured";
  const std::string speed = FormatBytes(static_cast<std::uint64_t>(node.memory_bytes_s)) + "/s";
  char pace[32] = "";
  if (node.pace < 0.995 || node.pace > 1.005) std::snprintf(pace, sizeof pace, ", at %.0f %%", node.pace * 100);
  return speed + pace;
}

// What a device runs on, and what that makes it do.
std::string PowerText(const NodeStatus& node) {
  std::string text = node.battery_percent < 0 ? "" : "battery " + std::to_string(node.battery_percent) + " %";
  if (node.rest > 0) {
    char rest[48];
    std::snprintf(rest, sizeof rest, "%shot, rests %.0f %%", text.empty() ? "" : ", ",
                  100 * node.rest / (1 + node.rest));
    text += rest;
  }
  if (!node.draining.empty()) text += (text.empty() ? "" : ", ") + std::string("takes no layers: ") + node.draining;
  return text.empty() ? "-" : text;
}

// What a node with a device beside its CPU computes on: a line each, nothing where all have but a CPU.
std::string Offloads(const ClusterStatus& status) {
  std::string lines;
  for (const NodeStatus& n : status.nodes) {
    if (n.offload.device.empty() || n.state != "alive") continue;
    const std::string layers =
        n.offload.layers > 0 ? "the last " + std::to_string(n.offload.layers) + " layers of a stage" : "stages";
    const std::string text = n.offload.text.empty() ? "" : " (" + n.offload.text + ")";
    const bool failed = n.offload.use == "failed";
    lines += Shown(n.name) + ": " +
             Shown(failed ? "the CPU computes, not " + n.offload.device + ": " + n.offload.text
                          : layers + (n.offload.use == "untried" ? " are to compute on " : " compute on ") +
                                n.offload.device + text) +
             "\n";
  }
  return lines.empty() ? "" : "\n" + lines;
}

std::string Nodes(const ClusterStatus& status) {
  std::vector<std::vector<std::string>> rows{
      {"node", "id", "state", "device", "cores", "speed", "power", "memory free", "models", "API"}};
  for (const NodeStatus& n : status.nodes) {
    std::string models;
    for (const ModelStatus& m : n.models) {
      if (m.held_bytes == 0) continue;  // it has heard of it
      const bool whole = m.held == std::vector<LayerRange>{{0, m.layers}};
      models += (models.empty() ? "" : ", ") + m.name + (whole ? "" : " (" + LayersText(m.held, m.layers) + ")");
    }
    const std::string role = std::string(n.self ? " (here)" : "") + (n.owner ? " (owner)" : "");
    rows.push_back({Shown(n.name) + role, Shown(ShortId(n.id)), Shown(n.state), Shown(n.os + "/" + n.arch),
                    std::to_string(n.cores), SpeedText(n), Shown(PowerText(n)),
                    FormatBytes(n.memory_free_bytes) + " of " + FormatBytes(n.memory_bytes),
                    models.empty() ? "-" : Shown(models), n.api.empty() ? "-" : Shown(n.api)});
  }
  return FormatTable(rows);
}

// What this device computes with, and what was found out about it.
std::string Kernels(const KernelStatus& kernels) {
  if (kernels.loaded.empty()) return "";
  std::string text = "\nCPU kernels here: " + Shown(kernels.loaded);
  if (!kernels.state.empty()) text += " (" + Shown(kernels.state) + ")";
  text += "\n";
  for (const KernelChoiceStatus& c : kernels.choices) text += Shown(c.quantization) + ": " + Shown(c.why) + "\n";
  return text;
}

std::string Links(const ClusterStatus& status) {
  std::vector<std::vector<std::string>> rows{{"link", "", "round trip", "bandwidth"}};
  for (const LinkStatus& l : status.links) {
    rows.push_back({NameOf(status, l.from), "-> " + NameOf(status, l.to), RoundTrip(l.rtt_us),
                    l.bytes_per_s == 0 ? "-" : FormatBytes(l.bytes_per_s) + "/s"});
  }
  return rows.size() > 1 ? "\n" + FormatTable(rows) : "";
}

std::string ForecastText(const ForecastStatus& forecast) {
  if (forecast.tokens_s <= 0) return "";
  char text[160];
  std::snprintf(text, sizeof text, "expected: first token after %.2f s, then %.1f tokens/s; %.1f tokens/s of many\n",
                forecast.first_token_s, forecast.tokens_s, forecast.tokens_s_many);
  return text + (forecast.reason.empty() ? "" : Shown(forecast.reason) + "\n");
}

// " (94 %)": of what was expected.
std::string OfExpected(double measured, double expected) {
  if (expected <= 0) return "";
  char text[32];
  std::snprintf(text, sizeof text, " (%.0f %%)", 100 * measured / expected);
  return text;
}

// Beside the forecast, figure by figure.
std::string ObservedText(const ObservedSpeeds& observed, const ForecastStatus& forecast) {
  if (observed == ObservedSpeeds()) return "measured: nothing yet\n";
  const std::string unknown = "not yet";
  std::string prompt = unknown, one = unknown, many = unknown;
  char text[64];
  if (observed.prompt_tokens_s > 0) {
    std::snprintf(text, sizeof text, "after %.2f s", kForecastPromptTokens / observed.prompt_tokens_s);
    prompt = text + OfExpected(observed.prompt_tokens_s, forecast.PromptTokensPerSecond());
  }
  if (observed.tokens_s > 0) {
    std::snprintf(text, sizeof text, "%.1f tokens/s", observed.tokens_s);
    one = text + OfExpected(observed.tokens_s, forecast.tokens_s);
  }
  if (observed.tokens_s_many > 0) {
    std::snprintf(text, sizeof text, "%.1f tokens/s of %.1f streams", observed.tokens_s_many, observed.streams);
    many = text + OfExpected(observed.tokens_s_many, forecast.tokens_s_many);
  }
  return "measured: first token " + prompt + ", then " + one + "; " + many + "\n";
}

std::string Placements(const ClusterStatus& status) {
  if (status.placements.empty()) return "\nno model is placed: `shoal place MODEL` places one\n";
  std::string text;
  for (const PlacementStatus& p : status.placements) {
    text += "\n" + Shown(p.model) + ": " + Shown(p.state) + (p.error.empty() ? "" : ", " + Shown(p.error)) + "\n";
    text += PlacementText(p);
  }
  return text;
}

std::string Percent(std::uint64_t done, std::uint64_t total) {
  return std::to_string(total == 0 ? 0 : 100 * std::min(done, total) / total) + " %";
}

// What is on its way to whom, and all of it together.
std::string Transfers(const ClusterStatus& status) {
  std::vector<std::vector<std::string>> rows{{"fetching", "node", "", "of", ""}};
  std::uint64_t done = 0, total = 0;
  const auto add = [&](const std::string& model, const std::string& node, std::uint64_t has, std::uint64_t wants) {
    rows.push_back({model, node, FormatBytes(has), FormatBytes(wants), Percent(has, wants)});
  };
  for (const NodeStatus& node : status.nodes) {
    for (const FetchStatus& one : node.fetching) {
      add(Shown(one.model), NameOf(status, node.id), one.bytes_done, one.bytes_total);
      done += one.bytes_done;
      total += one.bytes_total;
    }
  }
  if (rows.size() == 1) return "";
  if (rows.size() > 2) add("", "all", done, total);
  return "\n" + FormatTable(rows);
}

}  // namespace

std::string Shown(const std::string& text) {
  std::string shown = text;
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
  return shown;
}

void ShowFetching(TransferBar& bar, const std::vector<NodeStatus>& nodes) {
  std::uint64_t done = 0, total = 0;
  std::string who;
  for (const NodeStatus& node : nodes) {
    for (const FetchStatus& one : node.fetching) {
      done += one.bytes_done;
      total += one.bytes_total;
      who += (who.empty() ? "; " : ", ") + Shown(node.name) + " " + Percent(one.bytes_done, one.bytes_total);
    }
  }
  bar.Update("fetching", done, total, who);
}

std::string PlacementText(const PlacementStatus& placement) {
  std::vector<std::vector<std::string>> rows{{"stage", "layers", "node", "standby"}};
  for (const PlacedStage& s : placement.stages) {
    rows.push_back(
        {std::to_string(rows.size() - 1), std::to_string(s.layers.first) + "-" + std::to_string(s.layers.last - 1),
         Shown(s.name.empty() ? ShortId(s.node) : s.name), s.standby.empty() ? "-" : Shown(Joined(s.standby))});
  }
  if (rows.size() == 1) return "";
  const std::string survives = placement.survives.empty() ? "none" : Shown(Joined(placement.survives));
  return FormatTable(rows) + "may be lost one at a time with nothing loaded: " + survives + "\n" +
         ForecastText(placement.forecast) +
         (placement.state == "live" ? ObservedText(placement.observed, placement.forecast) : "");
}

std::string StatusText(const ClusterStatus& status) {
  return "cluster " + Shown(status.cluster) + "\n\n" + Nodes(status) + Kernels(status.kernels) + Offloads(status) +
         Links(status) + Placements(status) + Transfers(status);
}

int RunStatus(const StatusOptions& options) {
  WatchSignals();
  const ControlClient client = NodeHere();
  while (true) {
    const Result<ClusterStatus> status = client.GetStatus();
    if (!status.ok() && status.error().code == ErrorCode::kCancelled && options.watch) return kExitOk;
    if (!status.ok()) return Fail(status.error());
    const std::string text = options.json ? DumpJson(ToJson(*status)) + "\n" : StatusText(*status);
    // Home and clear below, not the whole screen at once: no flicker.
    if (options.watch && !options.json && StdoutIsTerminal()) std::fputs("\033[H\033[J", stdout);
    std::fputs(text.c_str(), stdout);
    if (std::fflush(stdout) != 0 || !options.watch) return kExitOk;
    const auto next = std::chrono::steady_clock::now() + kRedraw;
    while (!Interrupted() && std::chrono::steady_clock::now() < next) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (Interrupted()) return kExitOk;
  }
}

}  // namespace shoal::cli
