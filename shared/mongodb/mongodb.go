// Package mongodb holds the connection to MongoDB. Each process has one connection and opens
// it at the first use. The package also reports whether a retry may avoid an error. Packages
// user and ratelimit define the documents.
package mongodb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/telemetry"
)

// connectTimeout bounds the wait for a database that does not reply. It is below the budget
// of a request, so the client receives a 503 response and no timeout.
const connectTimeout = 3 * time.Second

// MaxPoolSize is the largest number of connections to a server that run commands. One more polls the
// server. maxPoolSize in the connection string overrides it.
const MaxPoolSize = 20

// A Connection is a connection to one server or cluster. It is safe for concurrent use.
type Connection struct {
	uri       string
	telemetry *telemetry.Telemetry

	mu      sync.Mutex
	client  *mongo.Client
	pending chan struct{} // closed when the attempt to connect ends
	err     error         // of the last attempt
}

// New returns a connection. The connection string may name a database (see Collection). It
// dials no server. Its errors never quote the string: it may hold a password.
func New(uri string) (*Connection, error) {
	if err := checkURI(uri); err != nil {
		return nil, err
	}
	return &Connection{uri: uri}, nil
}

// Collection returns a collection. Its error is an apierror.Away.
func (c *Connection) Collection(ctx context.Context, declared *endpoint.Collection) (*mongo.Collection, error) {
	client, err := c.connected(ctx)
	if err != nil {
		return nil, apierror.Unreachable(fmt.Errorf("connect: %w", err))
	}
	return client.Database(databaseOf(c.uri, declared)).Collection(declared.Name), nil
}

// connected returns the client. Creating the client dials no server, but a mongodb+srv://
// string causes a DNS query that has no timeout. So all requests share one attempt, and each
// waits until its own deadline. The next request after a failure starts another attempt.
func (c *Connection) connected(ctx context.Context) (*mongo.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c.mu.Lock()
	if c.client == nil && c.pending == nil {
		c.pending = make(chan struct{})
		go c.connect()
	}
	client, pending := c.client, c.pending
	c.mu.Unlock()
	if client != nil {
		return client, nil
	}
	select {
	case <-pending:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client, c.err
}

func (c *Connection) connect() {
	o := clientOptions(c.uri)
	if c.telemetry.On() {
		o.SetMonitor(traceCommands(c.telemetry, o.Monitor))
	}
	client, err := mongo.Connect(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.err = client, err
	close(c.pending)
	c.pending = nil
}

// Close closes the connection if it is open. It waits for commands in flight, at most until
// the deadline of the context and at most connectTimeout.
func (c *Connection) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return c.client.Disconnect(ctx)
}

// clientOptions returns the project's defaults, overridden by the connection string.
func clientOptions(uri string) *options.ClientOptions {
	return options.Client().
		// The pool dials while the driver still selects the primary. A cold request then
		// costs three round trips instead of five.
		SetMinPoolSize(1).
		SetMaxPoolSize(MaxPoolSize).
		// The concurrent commands of one request share a connection instead of dialing
		// one each. A cold sign-in opens two.
		SetMaxConnecting(1).
		// Some load balancers drop a connection that was idle for four minutes.
		SetMaxConnIdleTime(3 * time.Minute).
		SetServerSelectionTimeout(connectTimeout).
		SetConnectTimeout(connectTimeout).
		// A failover must not lose an acknowledged write, or data that a function has
		// read and acted on.
		SetWriteConcern(writeconcern.Majority()).
		SetReadConcern(readconcern.Majority()).
		ApplyURI(uri).
		SetDialer(newDialer()).
		SetMonitor(retryMonitor()).
		// A streaming heartbeat sends nothing for ten seconds, so a conn would treat it as
		// lost. Polling also needs one connection less.
		SetServerMonitoringMode(options.ServerMonitoringModePoll)
}

// checkURI returns the errors of a connection string that can be found without dialing a
// server. They never quote the string: it may hold a password.
func checkURI(uri string) error {
	cs, err := parse(uri)
	switch {
	case err != nil || strings.ContainsFunc(uri, isInvisible):
		return errors.New("is not a connection string (mongodb://host[:port]/database)")
	case weakens(cs):
		return errors.New("sets a weaker guarantee than w=majority, journal=true, readConcernLevel=majority and readPreference=primary: a failover could lose an acknowledged write, or a read could miss a sign-out")
	case strings.ContainsAny(cs.Database, `/\. "$*<>:|?`) || strings.ContainsFunc(cs.Database, isInvisible):
		return errors.New("names a database that MongoDB does not allow")
	case !isSRV(uri) && clientOptions(uri).Validate() != nil: // Validate queries the DNS for an SRV string
		return errors.New("has an option or a host that the driver does not accept")
	}
	return nil
}

// isInvisible reports whether a character is white space or a control character. Connection
// strings and database names contain none.
func isInvisible(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }

// weakens reports whether a connection string sets a weaker read or write concern than
// clientOptions.
func weakens(cs *connstring.ConnString) bool {
	w := cs.WString != "" && cs.WString != "majority" || cs.WNumberSet
	journal := cs.JSet && !cs.J
	concern := cs.ReadConcernLevel != "" && cs.ReadConcernLevel != "majority" && cs.ReadConcernLevel != "linearizable"
	preference := cs.ReadPreference != "" && !strings.EqualFold(cs.ReadPreference, "primary")
	return w || journal || concern || preference
}

// defaultDatabase is the database of a connection string that names none.
const defaultDatabase = "users"

// databaseOf returns the database of a collection. It is the declared one, unless the connection
// string names another one than users. Then a collection declared in users is in that one, and
// a collection declared in tickets is in that one with the suffix _tickets. So each test, and
// each system on a shared server, has databases of its own.
func databaseOf(uri string, declared *endpoint.Collection) string {
	name := databaseName(uri)
	switch {
	case declared.Database == defaultDatabase:
		return name
	case name == defaultDatabase:
		return declared.Database
	}
	return name + "_" + declared.Database
}

// databaseName returns the database of a connection string that checkURI has accepted.
func databaseName(uri string) string {
	cs, err := parse(uri)
	if err != nil {
		return ""
	}
	return cmp.Or(cs.Database, defaultDatabase)
}

// parse parses a connection string. Unlike the driver, it does not query the DNS for a
// mongodb+srv:// string.
func parse(uri string) (*connstring.ConnString, error) {
	if isSRV(uri) {
		uri = strings.Replace(uri, connstring.SchemeMongoDBSRV, connstring.SchemeMongoDB, 1)
	}
	return connstring.Parse(uri)
}

func isSRV(uri string) bool { return strings.HasPrefix(uri, connstring.SchemeMongoDBSRV+"://") }
