// Between what the cluster knows and what people read and type. Pure.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "api/control_service.h"
#include "base/result.h"
#include "cluster/cluster.h"
#include "identity/certificate.h"
#include "identity/state_files.h"
#include "node/answer_streams.h"
#include "node/model_library.h"
#include "node/stage_host.h"

namespace shoal {

ClusterStatus StatusOf(const Cluster& cluster, const NodeId& cluster_id);
PlacementStatus StatusOf(const Cluster& cluster, const PlacementView& view);

// Whether no other member is here.
bool IsAlone(const Cluster& cluster);
// The other members that are here, as AnswerStreams wants to know them, with how many of `placements` each could run.
std::vector<AnswerMember> AnswerMembersOf(const Cluster& cluster, const std::vector<PlacementView>& placements);

// The member that a person means by a name, a peer id or the last characters of one. Errors: kNotFound,
// kInvalidArgument (two have the name).
Result<NodeId> FindMember(const Cluster& cluster, const std::string& text);
// The same of all members that there are, and of `known`, which may be gone for long: none gives way to a namesake, but
// for those that are thrown out.
Result<NodeId> FindMember(const Cluster& cluster, const KnownMembers& known, const std::vector<Revocation>& revoked,
                          const std::string& text);

// Errors: kNotFound (no member holds the model, no such node), kInvalidArgument.
Result<PlaceRequest> RequestOf(const Cluster& cluster, const PlaceCommand& command);

// What the placements give whose heads are here; whether others should be told what they were not; and of those of
// `status` that are among them, as of now.
std::vector<ObservedPlacement> ObservedOf(const std::vector<StageHost::Work>& works);
bool IsNews(const std::vector<ObservedPlacement>& now, const std::vector<ObservedPlacement>& told);
void PutObserved(const std::vector<ObservedPlacement>& observed, ClusterStatus& status);

// How often a draft has to be right for who should not work in vain: nine times in ten on its battery; more than always
// while it rests for its heat.
std::map<NodeId, double> DraftChancesOf(const Cluster& cluster);

using MembersWithNames = std::vector<std::pair<NodeId, std::string>>;
// The other members that are here and not in doubt.
MembersWithNames MembersHere(const Cluster& cluster);
// What other members hold under a name that `own` does not have.
std::vector<ModelHolding> UnknownModels(const Cluster& cluster, const std::vector<ModelHolding>& own);
// All of a file's weights.
HeldWeights WholeModel(const ModelFile& file);
// What this node tells of its models, with what of each is here; at most as much as fits.
std::vector<ModelHolding> HoldingsOf(const std::vector<std::pair<LibraryModel, HeldWeights>>& models);

}  // namespace shoal
