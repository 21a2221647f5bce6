// Fuzz target: any bytes as the hub's list of files, as a name that somebody typed, and as a URL to be redirected to.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "weights/hub.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto files = shoal::ParseHubTree(text); files.ok()) {
    for (const shoal::HubFile& file : *files) SHOAL_CHECK(file.path.find("..") == std::string::npos);
    (void)shoal::ChooseFile(*files, "", {});
  }
  if (const auto name = shoal::ParseModelName(text, true); name.ok()) {
    SHOAL_CHECK(name->file.find("..") == std::string::npos);
  }
  if (const auto url = shoal::ParseUrl(text); url.ok()) {
    const auto again = shoal::ParseUrl(url->Text());
    SHOAL_CHECK(again.ok() && again->host == url->host && again->port == url->port && again->path == url->path);
  }
  return 0;
}
