// A backend of ggml as a library, "faulty": it computes as the CPU does, and fails as the environment asks for, the way
// drivers of phones do. Loaded by tests alone.
//
// SHOAL_TEST_FAULT: "start" crashes when it is loaded; "wrong" gives nonsense; "compute" crashes in a computation once
// the file that SHOAL_TEST_FAULT_FILE names is there, "hang" never ends one from then on.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-impl.h"

namespace {

std::string Asked() {
  const char* fault = std::getenv("SHOAL_TEST_FAULT");
  return fault == nullptr ? "" : fault;
}

// As the system does it: a sanitizer's handler would make it an exit.
void Crash() {
  std::signal(SIGSEGV, SIG_DFL);
  std::raise(SIGSEGV);
}

bool IsTime() {
  const char* file = std::getenv("SHOAL_TEST_FAULT_FILE");
  return file == nullptr || ::access(file, F_OK) == 0;
}

ggml_backend_dev_t Cpu() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

// ---- A stream of work: the CPU's, between faults -------------------------------------------------------------------

ggml_backend_t Inner(ggml_backend_t backend) { return static_cast<ggml_backend_t>(backend->context); }

ggml_status Compute(ggml_backend_t backend, ggml_cgraph* graph) {
  const std::string fault = Asked();
  if (fault == "compute" && IsTime()) Crash();
  while (fault == "hang" && IsTime()) ::pause();
  const ggml_status status = ggml_backend_graph_compute(Inner(backend), graph);
  if (fault == "wrong" && graph->n_nodes > 0) {
    ggml_tensor* last = graph->nodes[graph->n_nodes - 1];
    for (std::int64_t i = 0; last->type == GGML_TYPE_F32 && i < ggml_nelements(last); ++i) {
      static_cast<float*>(last->data)[i] = static_cast<float>(i % 7) - 3.0F;
    }
  }
  return status;
}

void Free(ggml_backend_t backend) {
  ggml_backend_free(Inner(backend));
  delete backend;
}

const char* Name(ggml_backend_t) { return "Faulty"; }

// ---- The one device -------------------------------------------------------------------------------------------------

ggml_backend_device* Device();

ggml_backend_buffer_type* Buffers() {
  static ggml_backend_buffer_type buffers = [] {
    ggml_backend_buffer_type copy = *ggml_backend_cpu_buffer_type();
    copy.iface.get_name = [](ggml_backend_buffer_type_t) { return "Faulty"; };
    copy.device = Device();
    return copy;
  }();
  return &buffers;
}

ggml_backend_t Start(ggml_backend_dev_t device, const char*) {
  static const ggml_guid guid = {0xfa, 0x01};
  auto* backend = new ggml_backend{};
  backend->guid = const_cast<ggml_guid_t>(&guid);
  backend->iface.get_name = Name;
  backend->iface.free = Free;
  backend->iface.graph_compute = Compute;
  backend->device = device;
  ggml_backend_t inner = ggml_backend_dev_init(Cpu(), nullptr);
  const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(Cpu()), "ggml_backend_set_n_threads"));
  if (set_threads != nullptr) set_threads(inner, 1);  // more would spin beside whatever else is tested
  backend->context = inner;
  return backend;
}

ggml_backend_device* Device() {
  static ggml_backend_device device = [] {
    ggml_backend_device made{};
    made.iface.get_name = [](ggml_backend_dev_t) { return "Faulty0"; };
    made.iface.get_description = [](ggml_backend_dev_t) { return "made to fail"; };
    made.iface.get_memory = [](ggml_backend_dev_t, size_t* free, size_t* total) { *free = *total = 0; };
    made.iface.get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    made.iface.get_props = [](ggml_backend_dev_t, ggml_backend_dev_props* props) {
      *props = {};
      props->name = "Faulty0";
      props->description = "made to fail";
      props->type = GGML_BACKEND_DEVICE_TYPE_GPU;
    };
    made.iface.init_backend = Start;
    made.iface.get_buffer_type = [](ggml_backend_dev_t) { return Buffers(); };
    made.iface.supports_op = [](ggml_backend_dev_t, const ggml_tensor* op) {
      return ggml_backend_dev_supports_op(Cpu(), op);
    };
    made.iface.supports_buft = [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
      return ggml_backend_buft_is_host(type);
    };
    return made;
  }();
  return &device;
}

ggml_backend_reg Registry() {
  ggml_backend_reg registry{};
  registry.api_version = GGML_BACKEND_API_VERSION;
  registry.iface.get_name = [](ggml_backend_reg_t) { return "Faulty"; };
  registry.iface.get_device_count = [](ggml_backend_reg_t) -> size_t { return 1; };
  registry.iface.get_device = [](ggml_backend_reg_t, size_t) { return Device(); };
  registry.iface.get_proc_address = [](ggml_backend_reg_t, const char*) -> void* { return nullptr; };
  return registry;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() {
  if (Asked() == "start") Crash();
  static ggml_backend_reg registry = Registry();
  Device()->reg = &registry;
  return &registry;
}
