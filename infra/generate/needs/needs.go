// Package needs combines the needs that a function lists. The generators of the manifests and
// templates read the result. A test compares it with the settings that the function reads.
package needs

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/httpserver"
)

// Needs are the needs of one or more functions.
type Needs struct {
	Secrets  []endpoint.Secret // sorted by setting
	Grants   []endpoint.Grant  // one for each collection
	Optional []string          // settings with a default, sorted

	Publishes []*event.Type // in the order of their first use

	Hashes, ReadsClient bool
	Events              bool // no work without events
	Sink                bool // no work without a sink
	Mails               bool
}

// Of returns the combined needs of functions.
func Of(functions ...endpoint.Function) Needs {
	n := Needs{Optional: slices.Clone(httpserver.Serving.Settings)}
	for _, f := range functions {
		n.Events = n.Events || len(f.Endpoints) == 0
		for _, need := range f.Needs {
			n.add(need)
		}
	}
	slices.SortFunc(n.Secrets, func(a, b endpoint.Secret) int { return strings.Compare(a.Setting, b.Setting) })
	slices.Sort(n.Optional)
	n.Optional = slices.Compact(n.Optional)
	return n
}

func (n *Needs) add(need endpoint.Need) {
	if s := need.Secret; s != nil && !slices.ContainsFunc(n.Secrets, func(o endpoint.Secret) bool { return o.Setting == s.Setting }) {
		n.Secrets = append(n.Secrets, *s)
	}
	if g := need.Grant; g != nil {
		n.grant(*g)
	}
	n.Optional = append(n.Optional, need.Settings...)
	n.Hashes = n.Hashes || need.Hashes
	n.ReadsClient = n.ReadsClient || need.ReadsClient
	n.Publishes = with(n.Publishes, need.Publishes...)
	n.Sink = n.Sink || need.NeedsSink
	n.Mails = n.Mails || need.Mails
}

// grant adds the actions of a grant. They are sorted, without duplicates.
func (n *Needs) grant(g endpoint.Grant) {
	i := slices.IndexFunc(n.Grants, func(o endpoint.Grant) bool { return o.Collection == g.Collection })
	if i < 0 {
		i, n.Grants = len(n.Grants), append(n.Grants, endpoint.Grant{Collection: g.Collection})
	}
	all := append(slices.Clone(n.Grants[i].Actions), g.Actions...)
	slices.Sort(all)
	n.Grants[i].Actions = slices.Compact(all)
}

// with returns types and those of more that are not among them.
func with(types []*event.Type, more ...*event.Type) []*event.Type {
	for _, t := range more {
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

// EventTypes returns all types of events that functions publish, take or reply with, in this
// order.
func EventTypes(functions ...endpoint.Function) []*event.Type {
	all := Of(functions...).Publishes
	var replies []*event.Type
	for _, f := range functions {
		for _, r := range f.Receivers {
			all = with(all, r.Types...)
			for _, reply := range []*event.Type{r.Reply, r.Refusal} {
				if reply != nil {
					replies = append(replies, reply)
				}
			}
		}
	}
	return with(all, replies...)
}

// UsesDatabase reports whether the functions have a database user.
func (n Needs) UsesDatabase() bool { return len(n.Grants) > 0 }

// Collections returns all collections of functions, in the order of their first use.
func Collections(functions ...endpoint.Function) (all []*endpoint.Collection) {
	for _, g := range Of(functions...).Grants {
		all = append(all, g.Collection)
	}
	return all
}

// Required returns the names of the settings without which the functions do not start, sorted.
func (n Needs) Required() []string {
	var all []string
	for name := range n.Samples() {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Samples returns a valid value of each required setting. A test replaces those of the keys and of
// the database.
func (n Needs) Samples() map[string]string {
	values := map[string]string{}
	for _, s := range n.Secrets {
		values[s.Setting] = s.Sample()
	}
	if n.UsesDatabase() {
		values["MONGODB_URI"] = "mongodb://localhost"
	}
	if n.Sink {
		values["K_SINK"] = "http://localhost"
	}
	if n.Events {
		values["EVENTS"] = "on"
	}
	return values
}

// Handler returns the HTTP handler of a function with sample settings. It answers as the function
// does, as long as a request needs no database and no sink.
func Handler(f endpoint.Function) (http.Handler, error) {
	values := Of(f).Samples()
	values["RATE_LIMIT"] = "off" // rate limits need the database
	h, _, err := bind(f, values)
	return h, err
}

// bind constructs a function as its process does, and returns the names of the settings that it
// read. It opens no connection.
func bind(f endpoint.Function, given map[string]string) (h http.Handler, read []string, err error) {
	lookup := func(name string) (string, bool) {
		read = append(read, name)
		value, set := given[name]
		return value, set
	}
	cfg := config.New(lookup, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	h = httpserver.Handler(cfg, f)
	return h, read, cfg.Err()
}
