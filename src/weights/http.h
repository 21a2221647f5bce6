// A file on an HTTP server, read by ranges: redirects, retries, resume, and a file that must not change meanwhile.
//
// The one place outside api/ that knows HTTP. Knows no models. A call blocks on the network; each object serves one
// thread at a time. Proxies come from the environment (http_proxy, https_proxy, all_proxy, no_proxy), with user and
// password when they have them; one that cannot be used is an error, never passed by.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "identity/crypto.h"

namespace shoal {

struct Url {
  bool tls = false;
  std::string host;  // an IPv6 address without its brackets
  int port = 80;
  std::string path;  // with the query; begins with '/'
  std::string Text() const;
};
// http:// and https:// only, without user and password. Errors: kInvalidArgument.
Result<Url> ParseUrl(const std::string& text);
// Of a URL or its path, for people and for names: a query may be long, or a secret.
std::string WithoutQuery(const std::string& url);

struct HttpOptions {
  std::string token;        // sent as a bearer token, to the host of the first URL alone
  int attempts_max = 8;     // in a row without a byte of progress
  int unreachable_max = 8;  // in a row while no connection could be made at all, before the first byte
  std::int64_t backoff_first_ms = 500, backoff_max_ms = 30'000;
  std::int64_t retry_after_max_ms = 120'000;        // a server that wants us to wait longer is given up
  std::function<bool()> cancelled;                  // asked between requests and while waiting; may be empty
  std::function<void(const std::string&)> on_wait;  // why it waits, for a person; may be empty
};

struct HttpFacts {
  std::uint64_t bytes = 0;
  std::string etag;              // of whoever serves the bytes; empty: it says none
  std::optional<Digest> sha256;  // of the whole file, when the hub says it
};

// Whether both are of one state of a file: as long, and with the same hash where both tell one. Where they do not, by
// the ETag: servers that share the work may each have their own of the same bytes.
bool IsSameState(const HttpFacts& a, const HttpFacts& b);

class HttpFile {
 public:
  HttpFile(Url url, HttpOptions options);
  ~HttpFile();

  // Asks for one byte: is it there, how long is it, are there ranges? `expected`: what must be the same as when the
  // file was first looked at. Errors: kNotFound, kUnsupported (no ranges; https in a build without TLS), kStale (the
  // file has changed), kUnavailable (after all attempts), kInvalidArgument (401 and 403: says what to do), kCancelled.
  Result<HttpFacts> Probe();
  void Expect(const HttpFacts& facts);

  // Bytes [offset, offset + bytes) in order, in pieces. What has come is not asked for again: a connection that breaks
  // is continued where it broke. `take` may refuse, which ends the call with its error. Errors: as Probe.
  Status Read(std::uint64_t offset, std::uint64_t bytes,
              const std::function<Status(std::span<const std::uint8_t>)>& take);

  // A small document, whole. Errors: as Probe; kCorrupt (longer than `bytes_max`).
  Result<std::string> Get(std::size_t bytes_max);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shoal
