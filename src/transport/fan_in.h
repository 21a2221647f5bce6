// Several senders into one link: the stages of a placement report results and failures to one head.
#pragma once

#include <memory>
#include <vector>

#include "transport/transport.h"

namespace shoal {

// `count` senders that share `sender`. Frames of one sender keep their order. The link closes once all have closed (or
// are destroyed). Each may be used by a thread of its own.
std::vector<std::unique_ptr<FrameSender>> FanIn(std::unique_ptr<FrameSender> sender, std::size_t count);

}  // namespace shoal
