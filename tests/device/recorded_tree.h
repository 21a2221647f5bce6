// Unpacks a recorded /proc and /sys tree (README.md) into a folder of its own.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/check.h"
#include "base/test_folder.h"

namespace shoal {

class RecordedTree {
 public:
  explicit RecordedTree(const std::string& file) {
    std::ifstream in(file);
    SHOAL_CHECK(in.good());
    std::ofstream out;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("== ")) {
        out.close();
        const std::string path = MakePlace(line.substr(3));
        out.open(path, std::ios::binary);
      } else if (line.starts_with("!! ")) {
        out.close();
        // There, but no read of it works, not even for root.
        std::filesystem::create_symlink("/nowhere/at/all", MakePlace(line.substr(3)));
      } else if (out.is_open()) {
        out << line << '\n';
      }
    }
  }

  const std::string& root() const { return root_; }

 private:
  std::string MakePlace(const std::string& path) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    return root_ + path;
  }

  const TestFolder folder_;
  const std::string root_ = folder_.path();
};

}  // namespace shoal
