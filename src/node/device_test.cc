// What a node is called that nobody named.
#include "node/device.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

NodeId Id(std::uint8_t byte) {
  NodeId id;
  id.bytes.fill(byte);
  return id;
}

TEST(NodeName, IsTheDevicesOwn) { EXPECT_EQ(NodeName("laptop", "ThinkPad X1", Id(0x3f)), "laptop"); }

// Every Android calls itself "localhost".
TEST(NodeName, OfAPhoneIsItsKindAndSomeDigits) {
  EXPECT_EQ(NodeName("localhost", "Google Pixel 8", Id(0x3f)), "Google-Pixel-8-3f3f");
  EXPECT_EQ(NodeName("localhost", "Google Pixel 8", Id(0xa1)), "Google-Pixel-8-a1a1");
  EXPECT_EQ(NodeName("localhost", "", Id(0x3f)), "node-3f3f");
  EXPECT_EQ(NodeName("", "", Id(0x3f)), "node-3f3f");
}

TEST(NodeName, ThatAllOfAKindHaveGetsSomeDigits) {
  EXPECT_EQ(NodeName("raspberrypi", "Raspberry Pi 5", Id(0x3f)), "raspberrypi-3f3f");
}

TEST(NodeName, OfThisDeviceIsThere) { EXPECT_FALSE(NodeName(Id(1)).empty()); }

}  // namespace
}  // namespace shoal
