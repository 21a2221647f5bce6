// The text of /proc/cpuinfo, as Linux writes it on ARM and on x86.
//
// Pure: text in, what it says out. A core that has no entry is offline or hidden; who reads decides.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

// Which core, by the fields of ARM's MIDR_EL1 register.
struct CoreId {
  std::uint32_t implementer = 0;  // 0x41: Arm, 0x51: Qualcomm, 0x61: Apple
  std::uint32_t variant = 0, part = 0, revision = 0;
  bool operator==(const CoreId&) const = default;
};

// Bits [31:24] implementer, [23:20] variant, [15:4] part, [3:0] revision; empty for 0, which says nothing.
// Arm Architecture Reference Manual, MIDR_EL1.
std::optional<CoreId> DecodeMidr(std::uint64_t midr);

struct CpuInfoEntry {
  int cpu = 0;
  std::optional<CoreId> core;         // ARM
  std::string model_name;             // x86: "AMD EPYC"
  std::vector<std::string> features;  // "Features" of ARM, "flags" of x86; empty: none stated
};

struct CpuInfo {
  std::vector<CpuInfoEntry> cpus;  // as listed; at most kCpusMax
  std::string hardware;            // ARM: "Qualcomm Technologies, Inc SM8250"
  std::string model;               // boards: "Raspberry Pi 5 Model B Rev 1.0"
  std::string vendor;              // x86: "AuthenticAMD"
};

CpuInfo ParseCpuInfo(std::string_view text);

}  // namespace shoal
