// What a process made for a device does: opens what the node names, computes what it sends, ends when the node does.
#pragma once

namespace shoal {

// Serves the node at the other end of `socket`, kOffloadDescriptor of a process that offload/process.h started; to be
// called before anything else is done in the process. Returns the exit code.
int ServeOffload(int socket);

}  // namespace shoal
