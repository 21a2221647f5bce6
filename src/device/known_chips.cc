// The tables. A line's source is the one in the header unless it says another.
#include "device/known_chips.h"

#include <algorithm>
#include <cctype>
#include <string>

namespace shoal {
namespace {

constexpr std::uint32_t kArm = 0x41, kQualcomm = 0x51, kApple = 0x61;

constexpr KnownCore kCores[] = {
    {kArm, 0xd03, "Cortex-A53", CoreClass::kLittle, "cortex-a53"},
    {kArm, 0xd04, "Cortex-A35", CoreClass::kLittle, "cortex-a35"},
    {kArm, 0xd05, "Cortex-A55", CoreClass::kLittle, "cortex-a55"},
    {kArm, 0xd07, "Cortex-A57", CoreClass::kBig, "cortex-a57"},
    {kArm, 0xd08, "Cortex-A72", CoreClass::kBig, "cortex-a72"},
    {kArm, 0xd09, "Cortex-A73", CoreClass::kBig, "cortex-a73"},
    {kArm, 0xd0a, "Cortex-A75", CoreClass::kBig, "cortex-a75"},
    {kArm, 0xd0b, "Cortex-A76", CoreClass::kBig, "cortex-a76"},
    {kArm, 0xd0c, "Neoverse-N1", CoreClass::kBig, "neoverse-n1"},
    {kArm, 0xd0d, "Cortex-A77", CoreClass::kBig, "cortex-a77"},
    {kArm, 0xd0e, "Cortex-A76AE", CoreClass::kBig, "cortex-a76ae"},
    {kArm, 0xd40, "Neoverse-V1", CoreClass::kBig, "neoverse-v1"},
    {kArm, 0xd41, "Cortex-A78", CoreClass::kBig, "cortex-a78"},
    {kArm, 0xd42, "Cortex-A78AE", CoreClass::kBig, "cortex-a78ae"},
    {kArm, 0xd44, "Cortex-X1", CoreClass::kPrime, "cortex-x1"},
    {kArm, 0xd46, "Cortex-A510", CoreClass::kLittle, "cortex-a510"},
    {kArm, 0xd47, "Cortex-A710", CoreClass::kBig, "cortex-a710"},
    {kArm, 0xd48, "Cortex-X2", CoreClass::kPrime, "cortex-x2"},
    {kArm, 0xd49, "Neoverse-N2", CoreClass::kBig, "neoverse-n2"},
    {kArm, 0xd4b, "Cortex-A78C", CoreClass::kBig, "cortex-a78c"},
    {kArm, 0xd4c, "Cortex-X1C", CoreClass::kPrime, "cortex-x1c"},
    {kArm, 0xd4d, "Cortex-A715", CoreClass::kBig, "cortex-a715"},
    {kArm, 0xd4e, "Cortex-X3", CoreClass::kPrime, "cortex-x3"},
    {kArm, 0xd4f, "Neoverse-V2", CoreClass::kBig, "neoverse-v2"},
    {kArm, 0xd80, "Cortex-A520", CoreClass::kLittle, "cortex-a520"},
    {kArm, 0xd81, "Cortex-A720", CoreClass::kBig, "cortex-a720"},
    {kArm, 0xd82, "Cortex-X4", CoreClass::kPrime, "cortex-x4"},
    {kArm, 0xd85, "Cortex-X925", CoreClass::kPrime, "cortex-x925"},
    {kArm, 0xd87, "Cortex-A725", CoreClass::kBig, "cortex-a725"},
    {kArm, 0xd88, "Cortex-A520AE", CoreClass::kLittle, "cortex-a520ae"},
    {kArm, 0xd89, "Cortex-A720AE", CoreClass::kBig, "cortex-a720ae"},
    // Qualcomm's own and half-custom cores; which design they are of: util-linux, sys-utils/lscpu-arm.c, and the
    // vendor.
    {kQualcomm, 0x800, "Kryo 2xx Gold", CoreClass::kBig, "cortex-a73"},
    {kQualcomm, 0x801, "Kryo 2xx Silver", CoreClass::kLittle, "cortex-a53"},
    {kQualcomm, 0x802, "Kryo 3xx Gold", CoreClass::kBig, "cortex-a75"},
    {kQualcomm, 0x803, "Kryo 3xx Silver", CoreClass::kLittle, "cortex-a55"},
    {kQualcomm, 0x804, "Kryo 4xx Gold", CoreClass::kBig, "cortex-a76"},
    {kQualcomm, 0x805, "Kryo 4xx Silver", CoreClass::kLittle, "cortex-a55"},
    {kQualcomm, 0x001, "Oryon", CoreClass::kBig, "oryon-1"},
    {kQualcomm, 0x002, "Oryon V3", CoreClass::kBig, ""},
    // Asahi Linux, documentation of codenames; Linux, cputype.h.
    {kApple, 0x022, "Icestorm (M1)", CoreClass::kLittle, "apple-m1"},
    {kApple, 0x023, "Firestorm (M1)", CoreClass::kBig, "apple-m1"},
    {kApple, 0x024, "Icestorm (M1 Pro)", CoreClass::kLittle, "apple-m1"},
    {kApple, 0x025, "Firestorm (M1 Pro)", CoreClass::kBig, "apple-m1"},
    {kApple, 0x028, "Icestorm (M1 Max)", CoreClass::kLittle, "apple-m1"},
    {kApple, 0x029, "Firestorm (M1 Max)", CoreClass::kBig, "apple-m1"},
    {kApple, 0x032, "Blizzard (M2)", CoreClass::kLittle, "apple-m2"},
    {kApple, 0x033, "Avalanche (M2)", CoreClass::kBig, "apple-m2"},
    {kApple, 0x034, "Blizzard (M2 Pro)", CoreClass::kLittle, "apple-m2"},
    {kApple, 0x035, "Avalanche (M2 Pro)", CoreClass::kBig, "apple-m2"},
    {kApple, 0x038, "Blizzard (M2 Max)", CoreClass::kLittle, "apple-m2"},
    {kApple, 0x039, "Avalanche (M2 Max)", CoreClass::kBig, "apple-m2"},
};

constexpr KnownChip kChips[] = {
    {"Snapdragon 730 family", "sm7150 sdmmagpie"},
    {"Snapdragon 845", "sdm845"},
    {"Snapdragon 855", "sm8150"},
    {"Snapdragon 865", "sm8250 kona"},
    {"Snapdragon 888", "sm8350 lahaina"},
    {"Snapdragon 8 Gen 1", "sm8450 waipio"},
    {"Snapdragon 8+ Gen 1", "sm8475"},
    {"Snapdragon 8 Gen 2", "sm8550 kalama"},
    {"Snapdragon 8 Gen 3", "sm8650 pineapple"},
    {"Snapdragon 8 Elite", "sm8750"},
    {"Snapdragon 8 Elite Gen 5", "sm8850"},
    {"Snapdragon X Elite", "x1e80100"},
    {"Google Tensor", "gs101"},
    {"Google Tensor G2", "gs201"},
    {"Google Tensor G3", "zuma"},
    {"Google Tensor G4", "zumapro"},
    {"Dimensity 9200", "mt6985"},
    {"Dimensity 9300", "mt6989"},
    {"Dimensity 9400", "mt6991"},
    {"Exynos 2200", "s5e9925"},
    {"Exynos 2400", "s5e9945"},
    {"Broadcom BCM2711 (Raspberry Pi 4)", "bcm2711"},
    {"Broadcom BCM2712 (Raspberry Pi 5)", "bcm2712"},
    {"Rockchip RK3588", "rk3588 rk3588s"},
    {"Apple M1", "t8103"},
    {"Apple M1 Pro", "t6000"},
    {"Apple M1 Max", "t6001"},
    {"Apple M2", "t8112"},
};

bool IsWordByte(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

// Is `word` one of the words of `text`?
bool HasWord(std::string_view text, std::string_view word) {
  for (std::size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !IsWordByte(text[at - 1])) && (end == text.size() || !IsWordByte(text[end]))) return true;
  }
  return false;
}

}  // namespace

const KnownCore* FindCore(const CoreId& id) {
  for (const KnownCore& core : kCores) {
    if (core.implementer == id.implementer && core.part == id.part) return &core;
  }
  return nullptr;
}

const KnownChip* FindChip(std::string_view text) {
  std::string lower(text.substr(0, 4096));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const KnownChip& chip : kChips) {
    std::string_view keys = chip.keys;
    while (!keys.empty()) {
      const std::size_t end = std::min(keys.find(' '), keys.size());
      if (HasWord(lower, keys.substr(0, end))) return &chip;
      keys.remove_prefix(std::min(end + 1, keys.size()));
    }
  }
  return nullptr;
}

}  // namespace shoal
