// The log against a map that knows everything that was written: rewinds, copies, and which rows a limit costs.
#include "stage/sent_log.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "runtime/rng.h"

namespace shoal {
namespace {

constexpr std::uint32_t kEmbd = 3;

std::vector<std::uint8_t> Values(std::uint8_t seed) {
  std::vector<std::uint8_t> values(kEmbd * 2);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint8_t>(seed * 7 + i);
  return values;
}

void Append(SentLog& log, SequenceId sequence, std::uint8_t seed) { log.Append(sequence, seed, Values(seed)); }

void ExpectRow(const SentLog& log, SequenceId sequence, Position position, std::uint8_t seed) {
  const auto row = log.Read(sequence, position);
  ASSERT_TRUE(row.has_value()) << sequence << " at " << position;
  EXPECT_EQ(row->exponent, seed);
  EXPECT_EQ(std::vector<std::uint8_t>(row->values.begin(), row->values.end()), Values(seed));
}

TEST(SentLogTest, ALimitCostsTheBeginnings) {
  SentLog log(2, kEmbd, WireType::kF16, 5);
  for (std::uint8_t i = 0; i < 4; ++i) Append(log, 0, i);
  EXPECT_EQ(log.From(0), 0);
  for (std::uint8_t i = 10; i < 13; ++i) Append(log, 1, i);
  EXPECT_EQ(log.Length(0), 4);
  EXPECT_EQ(log.From(0), 2);
  EXPECT_FALSE(log.Read(0, 1).has_value());
  ExpectRow(log, 0, 2, 2);
  ExpectRow(log, 1, 0, 10);
  EXPECT_FALSE(log.Read(1, 3).has_value());
  log.Rewind(0, 2);  // what is left of it was gone already
  EXPECT_EQ(log.From(0), 2);
  Append(log, 0, 20);
  ExpectRow(log, 0, 2, 20);
  EXPECT_EQ(log.From(0), 2);
  EXPECT_LE(log.bytes(), SentLog::Bytes(5, kEmbd, WireType::kF16));
}

TEST(SentLogTest, CopiesShareTheirRows) {
  SentLog log(3, kEmbd, WireType::kF16, 4);
  for (std::uint8_t i = 0; i < 4; ++i) Append(log, 0, i);
  log.Copy(0, 1, 3);
  log.Copy(0, 2, 9);
  EXPECT_EQ(log.Length(2), 4);
  log.Rewind(0, 0);
  ExpectRow(log, 1, 2, 2);
  ExpectRow(log, 2, 3, 3);
  log.Rewind(2, 1);
  Append(log, 2, 9);  // in the room of the fourth row, which nobody has any more
  ExpectRow(log, 2, 1, 9);
  EXPECT_EQ(log.From(1), 0);
  EXPECT_EQ(log.From(2), 0);
}

TEST(SentLogTest, RandomHistoriesKeepWhatTheLimitAllows) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    const auto rows_max = static_cast<std::int64_t>(1 + rng.Below(150));
    SentLog log(4, kEmbd, WireType::kF16, rows_max);
    struct Written {
      std::uint64_t number = 0;
      std::uint8_t seed = 0;
    };
    std::vector<std::vector<Written>> expected(4);
    std::uint64_t written = 0;
    for (int step = 0; step < 400; ++step) {
      const auto sequence = static_cast<SequenceId>(rng.Below(4));
      auto& mine = expected[static_cast<std::size_t>(sequence)];
      if (rng.Below(8) != 0) {
        const auto value = static_cast<std::uint8_t>(rng.Next());
        Append(log, sequence, value);
        mine.push_back({++written, value});
      } else if (rng.Below(2) == 0) {
        const auto length = static_cast<Position>(rng.Below(mine.size() + 1));
        log.Rewind(sequence, length);
        mine.resize(static_cast<std::size_t>(length));
      } else {
        const auto from = static_cast<SequenceId>((sequence + 1) % 4);
        const auto& source = expected[static_cast<std::size_t>(from)];
        const auto length = static_cast<Position>(rng.Below(source.size() + 1));
        log.Copy(from, sequence, length);
        mine.assign(source.begin(), source.begin() + length);
      }
      // Never more rows than allowed, and the rows_max that were written last are among them if they still count.
      for (SequenceId s = 0; s < 4; ++s) {
        const auto& rows = expected[static_cast<std::size_t>(s)];
        ASSERT_EQ(log.Length(s), static_cast<Position>(rows.size()));
        for (Position p = 0; p < log.Length(s); ++p) {
          const Written& row = rows[static_cast<std::size_t>(p)];
          const bool here = log.Read(s, p).has_value();
          ASSERT_EQ(here, p >= log.From(s)) << "seed " << seed;
          if (here) ExpectRow(log, s, p, row.seed);
          if (!here) { ASSERT_LE(row.number + static_cast<std::uint64_t>(rows_max), written) << "seed " << seed; }
        }
      }
      ASSERT_LE(log.bytes(), SentLog::Bytes(rows_max, kEmbd, WireType::kF16));
    }
  }
}

}  // namespace
}  // namespace shoal
