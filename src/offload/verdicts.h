// What is known of devices: that they computed what the CPU does, or why they are not used. Kept in
// SHOAL_HOME/devices.json, so that a driver that crashes crashes once.
//
// A key names everything a verdict depends on: the device, its library, the kind of model. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace shoal {

struct Verdict {
  bool passed = false;
  std::string text;  // for a person
  bool operator==(const Verdict&) const = default;
};

class Verdicts {
 public:
  explicit Verdicts(std::string home);  // reads what is kept; what is unreadable is as if it were not there

  std::optional<Verdict> Find(const std::string& key) const;
  // What cannot be kept is only logged, and known to this process.
  void Keep(const std::string& key, const Verdict& verdict);

  // Pure parts. Text of devices.json; the reader gives nothing for what is not such a text.
  static std::string Text(const std::map<std::string, Verdict>& verdicts);
  static std::map<std::string, Verdict> Parse(const std::string& text);

 private:
  const std::string path_;
  mutable std::mutex mutex_;
  std::map<std::string, Verdict> verdicts_;  // guarded by mutex_
};

}  // namespace shoal
