// Kernels first: the speeds are of those that won.
#include "apps/cli/device_bench.h"

#include <cstdio>

#include "apps/cli/commands.h"
#include "apps/cli/terminal.h"
#include "base/environment.h"
#include "base/units.h"
#include "engine/cpu_kernels.h"
#include "engine/matrix_speed.h"

namespace shoal::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string CpusInOrder(const std::vector<int>& cpus) {
  std::string text;
  for (const int cpu : cpus) text += (text.empty() ? "" : ",") + std::to_string(cpu);
  return text;
}

// This process computes with it, unless the person chose.
void Use(const KernelTrial* setting) {
  PreferSme(setting == nullptr ? 0 : setting->sme > 0 ? setting->sme : 0);
  if (setting == nullptr || !Environment(kCpuVariantVariable).empty()) return;
  if (setting->variant != kBuiltInKernels) PreferCpuVariant(setting->variant);
}

}  // namespace

KernelChoices UseChosenKernels(const std::string& quantization) {
  KernelChoices choices = LoadKernelChoices(ShoalHome(), ReadDeviceProfile(SystemFiles(), nullptr));
  Use(SettingOf(choices, quantization));
  return choices;
}

Result<DeviceFigures> FiguresOf(const DeviceProfile& profile, const DeviceAdvice& advice,
                                const std::string& quantization, bool measure) {
  DeviceFigures figures;
  figures.quantization = quantization.empty() ? AdvisedWeightsType(advice) : WeightsTypeOf(quantization);
  if (measure) {
    SHOAL_RETURN_IF_ERROR(CheckMeasuredType(figures.quantization));
    figures.machine = std::make_shared<const MachineLock>(kMeasuringWaitMax, Interrupted, [] {
      std::fputs("shoal: a node or another shoal measures on this machine: waiting until it has\n", stderr);
    });
    if (!figures.machine->taken()) {
      return Interrupted() ? Error{ErrorCode::kCancelled, "the measurement was ended"}
                           : Error{ErrorCode::kUnavailable,
                                   "others measure on this machine all the time: stop its nodes or try later"};
    }
    // Where the person chose the backend there is nothing to find out.
    if (Environment(kCpuVariantVariable).empty()) {
      const Result<KernelChoice> measured =
          MeasureKernels(ShoalHome(), profile, figures.quantization, {false, Interrupted});
      if (!measured.ok()) return measured.error();
    }
  }
  figures.choices = UseChosenKernels(figures.quantization);
  const std::vector<int> cpus =
      SpeedCpus(profile, ThreadsOf(figures.choices, figures.quantization, LoadedCpuVariant()));
  if (!measure) {
    figures.speed = LoadDeviceSpeed(ShoalHome(), profile, figures.quantization, cpus);
    return figures;
  }
  SHOAL_ASSIGN_OR_RETURN(figures.speed, MeasureDeviceSpeed(ShoalHome(), profile, figures.quantization, cpus));
  return figures;
}

std::string PerSecondText(double bytes_s) { return FormatBytes(static_cast<std::uint64_t>(bytes_s)) + "/s"; }

std::string KernelsTable(const KernelChoice& choice) {
  Rows rows{{"CPU kernels, " + choice.quantization, "threads", "SME", "one row", "64 rows", "weights in", ""}};
  bool has_kleidiai = false;
  for (std::size_t i = 0; i < choice.trials.size(); ++i) {
    const KernelTrial& trial = choice.trials[i];
    const bool ran = trial.one_row_bytes_s > 0;
    has_kleidiai = has_kleidiai || trial.variant.ends_with("-kleidiai");
    rows.push_back({trial.variant, std::to_string(trial.threads),
                    trial.sme < 0    ? ""
                    : trial.sme == 0 ? "off"
                                     : "on",
                    ran ? PerSecondText(trial.one_row_bytes_s) : "failed", ran ? PerSecondText(trial.rows_bytes_s) : "",
                    trial.layout, i == choice.best ? "chosen" : ""});
  }
  std::string text = FormatTable(rows) + choice.why + "\n";
  if (has_kleidiai && choice.quantization == "Q8_0") {
    text += "KleidiAI's own kernels for Q8_0 have 2.6 times the error and are not among these: SHOAL_KLEIDIAI_Q8_0=1\n";
  }
  return text;
}

std::string SpeedTable(const DeviceSpeed& speed) {
  Rows rows{{"measured speed", "", "on cores"}};
  const std::string cpus = CpusInOrder(speed.cpus);
  rows.push_back({speed.quantization + ", one row", PerSecondText(speed.matrix.one_row_bytes_s) + " of weights", cpus});
  rows.push_back({speed.quantization + ", " + std::to_string(kSpeedRows) + " rows",
                  PerSecondText(speed.matrix.rows_bytes_s) + " of weights", cpus});
  rows.push_back({"memory", PerSecondText(speed.memory_bytes_s), cpus});
  for (const GroupBandwidth& group : speed.groups) {
    rows.push_back({"memory, " + group.kind, PerSecondText(group.bytes_s), CpusInOrder(group.cpus)});
  }
  return FormatTable(rows);
}

}  // namespace shoal::cli
