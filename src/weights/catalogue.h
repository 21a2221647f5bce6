// Models that go well on a cluster of phones, as data: where they are, how large in each quantization, under which
// licence, and what a token of context costs.
//
// Pure and static. Sizes are for choosing before anything is asked of the hub; a pull goes by the hub's own list.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace shoal {

struct CatalogueSize {
  std::string_view quantization;  // "Q4_K_M"
  std::uint64_t bytes = 0;        // of the file
};

struct CatalogueModel {
  std::string_view name;          // what `shoal pull` takes: "llama-3.2-3b"
  std::string_view repository;    // of the hub: "owner/repo"
  std::string_view architecture;  // of llama.cpp; all of them can be cut at every layer, or nearly
  std::string_view parameters;    // "3.2B"
  std::string_view licence;       // an SPDX identifier where there is one
  std::string_view good_for;      // one line
  std::int32_t layers = 0;
  std::uint32_t kv_bytes = 0;            // of one token of context, all layers, as f16
  std::span<const CatalogueSize> sizes;  // smallest first
};

// By size.
std::span<const CatalogueModel> Catalogue();
// Null: not in it.
const CatalogueModel* FindInCatalogue(std::string_view name);

}  // namespace shoal
