// Package database holds the connection to MongoDB, one for each process, made at its first
// use. It classifies errors into those that a retry may avoid and the others. Packages user
// and ratelimit define the documents.
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
)

// wait is how long a database that does not answer is waited for. It lies below
// the budget of a request, so that the caller gets an honest 503.
const wait = 3 * time.Second

// A Connection is to one database. It is safe for concurrent use.
type Connection struct {
	uri string

	mu      sync.Mutex
	client  *mongo.Client
	ongoing chan struct{} // closed when the attempt to connect is over
	failed  error         // how that went
}

// New returns a connection to what a connection string names, the database users
// where it names none. It dials no server. Its errors never quote the string.
func New(uri string) (*Connection, error) {
	if err := checkURI(uri); err != nil {
		return nil, err
	}
	return &Connection{uri: uri}, nil
}

// Collection returns a collection, or a fault.Away.
func (c *Connection) Collection(ctx context.Context, name string) (*mongo.Collection, error) {
	client, err := c.connected(ctx)
	if err != nil {
		return nil, apierror.Unreachable(fmt.Errorf("connect: %w", err))
	}
	return client.Database(databaseName(c.uri)).Collection(name), nil
}

// connected returns the client. Making one dials no server, but for a mongodb+srv:// string
// it queries the DNS, without a time limit. So all requests wait for one attempt, each no
// longer than its own limit, and the next request after a failure tries again.
func (c *Connection) connected(ctx context.Context) (*mongo.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c.mu.Lock()
	if c.client == nil && c.ongoing == nil {
		c.ongoing = make(chan struct{})
		go c.connect()
	}
	client, ongoing := c.client, c.ongoing
	c.mu.Unlock()
	if client != nil {
		return client, nil
	}
	select {
	case <-ongoing:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client, c.failed
}

func (c *Connection) connect() {
	client, err := mongo.Connect(clientOptions(c.uri))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client, c.failed = client, err
	close(c.ongoing)
	c.ongoing = nil
}

// Close closes the connection, if there is one. It waits for commands in flight, and for
// a database that does not reply, no longer than the context allows or wait.
func (c *Connection) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return c.client.Disconnect(ctx)
}

// clientOptions returns the project's defaults, overridden by the connection string.
func clientOptions(uri string) *options.ClientOptions {
	return options.Client().
		// The pool dials while the driver still looks for the primary: a cold request
		// costs three round trips instead of five.
		SetMinPoolSize(1).
		// The commands of one request share a connection instead of dialing one each
		// at the same time. A cold sign-in opens two.
		SetMaxConnecting(1).
		// Below the four minutes after which the first load balancers drop an idle
		// connection.
		SetMaxConnIdleTime(3 * time.Minute).
		SetServerSelectionTimeout(wait).
		SetConnectTimeout(wait).
		// What was acknowledged, and what was read and acted on, must survive a
		// failover.
		SetWriteConcern(writeconcern.Majority()).
		SetReadConcern(readconcern.Majority()).
		ApplyURI(uri).
		SetDialer(newDialer()).
		SetMonitor(paced()).
		// A heartbeat that streams is silent for ten seconds, which a conn would take
		// for a lost connection. Polling also needs one connection less.
		SetServerMonitoringMode(options.ServerMonitoringModePoll)
}

// checkURI finds what can be known to be wrong before anything is dialled. Its
// errors never quote the string: it may hold a password.
func checkURI(uri string) error {
	cs, err := parse(uri)
	switch {
	case err != nil || strings.ContainsFunc(uri, isInvisible):
		return errors.New("is not a connection string (mongodb://host[:port]/database)")
	case weakens(cs):
		return errors.New("asks for something else than is needed: what was acknowledged must not be lost, and a sign-out must be seen (w=majority, journal, readConcernLevel=majority, readPreference=primary)")
	case strings.ContainsAny(cs.Database, `/\. "$*<>:|?`) || strings.ContainsFunc(cs.Database, isInvisible):
		return errors.New("names a database that MongoDB does not allow")
	case !isSRV(uri) && clientOptions(uri).Validate() != nil: // of the other kind this would ask the DNS
		return errors.New("has an option or a host that the driver does not accept")
	}
	return nil
}

// isInvisible reports whether a character is white space or a control character. No
// connection string and no name of a database contains one.
func isInvisible(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }

// weakens reports whether a connection string relaxes what clientOptions set.
func weakens(cs *connstring.ConnString) bool {
	w := cs.WString != "" && cs.WString != "majority" || cs.WNumberSet
	journal := cs.JSet && !cs.J
	concern := cs.ReadConcernLevel != "" && cs.ReadConcernLevel != "majority" && cs.ReadConcernLevel != "linearizable"
	preference := cs.ReadPreference != "" && !strings.EqualFold(cs.ReadPreference, "primary")
	return w || journal || concern || preference
}

// databaseName is the path of a connection string that was checked.
func databaseName(uri string) string {
	cs, err := parse(uri)
	if err != nil {
		return ""
	}
	return cmp.Or(cs.Database, "users")
}

// parse reads a connection string without asking the DNS, as the driver would of
// a mongodb+srv:// one.
func parse(uri string) (*connstring.ConnString, error) {
	if isSRV(uri) {
		uri = strings.Replace(uri, connstring.SchemeMongoDBSRV, connstring.SchemeMongoDB, 1)
	}
	return connstring.Parse(uri)
}

func isSRV(uri string) bool { return strings.HasPrefix(uri, connstring.SchemeMongoDBSRV+"://") }
