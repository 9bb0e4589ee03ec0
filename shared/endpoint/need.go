package endpoint

import "ticketing.com/auth/shared/events/event"

// A Need is something that a function needs from its deployment. The packages that need it
// declare it, the functions list it, and the generators read it. Only the fields that apply
// are set.
type Need struct {
	Secret   *Secret
	Settings []string // the names of settings that have a default
	Grant    *Grant

	Publishes []*event.Type // the types of the events that it sends to a sink

	Hashes      bool // a request computes a password hash: it is CPU-bound and needs its memory
	ReadsClient bool // a limit depends on the client address, so on the number of proxies
	NeedsSink   bool // has no work without a sink
	Mails       bool // a request waits for a mail server, which limits its clients
}

// A Secret is a required setting with a value that the operator creates once.
type Secret struct {
	Setting  string        // the environment variable
	Name     string        // the Kubernetes Secret
	Key      string        // the key in it
	Public   bool          // the value is not confidential
	Optional bool          // a process with all functions omits those that need it if it is not set
	Sample   func() string // returns a valid value, for the generators
}

// A Collection is a collection of MongoDB as the package that owns it declares it.
type Collection struct {
	Database string
	Name     string
	Indexes  []Index
	Former   []string // the names of indexes of earlier versions, which are dropped
}

// An Index is an index of a collection.
type Index struct {
	Keys    []string // the paths of the members, all in ascending order
	Unique  bool     // at most one document has each value
	Partial bool     // only documents with the first member have an entry
	Expires bool     // the server deletes a document at the time in the first member
}

// An Action is a right on the documents of a collection. The values are those of MongoDB's
// privilege actions.
type Action string

// The actions.
const (
	Find   Action = "find"
	Insert Action = "insert"
	Update Action = "update"
	Remove Action = "remove"
)

// A Grant is a right on a collection.
type Grant struct {
	*Collection
	Actions []Action
}

// Grant returns the need of a right on the collection.
func (c *Collection) Grant(actions ...Action) Need { return Need{Grant: &Grant{c, actions}} }
