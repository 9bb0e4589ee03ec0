package knative

import (
	"errors"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mail/smtp"
)

// Material holds the input of the Secrets.
type Material struct {
	Signing, Verifying []byte                   // JWK Sets
	Mail               []byte                   // keys of package confirmation
	SMTP               string                   // the URL of the mail server, with its password
	Password           func(user string) string // of a database user; letters and digits
	// MongoDB is the URI of an external database, without user and password. If it is
	// empty, the Secrets are for the database of infra/knative/mongodb.
	MongoDB string
}

// replicaSetMember is the only member of the replica set in infra/knative/mongodb.
const replicaSetMember = "mongodb-0.mongodb." + Namespace + ".svc.cluster.local:27017"

// A credential is a Secret with its values.
type credential struct {
	Name string
	Data map[string]string
}

var secrets = parse("secrets.yaml.tmpl")

// consumers are the services of the platform that may introspect tokens.
var consumers = []string{"orders", "payments", "tickets"}

// Secrets returns the Secrets that the manifests refer to: the two key sets, the keys and the
// server of mails, the services that may introspect tokens, with a Secret for each of them, the
// database URI of each database user, and the passwords for the job that creates these users.
func Secrets(functions []endpoint.Function, m Material) ([]byte, error) {
	address, err := m.address()
	if err != nil {
		return nil, err
	}
	var registered []string
	all := []credential{
		{"signing-keys", map[string]string{"signing.jwks": string(m.Signing)}},
		{"verifying-keys", map[string]string{"verifying.jwks": string(m.Verifying)}},
		{confirmation.Confirming.Secret.Name, map[string]string{confirmation.Confirming.Secret.Key: string(m.Mail)}},
		{smtp.Sending.Secret.Name, map[string]string{smtp.Sending.Secret.Key: m.SMTP}},
	}
	for _, consumer := range consumers {
		secret := consumer + ":" + m.Password("introspection by "+consumer)
		all = append(all, credential{"introspection-" + consumer, map[string]string{"secret": secret}})
		registered = append(registered, secret)
	}
	all = append(all, credential{"introspection-clients", map[string]string{"clients": strings.Join(registered, "\n")}})
	passwords := map[string]string{}
	for _, user := range databaseUsers(functions) {
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
		server["uri"] = "mongodb://root:" + m.Password("root") + "@" + replicaSetMember + "/admin?directConnection=true"
	}
	all = append(all, credential{"mongodb", server})

	return execute(secrets, all)
}

// databaseUsers returns the names of the services that use the database, and migrate.
func databaseUsers(functions []endpoint.Function) (users []string) {
	for _, s := range allServices(functions) {
		if s.UsesDatabase() {
			users = append(users, s.Name)
		}
	}
	return append(users, Migrate)
}

// address returns a function that returns the URI of a user. MongoDB stores each user in the
// database that the URI names.
func (m Material) address() (uri func(user string) string, err error) {
	if m.MongoDB == "" {
		return func(user string) string {
			return "mongodb://" + user + ":" + m.Password(user) + "@" + replicaSetMember + "/users?replicaSet=rs0"
		}, nil
	}
	scheme, rest, ok := strings.Cut(m.MongoDB, "://")
	if !ok || scheme != "mongodb" && scheme != "mongodb+srv" || rest == "" {
		return nil, errors.New("the database URI must begin with mongodb:// or mongodb+srv://, followed by a host")
	}
	hosts, path, _ := strings.Cut(rest, "/")
	if strings.Contains(hosts, "@") {
		return nil, errors.New("the database URI must not contain a user: each function gets its own user")
	}
	if name, _, _ := strings.Cut(path, "?"); name != "users" { // users.js creates the users there
		return nil, errors.New("the database URI must end with the database name users: …/users")
	}
	return func(user string) string {
		return scheme + "://" + url.UserPassword(user, m.Password(user)).String() + "@" + rest
	}, nil
}
