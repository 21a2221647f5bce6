// Names, help texts and histogram bounds.
#include "api/metrics.h"

namespace shoal {

ApiMetrics::ApiMetrics(MetricsRegistry& registry)
    : prompt_tokens(registry.GetCounter("shoal_prompt_tokens_total", "Prompt tokens of accepted requests.")),
      cached_tokens(registry.GetCounter("shoal_prompt_cached_tokens_total", "Prompt tokens that came from the cache.")),
      completion_tokens(registry.GetCounter("shoal_completion_tokens_total", "Tokens generated for clients.")),
      disconnects(
          registry.GetCounter("shoal_client_disconnects_total", "Clients that left before their answer ended.")),
      requests_in_flight(registry.GetGauge("shoal_requests_in_flight", "Completions being answered now.")),
      connections(registry.GetGauge("shoal_http_connections", "Open HTTP connections.")),
      first_token_seconds(registry.GetHistogram("shoal_time_to_first_token_seconds",
                                                "From a request's arrival to its first token.",
                                                {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60})),
      request_seconds(registry.GetHistogram("shoal_request_seconds", "From a request's arrival to its answer's end.",
                                            {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300})),
      registry_(registry) {}

void ApiMetrics::CountRequest(const std::string& route, int status) {
  registry_
      .GetCounter("shoal_http_requests_total", "HTTP requests by route and status.",
                  "route=\"" + route + "\",status=\"" + std::to_string(status) + "\"")
      .Add();
}

}  // namespace shoal
