package knative

import (
	"errors"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/endpoint"
)

// Material is what the Secrets are made of.
type Material struct {
	Signing, Verifying []byte                   // JWK Sets
	Password           func(user string) string // of a database user; letters and digits
	// MongoDB is the URI of a database of one's own, without user and password. Where
	// it is empty, the database is that of infra/knative/mongodb.
	MongoDB string
}

// inside is the one member of the replica set in infra/knative/mongodb.
const inside = "mongodb-0.mongodb." + Namespace + ".svc.cluster.local:27017"

// A credential is a Secret with its values.
type credential struct {
	Name string
	Data map[string]string
}

var secrets = page("secrets.yaml.tmpl")

// Secrets renders the Secrets that the manifests name: the two key sets, the address
// of the database for each of its users, and what makes these users.
func Secrets(functions []endpoint.Endpoint, m Material) ([]byte, error) {
	address, err := m.address()
	if err != nil {
		return nil, err
	}
	all := []credential{
		{"signing-keys", map[string]string{"signing.jwks": string(m.Signing)}},
		{"verifying-keys", map[string]string{"verifying.jwks": string(m.Verifying)}},
	}
	passwords := map[string]string{}
	users, err := databaseUsers(functions)
	if err != nil {
		return nil, err
	}
	for _, user := range users {
		passwords[user] = m.Password(user)
		all = append(all, credential{"mongodb-" + user, map[string]string{"uri": address(user)}})
	}
	listed, err := json.Marshal(passwords, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	server := map[string]string{"passwords": string(listed)}
	if m.MongoDB == "" {
		server["root"] = m.Password("root")
		server["keyfile"] = m.Password("keyfile")
		server["uri"] = "mongodb://root:" + m.Password("root") + "@" + inside + "/admin?directConnection=true"
	}
	all = append(all, credential{"mongodb", server})

	return fill(secrets, all)
}

// databaseUsers are the services that need a database, and migrate.
func databaseUsers(functions []endpoint.Endpoint) (users []string, err error) {
	all, err := everyService(functions)
	for _, s := range all {
		for _, secret := range s.Secrets {
			if secret.Setting == "MONGODB_URI" {
				users = append(users, s.Name)
			}
		}
	}
	return append(users, "migrate"), err
}

// address returns how a user's URI is made. Users are kept in the database that they
// use, the one that the URI names.
func (m Material) address() (of func(user string) string, err error) {
	if m.MongoDB == "" {
		return func(user string) string {
			return "mongodb://" + user + ":" + m.Password(user) + "@" + inside + "/users?replicaSet=rs0"
		}, nil
	}
	scheme, rest, ok := strings.Cut(m.MongoDB, "://")
	if !ok || scheme != "mongodb" && scheme != "mongodb+srv" || rest == "" {
		return nil, errors.New("the database's URI must begin with mongodb:// or mongodb+srv:// and a host")
	}
	hosts, path, _ := strings.Cut(rest, "/")
	if strings.Contains(hosts, "@") {
		return nil, errors.New("the database's URI must name no user: each function gets its own")
	}
	if name, _, _ := strings.Cut(path, "?"); name != "users" { // where users.js makes them
		return nil, errors.New("the database's URI must name the database users: …/users")
	}
	return func(user string) string {
		return scheme + "://" + url.UserPassword(user, m.Password(user)).String() + "@" + rest
	}, nil
}
