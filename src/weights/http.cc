// cpp-httplib behind our own redirects, retries and checks. Its exceptions, if any, stop here.
#include "weights/http.h"

#include <cpp-httplib/httplib.h>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <ctime>
#include <exception>
#include <iomanip>
#include <locale>
#include <sstream>
#include <thread>

#include "base/environment.h"
#include "weights/manifest.h"

namespace shoal {
namespace {

constexpr int kRedirectsMax = 8;
constexpr std::size_t kUrlBytesMax = 8192;
constexpr std::chrono::seconds kConnectMax{15}, kSilenceMax{30};
constexpr std::int64_t kCancelPollMs = 50;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string EitherOf(const char* lower, const char* upper) {
  std::string value = Environment(lower);
  return value.empty() ? Environment(upper) : value;
}

// Whether no_proxy names the host, or a domain it is in.
bool GoesDirect(const std::string& host) {
  std::string list = EitherOf("no_proxy", "NO_PROXY");
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    std::string entry = Lower(list.substr(at, comma - at));
    std::erase(entry, ' ');
    at = comma + 1;
    if (entry == "*") return true;
    if (entry.starts_with(".")) entry.erase(0, 1);
    const std::string name = Lower(host);
    if (!entry.empty() && (name == entry || name.ends_with("." + entry))) return true;
  }
  return false;
}

std::string PercentDecoded(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      plain += static_cast<char>(byte);
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

struct Proxy {
  Url url;
  std::string user, password;
};

// Nothing: the host is asked itself. Errors: kInvalidArgument, without the password.
Result<std::optional<Proxy>> ProxyFor(const Url& url) {
  if (GoesDirect(url.host)) return std::optional<Proxy>();
  // HTTP_PROXY is not read: where programs are started by web servers, a client can set it (https://httpoxy.org).
  std::string text = url.tls ? EitherOf("https_proxy", "HTTPS_PROXY") : Environment("http_proxy");
  if (text.empty()) text = EitherOf("all_proxy", "ALL_PROXY");
  if (text.empty()) return std::optional<Proxy>();
  if (text.find("://") == std::string::npos) text = "http://" + text;
  Proxy proxy;
  const std::size_t start = text.find("://") + 3;
  if (const std::size_t at = text.rfind('@', text.find('/', start)); at != std::string::npos && at >= start) {
    const std::string_view who = std::string_view(text).substr(start, at - start);
    const std::size_t colon = std::min(who.find(':'), who.size());
    proxy.user = PercentDecoded(who.substr(0, colon));
    proxy.password = PercentDecoded(who.substr(std::min(colon + 1, who.size())));
    text.erase(start, at + 1 - start);
  }
  const Result<Url> parsed = ParseUrl(text);
  if (!parsed.ok()) {
    return Error{ErrorCode::kInvalidArgument, "the proxy of the environment cannot be used (no_proxy=" + url.host +
                                                  " goes without): " + parsed.error().message};
  }
  proxy.url = *parsed;
  return std::optional<Proxy>(std::move(proxy));
}

std::optional<std::uint64_t> Number(std::string_view text) {
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

// Seconds since 1970 of a date as HTTP writes it (RFC 9110, 5.6.7).
std::optional<std::int64_t> HttpDate(const std::string& text) {
  std::tm when{};
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  in >> std::get_time(&when, "%a, %d %b %Y %H:%M:%S");
  return in.fail() ? std::nullopt : std::optional<std::int64_t>(timegm(&when));
}

// How long a server wants us to wait: seconds, or a date by its own clock. -1: it does not say.
std::int64_t RetryAfterMs(const httplib::Headers& headers) {
  const auto field = [&](const char* name) {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  };
  constexpr std::int64_t kSecondsMax = 1'000'000;
  const std::string after = field("Retry-After");
  if (const auto seconds = Number(after)) {
    return static_cast<std::int64_t>(std::min<std::uint64_t>(*seconds, kSecondsMax)) * 1000;
  }
  const std::optional<std::int64_t> date = HttpDate(after);
  if (!date) return -1;
  const std::int64_t now = HttpDate(field("Date")).value_or(std::time(nullptr));
  return std::clamp<std::int64_t>(*date - now, 0, kSecondsMax) * 1000;
}

struct ContentRange {
  std::uint64_t first = 0, last = 0, total = 0;
};

// "bytes 0-99/1234"
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  const std::size_t dash = text.find('-'), slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) return std::nullopt;
  const auto first = Number(text.substr(0, dash)), last = Number(text.substr(dash + 1, slash - dash - 1)),
             total = Number(text.substr(slash + 1));
  if (!first || !last || !total || *first > *last || *last >= *total) return std::nullopt;
  return ContentRange{*first, *last, *total};
}

bool DistrustsServer(httplib::Error error) {
  return error == httplib::Error::SSLServerVerification || error == httplib::Error::SSLServerHostnameVerification;
}

bool IsUnreachable(httplib::Error error) {
  return error == httplib::Error::Connection || error == httplib::Error::ConnectionTimeout ||
         error == httplib::Error::ProxyConnection;
}

// An ETag's value, without the mark of a weak one and the quotes.
std::string EtagValue(std::string text) {
  if (text.starts_with("W/")) text.erase(0, 2);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

Result<Url> Redirected(const Url& from, const std::string& to) {
  if (to.size() > kUrlBytesMax) return Error{ErrorCode::kUnavailable, from.host + " redirects to an endless URL"};
  if (to.starts_with("/") && !to.starts_with("//")) {
    Url url = from;
    url.path = to;
    return url;
  }
  SHOAL_ASSIGN_OR_RETURN(Url url, ParseUrl(to.starts_with("//") ? (from.tls ? "https:" : "http:") + to : to));
  if (from.tls && !url.tls) return Error{ErrorCode::kUnavailable, from.host + " redirects to a host without TLS"};
  return url;
}

}  // namespace

std::string Url::Text() const {
  const bool is_usual = port == (tls ? 443 : 80);
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return std::string(tls ? "https" : "http") + "://" + name + (is_usual ? "" : ":" + std::to_string(port)) + path;
}

Result<Url> ParseUrl(const std::string& text) {
  const auto refused = [&](const std::string& why) {
    return Error{ErrorCode::kInvalidArgument,
                 "'" + WithoutQuery(text).substr(0, 200) + "' is no URL that can be fetched: " + why};
  };
  Url url;
  url.tls = Lower(text.substr(0, 8)) == "https://";
  if (!url.tls && Lower(text.substr(0, 7)) != "http://") return refused("it begins with neither http:// nor https://");
  if (text.size() > kUrlBytesMax) return refused("it is too long");
  if (std::any_of(text.begin(), text.end(), [](unsigned char c) { return c <= ' ' || c == 0x7f; })) {
    return refused("it has spaces or control characters in it");
  }
  const std::size_t start = url.tls ? 8 : 7;
  const std::size_t slash = std::min({text.find('/', start), text.find('?', start), text.size()});
  std::string authority = text.substr(start, slash - start);
  url.path = text.substr(slash, text.find('#', slash) - slash);
  if (!url.path.starts_with("/")) url.path.insert(0, "/");
  if (authority.find('@') != std::string::npos) return refused("it has a user in it; use a token");
  std::string port;
  if (authority.starts_with("[")) {
    const std::size_t end = authority.find(']');
    if (end == std::string::npos) return refused("its address has no end");
    url.host = authority.substr(1, end - 1);
    if (url.host.find_first_not_of("0123456789abcdefABCDEF:.") != std::string::npos ||
        url.host.find(':') == std::string::npos) {
      return refused("its address is none");
    }
    if (end + 1 < authority.size() && authority[end + 1] != ':') return refused("its address has no end");
    if (end + 1 < authority.size()) port = authority.substr(end + 2);
  } else {
    const std::size_t colon = authority.find(':');
    url.host = authority.substr(0, colon);
    const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_'; };
    if (!std::all_of(url.host.begin(), url.host.end(), fits)) return refused("its host's name has odd characters");
    if (colon != std::string::npos) port = authority.substr(colon + 1);
  }
  if (url.host.empty()) return refused("it names no host");
  url.port = url.tls ? 443 : 80;
  if (!port.empty()) {
    const auto number = Number(port);
    if (!number || *number == 0 || *number > 65535) return refused("its port is none");
    url.port = static_cast<int>(*number);
  }
  return url;
}

std::string WithoutQuery(const std::string& url) { return url.substr(0, url.find('?')); }

bool IsSameState(const HttpFacts& a, const HttpFacts& b) {
  if (a.bytes != b.bytes) return false;
  return a.sha256 && b.sha256 ? *a.sha256 == *b.sha256 : a.etag == b.etag;
}

struct HttpFile::State {
  Url url;
  HttpOptions options;
  std::optional<HttpFacts> expected;
  std::unique_ptr<httplib::Client> client;
  std::string client_host;  // whom it is connected to
  bool reached = false;     // there was a connection once

  enum class Verdict { kDone, kAgain, kFatal };
  struct Answer {
    Verdict verdict = Verdict::kAgain;
    Error error{ErrorCode::kUnavailable, ""};
    std::int64_t wait_ms = -1;  // as the server asks
    bool unreachable = false;   // there was no connection
  };
  using Take = std::function<Status(std::span<const std::uint8_t>)>;

  bool Cancelled() const { return options.cancelled && options.cancelled(); }
  Result<httplib::Client*> ClientFor(const Url& to);
  bool Wait(std::int64_t ms) const;
  Answer Judge(const Url& at, int status, const httplib::Headers& headers) const;
  // One request, redirects followed. `first`, `bytes`: the range; bytes 0: the whole document.
  Answer Ask(std::uint64_t first, std::uint64_t bytes, const Take& take, HttpFacts* facts);
  Status Retry(std::uint64_t first, std::uint64_t bytes, const Take& take, HttpFacts* facts);
};

Result<httplib::Client*> HttpFile::State::ClientFor(const Url& to) {
  Url root = to;
  root.path.clear();
  if (client != nullptr && client_host == root.Text()) return client.get();
#ifndef CPPHTTPLIB_OPENSSL_SUPPORT
  if (to.tls) {
    return Error{ErrorCode::kUnsupported,
                 "this shoal was built without TLS and cannot fetch https:// (install OpenSSL's "
                 "development package and build again)"};
  }
#endif
  SHOAL_ASSIGN_OR_RETURN(const std::optional<Proxy> proxy, ProxyFor(to));
  client = std::make_unique<httplib::Client>(root.Text());
  client_host = root.Text();
  if (!client->is_valid()) return Error{ErrorCode::kUnavailable, "no connection to " + to.host + " can be made"};
  client->set_connection_timeout(kConnectMax);
  client->set_read_timeout(kSilenceMax);
  client->set_write_timeout(kSilenceMax);
  client->set_keep_alive(true);
  client->set_decompress(false);
  client->set_path_encode(false);  // URLs come encoded, and signed ones must stay as they are
  if (proxy) {
    client->set_proxy(proxy->url.host, proxy->url.port);
    if (!proxy->user.empty()) client->set_proxy_basic_auth(proxy->user, proxy->password);
  }
  return client.get();
}

// False when cancelled meanwhile.
bool HttpFile::State::Wait(std::int64_t ms) const {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (std::chrono::steady_clock::now() < end) {
    if (Cancelled()) return false;
    std::this_thread::sleep_for(
        std::chrono::milliseconds(std::min<std::int64_t>(kCancelPollMs, std::max<std::int64_t>(ms, 1))));
  }
  return !Cancelled();
}

// What a status other than success means.
HttpFile::State::Answer HttpFile::State::Judge(const Url& at, int status, const httplib::Headers& headers) const {
  const std::string what = at.host + " answers " + std::to_string(status) + " for " + WithoutQuery(at.path);
  const auto fatal = [](ErrorCode code, std::string text) {
    return Answer{Verdict::kFatal, Error{code, std::move(text)}, -1};
  };
  if (status == 404 || status == 410) return fatal(ErrorCode::kNotFound, what + ": there is no such file");
  if (status == 401 || status == 403) {
    return fatal(
        ErrorCode::kInvalidArgument,
        what + (options.token.empty()
                    ? ": it wants to know who asks. For the hub, set HF_TOKEN to a token that may read it; some "
                      "models want their terms accepted on their page first"
                    : ": the token in HF_TOKEN may not read it; were the model's terms accepted on its page?"));
  }
  if (status == 416) return fatal(ErrorCode::kStale, what + ": the file is shorter than it was");
  if (status == 429 || status >= 500) {
    Answer answer{Verdict::kAgain, Error{ErrorCode::kUnavailable, what}, RetryAfterMs(headers)};
    if (answer.wait_ms > options.retry_after_max_ms) {
      return fatal(ErrorCode::kUnavailable, what + " and asks us to come back in " +
                                                std::to_string(answer.wait_ms / 1000) + " s; try again then");
    }
    return answer;
  }
  return fatal(ErrorCode::kUnavailable, what);
}

HttpFile::State::Answer HttpFile::State::Ask(std::uint64_t first, std::uint64_t bytes, const Take& take,
                                             HttpFacts* facts) {
  const auto fatal = [](Error error) { return Answer{Verdict::kFatal, std::move(error), -1}; };
  Url at = url;
  std::optional<Digest> linked;
  for (int hop = 0; hop <= kRedirectsMax; ++hop) {
    const Result<httplib::Client*> connection = ClientFor(at);
    if (!connection.ok()) return fatal(connection.error());
    httplib::Headers headers{{"User-Agent", "shoal"}, {"Accept-Encoding", "identity"}};
    if (bytes > 0) headers.emplace("Range", "bytes=" + std::to_string(first) + "-" + std::to_string(first + bytes - 1));
    const bool is_first_host = at.host == url.host && at.port == url.port && at.tls == url.tls;
    if (!options.token.empty() && is_first_host) headers.emplace("Authorization", "Bearer " + options.token);

    int status = 0;
    httplib::Headers answered;
    Status problem;
    std::uint64_t got = 0;
    const auto on_head = [&](const httplib::Response& response) {
      status = response.status;
      answered = response.headers;
      if (status == 200 && bytes == 0) return true;
      if (status != 206 && status != 200) return true;  // its body is not wanted, but short
      const auto range = ParseContentRange(response.get_header_value("Content-Range"));
      if (status == 200 || !range) {
        problem = Error{ErrorCode::kUnsupported, at.host + " does not serve parts of files (HTTP ranges)"};
      } else if (range->first != first || range->last != first + bytes - 1) {
        problem =
            Error{ErrorCode::kStale, at.host + " sends other bytes than it was asked for: the file has another length"};
      } else {
        HttpFacts now{range->total, EtagValue(response.get_header_value("ETag")), linked};
        if (expected && !IsSameState(now, *expected)) {
          problem = Error{ErrorCode::kStale,
                          "the file at " + WithoutQuery(url.Text()) + " has changed while it was fetched; begin again"};
        }
        if (facts != nullptr) *facts = std::move(now);
      }
      return problem.ok();
    };
    const auto on_body = [&](const char* data, std::size_t n) {
      if (Cancelled()) {
        problem = Error{ErrorCode::kCancelled, "fetching was cancelled"};
        return false;
      }
      if (status != 206 && status != 200) return true;
      got += n;
      if (bytes > 0 && got > bytes) {
        problem = Error{ErrorCode::kUnavailable, at.host + " sends more bytes than it was asked for"};
        return false;
      }
      problem = take({reinterpret_cast<const std::uint8_t*>(data), n});
      return problem.ok();
    };
    httplib::Result result;
    try {
      result = (*connection)->Get(at.path, headers, on_head, on_body);
    } catch (const std::exception& e) { problem = Error{ErrorCode::kInternal, std::string("HTTP: ") + e.what()}; }
    if (!problem.ok()) {
      client.reset();  // the rest of the answer is still on its way
      return fatal(problem.error());
    }
    if (!result) {
      client.reset();
      if (DistrustsServer(result.error())) {
        return fatal({ErrorCode::kUnavailable,
                      "nobody that this device trusts vouches for " + at.host +
                          ": its certificate is refused. SSL_CERT_FILE names another list of authorities"});
      }
      return {Verdict::kAgain,
              Error{ErrorCode::kUnavailable,
                    "the connection to " + at.host + " failed: " + httplib::to_string(result.error())},
              -1, IsUnreachable(result.error())};
    }
    if (status == 200 || status == 206) return {Verdict::kDone, Error{}, -1};
    if (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) {
      const auto location = answered.find("Location");
      if (location == answered.end()) return fatal(Error{ErrorCode::kUnavailable, at.host + " redirects to nowhere"});
      // The hub tells a large file's SHA-256 where it redirects to whoever has its bytes.
      Digest digest;
      const auto tag = answered.find("X-Linked-Etag");
      if (is_first_host && tag != answered.end() && ParseHex(EtagValue(tag->second), digest)) linked = digest;
      const Result<Url> next = Redirected(at, location->second);
      if (!next.ok()) return fatal(next.error());
      at = *next;
      continue;
    }
    return Judge(at, status, answered);
  }
  return fatal(Error{ErrorCode::kUnavailable, url.host + " redirects without end"});
}

Status HttpFile::State::Retry(std::uint64_t first, std::uint64_t bytes, const Take& take, HttpFacts* facts) {
  std::uint64_t done = 0;
  const bool whole = bytes == 0;
  int attempts = 0;
  std::int64_t backoff_ms = options.backoff_first_ms;
  for (;;) {
    if (Cancelled()) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
    const std::uint64_t before = done;
    const Answer answer = Ask(
        first + done, whole ? 0 : bytes - done,
        [&](std::span<const std::uint8_t> piece) {
          done += piece.size();
          return take(piece);
        },
        facts);
    if (answer.verdict == Verdict::kFatal) return answer.error;
    if (answer.verdict == Verdict::kDone && (whole || done == bytes)) return {};
    const std::string why = answer.verdict == Verdict::kDone
                                ? "the connection to " + url.host + " ended before everything had come"
                                : answer.error.message;
    if (done > before) {
      attempts = 0;
      backoff_ms = options.backoff_first_ms;
    }
    if (whole && done > 0) return Error{ErrorCode::kUnavailable, why};
    reached = reached || !answer.unreachable;
    const int most = reached ? options.attempts_max : std::min(options.attempts_max, options.unreachable_max);
    if (++attempts >= most) {
      return Error{ErrorCode::kUnavailable,
                   why + "; given up after " + std::to_string(attempts) +
                       " attempts. What has come is kept: the same command goes on from there"};
    }
    const std::int64_t wait_ms = answer.wait_ms >= 0 ? answer.wait_ms : backoff_ms;
    if (options.on_wait) options.on_wait(why + "; again in " + std::to_string((wait_ms + 999) / 1000) + " s");
    if (!Wait(wait_ms)) return Error{ErrorCode::kCancelled, "fetching was cancelled"};
    backoff_ms = std::min(2 * backoff_ms, options.backoff_max_ms);
  }
}

HttpFile::HttpFile(Url url, HttpOptions options) : state_(std::make_unique<State>()) {
  state_->url = std::move(url);
  state_->options = std::move(options);
}

HttpFile::~HttpFile() = default;

void HttpFile::Expect(const HttpFacts& facts) { state_->expected = facts; }

Result<HttpFacts> HttpFile::Probe() {
  HttpFacts facts;
  SHOAL_RETURN_IF_ERROR(state_->Retry(
      0, 1, [](std::span<const std::uint8_t>) { return Status(); }, &facts));
  return facts;
}

Status HttpFile::Read(std::uint64_t offset, std::uint64_t bytes,
                      const std::function<Status(std::span<const std::uint8_t>)>& take) {
  return bytes == 0 ? Status() : state_->Retry(offset, bytes, take, nullptr);
}

Result<std::string> HttpFile::Get(std::size_t bytes_max) {
  std::string text;
  SHOAL_RETURN_IF_ERROR(state_->Retry(
      0, 0,
      [&](std::span<const std::uint8_t> piece) -> Status {
        if (piece.size() > bytes_max - text.size()) {
          return Error{ErrorCode::kCorrupt, "the answer of " + state_->url.host + " is longer than it may be"};
        }
        text.append(piece.begin(), piece.end());
        return {};
      },
      nullptr));
  return text;
}

}  // namespace shoal
