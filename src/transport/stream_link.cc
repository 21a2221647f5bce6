// Blocking reads and writes of whole frames; shutdown() is what wakes a thread that sits in one.
#include "transport/stream_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/socket.h"
#include "wire/frame.h"

namespace shoal {
namespace {

constexpr std::size_t kReadBytes = 256U << 10;  // most frames are shorter

using Deadline = std::optional<std::chrono::steady_clock::time_point>;
constexpr std::int64_t kPollMsMax = 60'000;  // of one poll, whose time is an int

// Closes when sender and receiver are both gone.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
#ifdef SO_NOSIGPIPE
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  bool Write(std::span<const std::uint8_t> bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), kNoSignal);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return true;
  }

  // Never blocks.
  void WriteIfRoom(std::span<const std::uint8_t> bytes) const {
    static_cast<void>(send(fd_, bytes.data(), bytes.size(), kNoSignal | MSG_DONTWAIT));
  }

  bool Read(std::span<std::uint8_t> bytes, const Deadline& deadline) const {
    while (!bytes.empty()) {
      if (deadline && !WaitReadable(*deadline)) return false;
      const ssize_t got = recv(fd_, bytes.data(), bytes.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
    return true;
  }

  void Shutdown(int how) const { shutdown(fd_, how); }

 private:
  // False when there is nothing to read by then.
  bool WaitReadable(std::chrono::steady_clock::time_point deadline) const {
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd waiting{fd_, POLLIN, 0};
      const int ready = poll(&waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, kPollMsMax)));
      if (ready > 0) return true;
      if (ready == 0 && left.count() <= kPollMsMax) return false;
      if (ready < 0 && errno != EINTR) return false;
    }
  }

  const int fd_;
};

class StreamSender final : public FrameSender {
 public:
  explicit StreamSender(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~StreamSender() override { Close(); }
  StreamSender(const StreamSender&) = delete;
  StreamSender& operator=(const StreamSender&) = delete;

  Status Send(FrameBytes frame) override {
    const std::lock_guard lock(writing_);
    if (!closed_ && socket_->Write(frame)) return {};
    closed_ = true;
    return Error{ErrorCode::kUnavailable, "the stream to the other node has ended"};
  }

  void Close() override {
    if (closed_.exchange(true)) return;
    // A writer that is stuck in the middle of a frame is cut off; otherwise the peer hears that this is the end.
    if (std::unique_lock lock(writing_, std::try_to_lock); lock.owns_lock()) {
      FrameBytes end(kFrameHeaderBytes);
      SealFrame(FrameType::kEnd, 0, end);
      socket_->WriteIfRoom(end);  // a peer that does not read learns it by the cut
    }
    socket_->Shutdown(SHUT_WR);
  }

 private:
  const std::shared_ptr<Socket> socket_;
  std::mutex writing_;
  std::atomic<bool> closed_{false};
};

class StreamReceiver final : public FrameReceiver {
 public:
  StreamReceiver(std::shared_ptr<Socket> socket, std::size_t frame_bytes_max)
      : socket_(std::move(socket)), frame_bytes_max_(frame_bytes_max) {}
  ~StreamReceiver() override { Close(); }
  StreamReceiver(const StreamReceiver&) = delete;
  StreamReceiver& operator=(const StreamReceiver&) = delete;

  std::optional<FrameBytes> Receive() override {
    if (ended_) return std::nullopt;
    std::optional<FrameBytes> frame = ReadFrame();
    if (!frame) ended_ = true;
    if (deadline_ && --limited_frames_ == 0) deadline_.reset();
    return frame;
  }

  void Close() override { socket_->Shutdown(SHUT_RD); }
  void LimitFirst(int frames, std::chrono::milliseconds limit) {
    deadline_ = std::chrono::steady_clock::now() + limit;
    limited_frames_ = frames;
  }
  bool ended_cleanly() const { return clean_; }

 private:
  std::optional<FrameBytes> ReadFrame() {
    FrameBytes frame(kFrameHeaderBytes);
    if (!socket_->Read(frame, deadline_)) return std::nullopt;
    const Result<FrameHeader> header = ParseFrameHeader(frame);
    if (!header.ok() || header->payload_bytes > frame_bytes_max_ - kFrameHeaderBytes) {
      Log(LogLevel::kWarning, "transport",
          "a stream is given up: " + (header.ok() ? "a frame over the limit" : header.error().message));
      return std::nullopt;
    }
    if (header->type == FrameType::kEnd) {
      clean_ = true;
      return std::nullopt;
    }
    if (!ReadUpTo(frame, kFrameHeaderBytes + header->payload_bytes)) return std::nullopt;
    return frame;
  }

  // Memory is taken as bytes come: a header may announce what its sender never had.
  bool ReadUpTo(FrameBytes& frame, std::size_t whole_bytes) const {
    while (frame.size() < whole_bytes) {
      const std::size_t have = frame.size();
      frame.resize(std::min(whole_bytes, std::max(kReadBytes, 2 * have)));
      if (!socket_->Read(std::span(frame).subspan(have), deadline_)) return false;
    }
    return true;
  }

  const std::shared_ptr<Socket> socket_;
  const std::size_t frame_bytes_max_;
  Deadline deadline_;  // of the next limited_frames_ frames
  int limited_frames_ = 0;
  bool ended_ = false;
  std::atomic<bool> clean_{false};
};

// A stream of which one direction is used. The other stays open with it: closing it would read as a loss.
class OneWaySender final : public FrameSender {
 public:
  explicit OneWaySender(StreamLink link) : link_(std::move(link)) {}
  Status Send(FrameBytes frame) override { return link_.sender->Send(std::move(frame)); }
  void Close() override { link_.sender->Close(); }

 private:
  StreamLink link_;
};

class OneWayReceiver final : public FrameReceiver {
 public:
  explicit OneWayReceiver(StreamLink link) : link_(std::move(link)) {}
  std::optional<FrameBytes> Receive() override { return link_.receiver->Receive(); }
  void Close() override {
    link_.receiver->Close();
    link_.sender->Close();
  }

 private:
  StreamLink link_;
};

}  // namespace

StreamLink MakeStreamLink(int fd, std::size_t frame_bytes_max) {
  SHOAL_CHECK(fd >= 0 && frame_bytes_max >= kFrameHeaderBytes && frame_bytes_max <= kFrameBytesMax);
  const auto socket = std::make_shared<Socket>(fd);
  return {std::make_unique<StreamSender>(socket), std::make_unique<StreamReceiver>(socket, frame_bytes_max)};
}

std::unique_ptr<FrameSender> SendingEnd(StreamLink link) { return std::make_unique<OneWaySender>(std::move(link)); }

std::unique_ptr<FrameReceiver> ReceivingEnd(StreamLink link) {
  return std::make_unique<OneWayReceiver>(std::move(link));
}

void LimitFirstFrames(FrameReceiver& receiver, int frames, std::chrono::milliseconds limit) {
  auto* stream = dynamic_cast<StreamReceiver*>(&receiver);
  SHOAL_CHECK(stream != nullptr && frames > 0);
  stream->LimitFirst(frames, limit);
}

bool EndedCleanly(const FrameReceiver& receiver) {
  const auto* stream = dynamic_cast<const StreamReceiver*>(&receiver);
  SHOAL_CHECK(stream != nullptr);
  return stream->ended_cleanly();
}

}  // namespace shoal
