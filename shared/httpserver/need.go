package httpserver

import "ticketing.com/auth/shared/endpoint"

// Serving is the need of every function. Package receiver reads further settings if EVENTS
// is on.
var Serving = endpoint.Need{Settings: []string{"LOG_LEVEL", "CORS_ALLOWED_ORIGINS", "EVENTS", "OTEL_EXPORTER_OTLP_ENDPOINT"}}
