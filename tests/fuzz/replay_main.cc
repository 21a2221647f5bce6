// Runs a fuzz target without libFuzzer: every file of the corpus folder given, then seeded mutations of them.
//
// So fuzz targets are built and run by every compiler and sanitizer of ./dev test. It searches blindly; the search that
// follows coverage is ./dev test --fuzz. Knows nothing of the target but its entry point.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr int kMutationsTotal = 20000;
constexpr std::size_t kInputBytesMax = 1U << 20;

// Exactly as many bytes as `input` has, on the heap, so that a sanitizer sees the first read past its end.
void RunOne(const Bytes& input) {
  const Bytes exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::vector<Bytes> ReadCorpus(const char* folder) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

// One to eight small edits: a flipped bit, an extreme byte or word, a cut, a repeated or a removed stretch.
void Mutate(Bytes& bytes, std::mt19937_64& random) {
  static constexpr std::uint8_t kExtremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  for (std::size_t edits = 1 + below(8); edits > 0; --edits) {
    if (bytes.empty()) bytes.push_back(static_cast<std::uint8_t>(random()));
    const std::size_t at = below(bytes.size());
    const std::size_t length = 1 + below(std::min<std::size_t>(bytes.size() - at, 64));
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(6)) {
      case 0: bytes[at] ^= static_cast<std::uint8_t>(1U << below(8)); break;
      case 1: bytes[at] = kExtremes[below(std::size(kExtremes))]; break;
      case 2: std::fill_n(first, std::min<std::size_t>(length, 8), kExtremes[below(std::size(kExtremes))]); break;
      case 3: bytes.resize(at); break;
      case 4: bytes.erase(first, first + static_cast<std::ptrdiff_t>(length)); break;
      default: {
        if (bytes.size() + length > kInputBytesMax) break;
        const Bytes stretch(first, first + static_cast<std::ptrdiff_t>(length));
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size())), stretch.begin(), stretch.end());
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
    return 2;
  }
  std::vector<Bytes> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    std::fprintf(stderr, "no corpus files in %s\n", argv[1]);
    return 1;
  }
  RunOne({});
  for (const Bytes& input : corpus) RunOne(input);
  std::mt19937_64 random(1);
  for (int i = 0; i < kMutationsTotal; ++i) {
    Bytes input = corpus[static_cast<std::size_t>(i) % corpus.size()];
    Mutate(input, random);
    RunOne(input);
  }
  std::printf("%zu corpus files and %d mutations of them\n", corpus.size(), kMutationsTotal);
  return 0;
}
