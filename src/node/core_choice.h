// Which cores a stage's threads run on when nobody said: the prime and performance cores of a big.LITTLE chip.
//
// Every operation waits for its slowest thread, so efficiency cores only slow a stage down; they are left to the
// network and to HTTP. Where all cores are alike, or nothing says which is which, the system decides where, and there
// is one thread a core: a second one on the same core has no units of its own to multiply with.
#pragma once

#include <vector>

#include "device/profile.h"
#include "engine/engine.h"

namespace shoal {

// Fills `cpus` and `threads` of one stage that has this machine to itself. Leaves them as they are when `cpus` are
// given. `cpus` stay empty where the device has no efficiency cores beside others. Unless `threads_given`, `threads`
// become at most those that its speed is measured with (SpeedCpus).
void ChooseCores(const DeviceProfile& profile, bool threads_given, EngineOptions& options);
// Of several stages that share this machine: each has fast cores of its own, as evenly as they can be dealt. Where
// there are fewer of them than stages, or threads are given, the system decides.
void ChooseCores(const DeviceProfile& profile, bool threads_given, std::vector<EngineOptions>& stages);

// The cores for threads that mostly wait (network, HTTP, the loop): the efficiency cores, where there are others beside
// them. Empty: any.
std::vector<int> WaitingCpus(const DeviceProfile& profile);

}  // namespace shoal
