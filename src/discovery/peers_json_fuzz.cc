// Any text as peers.json: reading never crashes, refuses whole, and what was read is written to the same again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "discovery/address_book.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  shoal::NodeId self;
  self.bytes.fill(0xEE);
  shoal::AddressBook book(self, 1);
  const shoal::Status added = book.AddJson(text, 0);
  if (!added.ok()) {
    SHOAL_CHECK(added.error().code == shoal::ErrorCode::kCorrupt);
    SHOAL_CHECK(book.Nodes().empty());
    return 0;
  }
  const std::string written = book.ToJson();
  shoal::AddressBook again(self, 1);
  SHOAL_CHECK(again.AddJson(written, 0).ok());
  SHOAL_CHECK(again.ToJson() == written);
  return 0;
}
