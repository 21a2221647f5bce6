// Invite codes, their URL and their QR code. Holds no state.
#include "identity/invite.h"

#include <algorithm>
#include <optional>

#include "shoal_net.h"

namespace shoal {
namespace {

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";  // Crockford's base32
constexpr std::size_t kCodeCharacters = kInviteSecretBytes * 8 / 5;
constexpr std::size_t kGroupCharacters = 4;
constexpr std::size_t kCodeTextBytesMax = 128;  // of a typed code, separators and all
constexpr std::size_t kAddressBytesMax = 255;
constexpr std::string_view kScheme = "shoal:";

static_assert(kCodeCharacters * 5 == kInviteSecretBytes * 8, "no padding bits, so every code is one secret");

char Upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

// The value of one typed character, forgiving what people confuse; nothing when it is none.
std::optional<std::uint32_t> DigitOf(char c) {
  c = Upper(c);
  if (c == 'O') c = '0';
  if (c == 'I' || c == 'L') c = '1';
  const std::size_t at = kAlphabet.find(c);
  if (at == std::string_view::npos) return std::nullopt;
  return static_cast<std::uint32_t>(at);
}

bool IsSeparator(char c) { return c == '-' || c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::string Shown(char c) { return c > ' ' && c < 127 ? std::string("'") + c + "'" : "a character that is no letter"; }

Result<std::vector<std::string>> ParseAddresses(std::string_view text) {
  std::vector<std::string> addresses;
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view address = text.substr(0, comma);
    const bool printable = std::all_of(address.begin(), address.end(), [](char c) { return c > ' ' && c < 127; });
    if (address.empty() || address.size() > kAddressBytesMax || !printable) {
      return Error{ErrorCode::kInvalidArgument, "the invite has a broken address: write CODE@HOST:PORT,HOST:PORT"};
    }
    if (addresses.size() == kInviteAddressesMax) {
      return Error{ErrorCode::kInvalidArgument,
                   "an invite has at most " + std::to_string(kInviteAddressesMax) + " addresses"};
    }
    addresses.emplace_back(address);
    if (comma == std::string_view::npos) return addresses;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

Result<InviteSecret> GenerateInviteSecret() {
  InviteSecret secret{};
  SHOAL_RETURN_IF_ERROR(FillRandom(secret));
  return secret;
}

std::string InviteCode(const InviteSecret& secret) {
  std::string code;
  for (std::size_t i = 0; i < kCodeCharacters; ++i) {
    std::uint32_t digit = 0;
    for (std::size_t bit = i * 5; bit < i * 5 + 5; ++bit) digit = digit * 2 + (secret[bit / 8] >> (7 - bit % 8) & 1U);
    if (i > 0 && i % kGroupCharacters == 0) code += '-';
    code += kAlphabet[digit];
  }
  return code;
}

Result<InviteSecret> ParseInviteCode(std::string_view text) {
  if (text.size() > kCodeTextBytesMax) return Error{ErrorCode::kInvalidArgument, "far too long for an invite code"};
  InviteSecret secret{};
  std::size_t count = 0;
  for (const char c : text) {
    if (IsSeparator(c)) continue;
    const std::optional<std::uint32_t> digit = DigitOf(c);
    if (!digit) {
      return Error{ErrorCode::kInvalidArgument, Shown(c) + " after " + std::to_string(count) +
                                                    " characters is in no invite code (they have digits and letters, "
                                                    "but not U)"};
    }
    for (std::size_t bit = 0; bit < 5 && count < kCodeCharacters; ++bit) {
      const std::size_t at = count * 5 + bit;
      secret[at / 8] = static_cast<std::uint8_t>(secret[at / 8] | ((*digit >> (4 - bit) & 1U) << (7 - at % 8)));
    }
    ++count;
  }
  if (count != kCodeCharacters) {
    return Error{ErrorCode::kInvalidArgument, "an invite code has " + std::to_string(kCodeCharacters) +
                                                  " characters, this one has " + std::to_string(count)};
  }
  return secret;
}

std::string InviteUrl(const Invite& invite) {
  std::string url = std::string(kScheme) + InviteCode(invite.secret);
  const std::size_t count = std::min(invite.addresses.size(), kInviteAddressesMax);
  for (std::size_t i = 0; i < count; ++i) url += (i == 0 ? "@" : ",") + invite.addresses[i];
  return url;
}

Result<Invite> ParseInvite(std::string_view text) {
  text = Trimmed(text);
  const bool has_scheme =
      text.size() >= kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), text.begin(), [](char a, char b) { return Upper(a) == Upper(b); });
  if (has_scheme) text.remove_prefix(kScheme.size());
  const std::size_t at = text.find('@');
  Invite invite;
  SHOAL_ASSIGN_OR_RETURN(invite.secret, ParseInviteCode(text.substr(0, at)));
  if (at != std::string_view::npos) { SHOAL_ASSIGN_OR_RETURN(invite.addresses, ParseAddresses(text.substr(at + 1))); }
  return invite;
}

Result<std::string> QrForTerminal(std::string_view text) {
  constexpr std::size_t kQrTextBytesMax = 512;
  constexpr std::size_t kQrOutBytes = 16 * 1024;
  const Error refused{ErrorCode::kInvalidArgument, "the text does not fit a QR code"};
  if (text.size() > kQrTextBytesMax || text.find('\0') != std::string_view::npos) return refused;
  std::string out(kQrOutBytes, '\0');
  const std::int64_t bytes = sn_qr(std::string(text).c_str(), out.data(), out.size());
  if (bytes <= 0 || bytes >= static_cast<std::int64_t>(out.size())) return refused;
  out.resize(static_cast<std::size_t>(bytes));
  return out;
}

}  // namespace shoal
