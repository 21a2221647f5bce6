// ggml's backends that lie in libraries beside the program: where they are looked for, and which CPU backends this CPU
// can run.
//
// Loads nothing for good: engine/cpu_kernels.h loads the CPU's, engine/ggml_device.h any other, in a process made for
// it.
#pragma once

#include <string>
#include <vector>

namespace shoal {

inline constexpr const char* kBackendsFolderVariable = "SHOAL_BACKENDS";  // instead of the program's own folder

// Folders in the order they are looked through: the one given; else the program's, and lib/shoal beside bin.
std::vector<std::string> BackendFolders();
std::string BackendFoldersText();  // "/a, /b"

// The path of backend `name` ("vulkan", "cpu-armv8.2_2"); empty when there is none.
std::string BackendFile(const std::string& name);

// Path, size and time of change of a file, to tell a build from another one; empty when it is not there.
std::string FileStamp(const std::string& file);

// The names of all that are not the CPU's, in alphabetical order; without "rpc", whose devices are servers.
inline constexpr std::size_t kOtherBackendsMax = 16;
std::vector<std::string> OtherBackends();

struct CpuBackendFile {
  std::string variant;  // "armv8.6_0"; "base" runs on every CPU
  std::string file;
  int score = 0;  // by ggml: the higher, the more of this CPU's instructions it uses; "base" has 0
};

// Those that this CPU can run, best score first. The first call of a process opens each to ask its own check and blocks
// on the disk; what it found stands. Any thread.
const std::vector<CpuBackendFile>& CpuBackendFiles();

// "libggml-cpu-armv8.6_0.so" -> "armv8.6_0", "libggml-cpu.so" -> "base"; empty for any other name. Pure.
std::string CpuVariantOfFile(const std::string& path);

}  // namespace shoal
