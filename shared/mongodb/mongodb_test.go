package mongodb_test

import (
	"strings"
	"testing"

	"ticketing.com/auth/shared/mongodb"
)

func TestNew_ConnectionStrings(t *testing.T) {
	for _, c := range []struct{ uri, want string }{
		{"mongodb://127.0.0.1", ""},
		{"mongodb://a:27017,b:27018,c/tickets?replicaSet=rs0", ""},
		{"mongodb://u:p%40ss@db.example/users?authSource=admin&tls=true", ""},
		{"mongodb+srv://u:secret@cluster.example/users?retryWrites=true", ""},
		{"", "is not a connection string"},
		{"postgres://secret@db", "is not a connection string"},
		{"mongodb://u:secret@", "is not a connection string"},
		{"mongodb://u:se cret:x@db:port/", "is not a connection string"},
		{"mongodb://db/secret.name", "names a database"},
		{"mongodb://db/users?tls=secret", "is not a connection string"},
		{"mongodb://a,b/?directConnection=true", "has an option"},
		{"mongodb://u:secret@db/users\n", "is not a connection string"},
		{"mongodb://u:secret@db/users\r\n", "is not a connection string"},
		{"mongodb://u:secret@db/users ", "is not a connection string"},
		{"\tmongodb://u:secret@db/users", "is not a connection string"},
		{"mongodb://u:secret@db/us\x00ers", "is not a connection string"},
		{"mongodb://u:secret@db/users?tls=true\n", "is not a connection string"},
		{"mongodb://u:secret@db/users%0A", "names a database"},
		{"mongodb://u:secret@db/users%C2%A0", "names a database"},
		{"mongodb+srv://u:secret@cluster.example/users?w=majority&readPreference=primary&readConcernLevel=majority", ""},
		{"mongodb+srv://u:secret@cluster.example/users?w=1", "sets a weaker guarantee"},
		{"mongodb://u:secret@db/?w=majority&journal=false", "sets a weaker guarantee"},
		{"mongodb://u:secret@db/?readPreference=secondaryPreferred", "sets a weaker guarantee"},
		{"mongodb://u:secret@db/?readConcernLevel=local", "sets a weaker guarantee"},
	} {
		_, err := mongodb.New(c.uri)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: got error %v, want one with %q and without the password", c.uri, err, c.want)
		}
	}
}
