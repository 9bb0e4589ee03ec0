package event

import "reflect"

// A Type is a type of events.
type Type struct {
	Name    string       // the attribute type, such as com.ticketing.user.signedup.v1
	Source  string       // the attribute source; empty if other services send the events
	Summary string       // one sentence for the event reference
	Data    reflect.Type // the payload, a struct; nil if it is not declared
}

// Define declares a type of events with the payload Data. The name ends with a version. Each
// later version of Data must be readable by the consumers of the first. An incompatible change
// needs another name.
//
// If other services send the events, as requests to this system, source is empty. Members of
// Data with a pointer type need omitzero or omitempty, because null is no value of a payload.
func Define[Data any](name, source, summary string) *Type {
	return &Type{Name: name, Source: source, Summary: summary, Data: reflect.TypeFor[Data]()}
}

// Untyped declares a type without a payload, or with one that another system defines, such as
// the types of Knative's sources. Nothing checks its payload.
func Untyped(name, summary string) *Type { return &Type{Name: name, Summary: summary} }

// Ping is the type of the events of Knative's PingSource. It is fixed. A function that takes it
// runs at an interval.
var Ping = Untyped("dev.knative.sources.ping", "A PingSource of Knative triggers a run, such as that of the relay. The data is ignored.")

// Schema returns the attribute dataschema of the events with this type name. It is the $id of
// the published JSON schema.
//
// CloudEvents requires an absolute URI. A tag URI (RFC 4151) identifies the schema, and does
// not depend on the host that serves it. A consumer that does not know it has nothing to
// request, so no other host can supply a false schema.
func Schema(name string) string { return "tag:ticketing.com,2026:" + SchemaPath(name) }

// SchemaPath returns the path of the JSON schema on the host that serves it.
func SchemaPath(name string) string { return "/schemas/" + name + ".json" }
