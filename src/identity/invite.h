// The invite: a one-time secret short enough to be typed, and the URL and QR code that carry it with addresses.
//
// A code is 16 characters of Crockford's base32 (no I, L, O, U) in four groups: "7K3M-Q2XV-9HTD-4WBN". 80 bits, all of
// them secret: no check character, for one would cost five of them. A typo is told at once where it can be (a wrong
// length or letter); another is told by the inviter, which refuses the proof.
// Knows no sockets, and not which invites are open: the gate in net/ does.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "identity/crypto.h"

namespace shoal {

inline constexpr std::size_t kInviteSecretBytes = 10;
inline constexpr std::size_t kInviteAddressesMax = 8;
inline constexpr std::int64_t kInviteLifetimeS = 600;

using InviteSecret = std::array<std::uint8_t, kInviteSecretBytes>;

// Errors: kInternal (no random numbers).
Result<InviteSecret> GenerateInviteSecret();

// Four groups of four, joined by dashes.
std::string InviteCode(const InviteSecret& secret);

// Reads a code as people type it: any case, O for 0, I and L for 1, dashes and spaces anywhere or nowhere.
// Errors: kInvalidArgument, with what is wrong and where.
Result<InviteSecret> ParseInviteCode(std::string_view text);

struct Invite {
  InviteSecret secret{};
  std::vector<std::string> addresses;  // HOST:PORT or [v6]:PORT, at most kInviteAddressesMax
};

// "shoal:CODE@HOST:PORT,HOST:PORT"; without addresses "shoal:CODE".
std::string InviteUrl(const Invite& invite);

// Reads a URL as above, or a bare code, or "CODE@ADDRESSES". Addresses are not resolved or judged beyond their
// characters (printable ASCII, no comma, 1 to 255 bytes). Errors: kInvalidArgument.
Result<Invite> ParseInvite(std::string_view text);

// `text` (at most 512 bytes, no NUL) as a QR code in half blocks: UTF-8, two modules a character, with a quiet zone,
// lines ended by '\n'. Errors: kInvalidArgument (too long, or with a NUL).
Result<std::string> QrForTerminal(std::string_view text);

}  // namespace shoal
