// Remembers where each node was said to be, and tells whom to dial next.
//
// peers.json: {"version":1,"nodes":[{"id":PEER_ID,"addresses":[{"at":HOST:PORT,"reached_s":UNIX}]}]}
//
// All sources of a node's addresses are tried at once, the first connection wins; an address that fails waits, twice as
// long each time with jitter, up to a limit. A wrong hint costs a few failed dials, so sources need not be trusted;
// what they can fill is bounded. Pure: the caller passes the time, dials, and reports. One thread (the control loop).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "discovery/endpoint.h"
#include "runtime/clock.h"
#include "runtime/rng.h"

namespace shoal {

inline constexpr std::size_t kBookNodesMax = 512;
inline constexpr std::size_t kBookAddressesPerNodeMax = 12;
inline constexpr std::size_t kBookGivenMax = 64;
inline constexpr std::size_t kBookJsonBytesMax = 256 * 1024;  // of peers.json, written or read
inline constexpr std::size_t kDialsAtOnceMax = 64;            // handed out by one Due
inline constexpr DurationUs kDialBackoffMinUs = 500'000;
inline constexpr DurationUs kDialBackoffMaxUs = 60'000'000;
inline constexpr DurationUs kDialFreshWaitUs = 1'000'000;  // between dials of an address that is news again and again
inline constexpr DurationUs kDialTimeoutUs = 10'000'000;   // a dial without a report counts as failed, at the latest
// No wait is longer than this, or than this share of the time that the node has been away: who is back after a moment
// is found in a moment.
inline constexpr DurationUs kDialWaitYoungUs = 1'000'000;
inline constexpr std::int64_t kDialWaitShare = 8;

enum class AddressSource : std::uint8_t {
  kGiven,   // by the person: --peer, or an invite; never forgotten
  kBeacon,  // the node itself said so just now
  kMdns,
  kGossiped,    // a member said so
  kRemembered,  // peers.json
};
std::string_view AddressSourceName(AddressSource source);

// One dial to make. `node` is zero when the address was given without saying whose it is.
struct Dial {
  NodeId node;
  Endpoint endpoint;  // may be a name
  AddressSource source = AddressSource::kGiven;
};

struct KnownAddress {
  Endpoint endpoint;
  AddressSource source = AddressSource::kGiven;
  std::int64_t success_unix_s = 0;  // last time a dial there reached the node; 0 = never
  std::uint32_t failures = 0;       // in a row
};

class AddressBook {
 public:
  // `seed` is for jitter.
  AddressBook(const NodeId& self, std::uint64_t seed);

  // An address of `node`; zero when unknown whose (then only kGiven makes sense). From kBeacon and kMdns it is fresh
  // news, which ends a long wait of that address. Ignored: addresses of ourselves, those that are not dialable, and
  // hearsay (kGossiped, kRemembered) where it would displace what was reached. When the book is full, forgets the least
  // useful: never reached, most failures, oldest.
  void Learn(const NodeId& node, const Endpoint& endpoint, AddressSource source, TimeUs now);

  // Whether `node` is connected. Nothing is dialled of those that are; all addresses of one that was lost, or whose
  // connection is doubted, are due again.
  void Connected(const NodeId& node);
  void Disconnected(const NodeId& node, TimeUs now);
  bool IsConnected(const NodeId& node) const;

  // The dials to make now, best first, at most kDialsAtOnceMax; each is then in flight until reported or for
  // kDialTimeoutUs. Of two nodes both dial: the connections are told apart above.
  std::vector<Dial> Due(TimeUs now);
  // When Due has more to give; nothing when never, as things are.
  std::optional<TimeUs> NextDue() const;

  // How a dial ended. After a success `reached` is whom it reached (an address given without a node then has one).
  void Succeeded(const Dial& dial, const NodeId& reached, std::int64_t unix_s);
  void Failed(const Dial& dial, TimeUs now);

  // Drops all that is known of a node (it left or was revoked).
  void Forget(const NodeId& node);

  // For status and for gossip: addresses reached before first, the latest of them foremost; then by source.
  std::vector<KnownAddress> AddressesOf(const NodeId& node) const;
  std::vector<NodeId> Nodes() const;

  // peers.json: what is worth keeping over a restart, i.e. the addresses reached at least once (names included).
  std::string ToJson() const;
  // Adds what ToJson wrote, as kRemembered. Errors: kCorrupt (not such a text; then nothing was added).
  Status AddJson(std::string_view json, TimeUs now);

 private:
  struct Entry {
    KnownAddress known;
    NodeId owner;  // whom it reached last; zero when nobody yet and none was said
    TimeUs due = 0;
    TimeUs learned = 0;
    TimeUs wanted = 0;  // since when nobody was reached there
    std::optional<TimeUs> attempted;
    bool in_flight = false;
  };
  using Entries = std::vector<Entry>;

  static Entry* Find(Entries& entries, const Endpoint& endpoint);
  Entries* EntriesFor(const NodeId& node, AddressSource source);
  bool MakeRoom(Entries& entries, std::size_t count_max, AddressSource source);
  bool MayDial(const NodeId& node, const Entry& entry) const;
  void Expire(TimeUs now);
  void Delay(Entry& entry, TimeUs now);
  static DurationUs WaitMax(const Entry& entry, TimeUs now, DurationUs otherwise);
  static TimeUs FailsAt(const Entry& entry);  // precondition: in flight

  NodeId self_;
  Rng rng_;
  std::map<NodeId, Entries> nodes_;  // under zero: given without saying whose
  std::set<NodeId> connected_;
};

}  // namespace shoal
