// Sweeps every architecture: has upstream's generator make its tiny models, compares each in a child process, and holds
// the outcome against the split table and docs/architectures.md.
//
//   shoal_arch_sweep --generator PROGRAM --table FILE [--write] [--only ARCHITECTURE] [--jobs N]
//   shoal_arch_sweep --variant MODEL      (the child: one line, tab-separated, on stdout)
//
// Fails if a model of a splittable architecture is not exact, if fewer than 100 variants are exact when cut, if a table
// entry has no model that shows it, or if FILE is not what the sweep writes (--write replaces it).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "arch_variant.h"
#include "child_process.h"
#include "engine/split_rules.h"
#include "llama-arch.h"

namespace shoal::golden {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kExactVariantsMin = 100;
constexpr unsigned kGeneratorSecondsMax = 120, kVariantSecondsMax = 300;
constexpr char kSeed[] = "1234";

struct Arguments {
  std::string self, generator, table, only, variant;
  bool write = false;
  int jobs = 2;
};

struct Row {
  std::string architecture, variant;  // "llama", "dense"
  VariantReport report;
};

std::string OneLine(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\t' || c == '|'; }, ' ');
  return text;
}

void PrintReport(const VariantReport& report) {
  std::cout << report.splittable << '\t' << report.exact << '\t' << report.cuts << '\t' << OneLine(report.note)
            << std::endl;
}

// What the rules say comes first, in case libllama ends the process.
int RunVariant(const std::string& path) {
  const Result<VariantReport> rules = ReadVariant(path);
  VariantReport report = rules.ok() ? *rules : VariantReport{false, false, "", rules.error().message};
  PrintReport(report);
  if (!rules.ok()) return 0;
  const Result<VariantReport> result = CompareVariant(path);
  if (result.ok()) {
    report = *result;
  } else if (report.splittable) {
    report.note = result.error().message;
  }
  PrintReport(report);
  return 0;
}

Row ParseRow(const std::string& architecture, const std::string& variant, const ChildResult& child) {
  Row row{architecture, variant, {}};
  std::istringstream lines(child.output);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> fields;
    std::istringstream rest(line);
    for (std::string field; std::getline(rest, field, '\t');) fields.push_back(field);
    fields.resize(4);
    row.report = {fields[0] == "1", fields[1] == "1", fields[2], fields[3]};
  }
  if (!child.ok && (row.report.splittable || row.report.note.empty())) {
    row.report.note = "libllama ended the process: " + child.failure;
  }
  return row;
}

// A line of the log and of nothing else.
std::string Verdict(const Row& row) {
  if (row.report.splittable && row.report.exact) return "exact";
  if (row.report.splittable) return "NOT EXACT";
  return "whole only";
}

class Sweep {
 public:
  explicit Sweep(const Arguments& arguments) : arguments_(arguments) {
    scratch_ = fs::temp_directory_path() / ("shoal-arch-" + std::to_string(getpid()));
    for (const llm_arch arch : llm_arch_all()) {
      const std::string name = llm_arch_name(arch);
      if (arch != LLM_ARCH_UNKNOWN && (arguments_.only.empty() || arguments_.only == name))
        architectures_.push_back(name);
    }
    std::sort(architectures_.begin(), architectures_.end());
  }
  ~Sweep() {
    std::error_code ignored;
    fs::remove_all(scratch_, ignored);
  }

  std::vector<Row> Run() {
    std::vector<std::thread> workers;
    for (int i = 0; i < arguments_.jobs; ++i) {
      workers.emplace_back([this] {
        for (std::size_t k = next_++; k < architectures_.size(); k = next_++) One(architectures_[k]);
      });
    }
    for (std::thread& worker : workers) worker.join();
    std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
      return std::tie(a.architecture, a.variant) < std::tie(b.architecture, b.variant);
    });
    return rows_;
  }

 private:
  // Models are large together, so they live no longer than their comparison.
  void One(const std::string& architecture) {
    const fs::path folder = scratch_ / architecture;
    fs::create_directories(folder);
    const ChildResult made =
        RunChild({arguments_.generator, "-a", architecture, "-o", folder.string(), "-s", kSeed}, kGeneratorSecondsMax);
    std::vector<fs::path> models;
    for (const auto& entry : fs::directory_iterator(folder)) models.push_back(entry.path());
    std::sort(models.begin(), models.end());
    if (!made.ok) Print({architecture, "generator", {false, false, "", made.failure}}, 0);
    for (const fs::path& model : models) {
      const auto start = std::chrono::steady_clock::now();
      const ChildResult child = RunChild({arguments_.self, "--variant", model.string()}, kVariantSecondsMax);
      const std::string variant = model.stem().string().substr(architecture.size() + 1);
      const Row row = ParseRow(architecture, variant, child);
      Print(row, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      const std::lock_guard lock(mutex_);
      rows_.push_back(row);
    }
    fs::remove_all(folder);
  }

  void Print(const Row& row, double seconds) {
    const std::lock_guard lock(mutex_);
    std::printf("%-18s %-9s %-10s %5.1f s  %s%s%s\n", row.architecture.c_str(), row.variant.c_str(),
                Verdict(row).c_str(), seconds, row.report.cuts.c_str(), row.report.note.empty() ? "" : "  ",
                row.report.note.c_str());
    std::fflush(stdout);
  }

  Arguments arguments_;
  fs::path scratch_;
  std::vector<std::string> architectures_;
  std::atomic<std::size_t> next_{0};
  std::mutex mutex_;
  std::vector<Row> rows_;
};

std::size_t CountExact(const std::vector<Row>& rows) {
  return static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Row& row) { return Verdict(row) == "exact"; }));
}

std::string Page(const std::vector<Row>& rows) {
  std::map<std::string, std::string> notes;
  for (const ArchitectureRule& rule : SplittableArchitectures()) {
    notes.emplace(std::string(rule.architecture), std::string(rule.note));
  }
  std::ostringstream page;
  page << "# Architectures\n\n"
       << "Which models can be cut into stages, and where. Written by `shoal_arch_sweep --write` (tests/golden/arch), "
          "which\n"
       << "fails in the tests when this page is out of date.\n\n"
       << "Each line is a tiny model with random weights, made by llama.cpp's own generator; most have 12 layers. "
          "*Exact*: as\n"
       << "one stage, in two stages at every cut listed, and in three, the logits of 48 prefilled and 8 decoded tokens "
          "are\n"
       << "those of the unsplit model on libllama to the bit (f32 hidden states, same batch shapes, same CPU). *Whole "
          "only*:\n"
       << "the architecture runs on one stage. An architecture that is not listed has not been tested, and runs whole "
          "too.\n\n"
       << CountExact(rows) << " of " << rows.size() << " variants are exact.\n\n"
       << "| architecture | variant | result | cuts of this model | rule |\n|---|---|---|---|---|\n";
  for (const Row& row : rows) {
    const auto note = notes.find(row.architecture);
    page << "| " << row.architecture << " | " << row.variant << " | " << Verdict(row) << " | " << row.report.cuts
         << " | " << (row.report.splittable && note != notes.end() ? note->second : row.report.note) << " |\n";
  }
  return page.str();
}

// What is wrong with the outcome; one line each.
std::vector<std::string> Problems(const std::vector<Row>& rows) {
  std::vector<std::string> problems;
  std::set<std::string> shown;
  for (const Row& row : rows) {
    const std::string verdict = Verdict(row);
    if (verdict == "exact") shown.insert(row.architecture);
    if (verdict == "NOT EXACT") problems.push_back(row.architecture + " " + row.variant + " is not exact");
  }
  for (const ArchitectureRule& rule : SplittableArchitectures()) {
    if (!shown.contains(std::string(rule.architecture))) {
      problems.push_back(std::string(rule.architecture) + " is in the split table, but no model has shown it exact");
    }
  }
  if (CountExact(rows) < kExactVariantsMin) {
    problems.push_back("only " + std::to_string(CountExact(rows)) + " variants are exact, expected at least " +
                       std::to_string(kExactVariantsMin));
  }
  return problems;
}

bool IsUpToDate(const std::string& path, const std::string& page) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return file && text.str() == page;
}

int RunSweep(const Arguments& arguments) {
  const std::vector<Row> rows = Sweep(arguments).Run();
  std::printf("%zu variants, %zu exact\n", rows.size(), CountExact(rows));
  if (!arguments.only.empty()) {
    return std::all_of(rows.begin(), rows.end(), [](const Row& row) { return Verdict(row) != "NOT EXACT"; }) ? 0 : 1;
  }
  std::vector<std::string> problems = Problems(rows);
  const std::string page = Page(rows);
  if (arguments.write) {
    std::ofstream(arguments.table, std::ios::binary) << page;
  } else if (!IsUpToDate(arguments.table, page)) {
    problems.push_back(arguments.table +
                       " is out of date: run shoal_arch_sweep with --write, and look at what changed");
  }
  for (const std::string& problem : problems) std::printf("FAILED: %s\n", problem.c_str());
  return problems.empty() ? 0 : 1;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  arguments.self = fs::canonical("/proc/self/exe").string();
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (name == "--write")
      arguments.write = true;
    else if (name == "--generator")
      arguments.generator = value();
    else if (name == "--table")
      arguments.table = value();
    else if (name == "--only")
      arguments.only = value();
    else if (name == "--jobs")
      arguments.jobs = std::max(1, std::atoi(value().c_str()));
    else if (name == "--variant")
      arguments.variant = value();
    else {
      std::fprintf(stderr, "unknown argument: %s\n", name.c_str());
      return 2;
    }
  }
  if (!arguments.variant.empty()) return RunVariant(arguments.variant);
  if (arguments.generator.empty() || (arguments.table.empty() && arguments.only.empty())) {
    std::fprintf(stderr, "usage: shoal_arch_sweep --generator PROGRAM --table FILE [--write] [--only ARCHITECTURE]\n");
    return 2;
  }
  return RunSweep(arguments);
}

}  // namespace
}  // namespace shoal::golden

int main(int argc, char** argv) { return shoal::golden::Main(argc, argv); }
