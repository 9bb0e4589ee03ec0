package knative

import (
	"fmt"
	"strings"

	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/endpoint"
)

// indexing are the rights of migrate on each collection.
var indexing = []endpoint.Action{"createCollection", "createIndex", "dropIndex"}

// A databaseUser is a user of the database with its rights.
type databaseUser struct {
	name   string
	grants []endpoint.Grant
}

// rights returns the database users with their rights.
func rights(functions []endpoint.Function) (all []databaseUser) {
	for _, s := range allServices(functions) {
		if s.UsesDatabase() {
			all = append(all, databaseUser{s.Name, s.Grants})
		}
	}
	migrate := databaseUser{name: Migrate}
	for _, collection := range needs.Collections(functions...) {
		migrate.grants = append(migrate.grants, endpoint.Grant{Collection: collection, Actions: indexing})
	}
	return append(all, migrate)
}

// Rights returns the rights of each database user, for users.js.
func Rights(functions []endpoint.Function) ([]byte, error) {
	var out strings.Builder
	out.WriteString("const rights = {\n")
	for _, user := range rights(functions) {
		var grants []string
		for _, g := range user.grants {
			grants = append(grants, fmt.Sprintf("{ db: %q, collection: %q, actions: [%s] }", g.Database, g.Name, quoted(g.Actions)))
		}
		fmt.Fprintf(&out, "  %q: [\n    %s,\n  ],\n", user.name, strings.Join(grants, ",\n    "))
	}
	out.WriteString("};\n")
	return []byte(out.String()), nil
}

func quoted(actions []endpoint.Action) string {
	var all []string
	for _, a := range actions {
		all = append(all, fmt.Sprintf("%q", a))
	}
	return strings.Join(all, ", ")
}

// atlasActions are the names of actions in the roles of MongoDB Atlas.
var atlasActions = map[endpoint.Action]string{
	endpoint.Find: "FIND", endpoint.Insert: "INSERT", endpoint.Update: "UPDATE", endpoint.Remove: "REMOVE",
	"createCollection": "CREATE_COLLECTION", "createIndex": "CREATE_INDEX", "dropIndex": "DROP_INDEX",
}

// Atlas returns the commands that create the database users in MongoDB Atlas. $PASSWORDS is as
// for users.js.
func Atlas(functions []endpoint.Function) ([]byte, error) {
	var out strings.Builder
	out.WriteString("```bash\n")
	for _, user := range rights(functions) {
		var privileges []string
		for _, g := range user.grants {
			for _, a := range g.Actions {
				privileges = append(privileges, fmt.Sprintf("%s@%s.%s", atlasActions[a], g.Database, g.Name))
			}
		}
		fmt.Fprintf(&out, "atlas customDbRoles create %s --privilege %s\n", user.name, strings.Join(privileges, ","))
		fmt.Fprintf(&out, "atlas dbusers create --username %s --role %[1]s@admin --password \"$(jq -r '.[\"%[1]s\"]' <<<\"$PASSWORDS\")\"\n", user.name)
	}
	out.WriteString("```\n")
	return []byte(out.String()), nil
}
