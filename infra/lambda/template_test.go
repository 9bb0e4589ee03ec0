package lambda_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/lambda"
	"ticketing.com/auth/shared/endpoint"
)

// routed returns the functions that the template contains.
func routed() []endpoint.Function {
	return slices.DeleteFunc(catalog.Functions(), func(f endpoint.Function) bool { return len(f.Routed()) == 0 })
}

func TestTemplate_Routes(t *testing.T) {
	want := []string{"any other path build/jwks"} // a function without secrets responds with 404
	for _, f := range routed() {
		for _, e := range f.Endpoints {
			if route := "ANY " + e.Path + " build/" + f.Name; !slices.Contains(want, route) {
				want = append(want, route)
			}
		}
	}
	var got []string
	tree := template(t)
	for path, value := range tree {
		if resource, event := owner(path, ".Properties.Events."); resource != "" && strings.HasSuffix(event, ".Properties") {
			to := " " + tree["Resources."+resource+".Properties.CodeUri"]
			if value == `{ApiId: !Ref Api, PayloadFormatVersion: "2.0"}` {
				got = append(got, "any other path"+to)
				continue
			}
			route := regexp.MustCompile(`^\{ApiId: !Ref Api, Method: (\S+), Path: "(\S+)", PayloadFormatVersion: "2.0"\}$`).FindStringSubmatch(value)
			if route == nil {
				t.Fatalf("%s: got %s, want a route of the API", path, value)
			}
			got = append(got, route[1]+" "+route[2]+to)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if stage := tree["Resources.Api.Properties.StageName"]; stage != "$default" { // a named stage prefixes every path
		t.Errorf("got the stage %q, want $default", stage)
	}
}

// The table is the intended state. The template follows from the needs of the functions.
func TestTemplate_SecretsOfEachFunction(t *testing.T) {
	holders := map[string][]string{}
	for path, value := range template(t) {
		resource, setting := owner(path, ".Properties.Environment.Variables.")
		if resource == "" {
			continue
		}
		switch setting {
		case "MONGODB_URI", "SIGNING_KEYS", "VERIFYING_KEYS":
			holders[value] = append(holders[value], resource)
			slices.Sort(holders[value])
		}
	}
	for setting, all := range holders { // the table does not name functions that are added later
		holders[setting] = slices.DeleteFunc(all, func(resource string) bool {
			return !slices.Contains([]string{"Currentuser", "Jwks", "Refresh", "Signin", "Signout", "Signup"}, resource)
		})
	}
	want := map[string][]string{
		`!Sub "{{resolve:secretsmanager:${MongodbUriSecret}:SecretString}}"`:  {"Currentuser", "Refresh", "Signin", "Signout", "Signup"},
		`!Sub "{{resolve:secretsmanager:${SigningKeysSecret}:SecretString}}"`: {"Refresh", "Signin", "Signup"},
		`!Ref VerifyingKeys`: {"Currentuser", "Jwks", "Signout"},
	}
	if !maps.EqualFunc(holders, want, slices.Equal) {
		t.Errorf("got  %v\nwant %v", holders, want)
	}
}

func TestTemplate_LeastPrivilege(t *testing.T) {
	tree := template(t)
	want := map[string]string{
		"Resources.Traces.Properties.PolicyDocument.Statement": `{Effect: Allow, Action: [xray:PutTraceSegments, xray:PutTelemetryRecords], Resource: "*"}`,
	}
	for _, e := range routed() {
		id := strings.ToUpper(e.Name[:1]) + e.Name[1:]
		role := "Resources." + id + "Role.Properties."
		want[role+"AssumeRolePolicyDocument.Statement"] = "{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}"
		want[role+"Policies.PolicyName.PolicyDocument.Statement"] = "{Effect: Allow, Action: [logs:CreateLogStream, logs:PutLogEvents], Resource: !GetAtt " + id + "Logs.Arn}"
		for path, want := range map[string]string{
			id + ".Type":                              "AWS::Serverless::Function",
			id + ".Properties.Role":                   "!GetAtt " + id + "Role.Arn",
			id + ".Properties.Policies":               "", // SAM would add these to a role that it creates
			id + "Role.Properties.ManagedPolicyArns":  "!If [Traced, [!Ref Traces], !Ref AWS::NoValue]",
			id + "Logs.Properties.RetentionInDays":    "!Ref LogRetentionDays",
			id + ".Properties.LoggingConfig.LogGroup": "!Ref " + id + "Logs",
		} {
			if got := tree["Resources."+path]; got != want {
				t.Errorf("%s is %q, want %q", path, got, want)
			}
		}
	}
	got := maps.Clone(tree)
	maps.DeleteFunc(got, func(_, value string) bool { return !strings.Contains(value, "Effect:") })
	if !maps.Equal(got, want) {
		t.Errorf("got the grants %v\nwant %v", got, want)
	}
}

func TestTemplate_MemoryOfHashingFunctions(t *testing.T) {
	tree := template(t)
	for name := range tree {
		if strings.HasSuffix(name, ".HASH_TESTING") {
			t.Errorf("%s is set, want it omitted", name)
		}
	}
	for _, id := range []string{"Signup", "Signin", "Signout", "Currentuser", "Refresh", "Jwks"} {
		memory, limit, concurrency := "256", "230MiB", ""
		if id == "Signup" || id == "Signin" {
			memory, limit, concurrency = "1769", "1592MiB", `"1"`
		}
		properties := "Resources." + id + ".Properties."
		variables := properties + "Environment.Variables."
		if tree[properties+"MemorySize"] != memory || tree[variables+"GOMEMLIMIT"] != limit || tree[variables+"HASH_CONCURRENCY"] != concurrency {
			t.Errorf("%s: got %s MB, GOMEMLIMIT %s, HASH_CONCURRENCY %s, want %s, %s, %s", id,
				tree[properties+"MemorySize"], tree[variables+"GOMEMLIMIT"], tree[variables+"HASH_CONCURRENCY"], memory, limit, concurrency)
		}
	}
}

// The function must respond before Lambda stops it.
func TestTemplate_TimeoutExceedsBudget(t *testing.T) {
	timeout, err := time.ParseDuration(template(t)["Globals.Function.Timeout"] + "s")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range catalog.Routes() {
		if 2*e.Limit() > timeout {
			t.Errorf("%s %s has a request budget of %s, want at most half of the timeout of %s", e.Method, e.Path, e.Limit(), timeout)
		}
	}
}

// The gateway reports the client address. Functions must not read it from a header.
func TestTemplate_NoTrustedProxies(t *testing.T) {
	for path := range template(t) {
		if strings.Contains(path, "TRUSTED_PROXIES") || strings.Contains(path, "TrustedProxies") {
			t.Errorf("the template contains %s, want no setting for proxies", path)
		}
	}
}

func TestTemplate_NoEvents(t *testing.T) {
	for path := range template(t) {
		if strings.Contains(strings.ToLower(path), "relay") {
			t.Errorf("the template contains %s, want nothing of the relay", path)
		}
		if _, setting := owner(path, ".Variables."); strings.HasPrefix(setting, "K_") || strings.HasPrefix(setting, "EVENT") {
			t.Errorf("the template contains %s, want no setting for events", path)
		}
	}
}

func TestTemplate_References(t *testing.T) {
	tree := template(t)
	text := strings.Join(slices.Collect(maps.Values(tree)), "\n")
	for _, m := range regexp.MustCompile(`!(?:Ref|GetAtt) ([A-Za-z]+)|\$\{([A-Za-z]+)\}|!If \[([A-Za-z]+)`).FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2] + m[3]
		_, condition := tree["Conditions."+name]
		if name != "AWS" && !condition && tree["Parameters."+name+".Type"] == "" && tree["Resources."+name+".Type"] == "" {
			t.Errorf("%s refers to no parameter, resource or condition", m[0])
		}
	}
	for path := range tree { // an unused parameter is an error
		name, found := strings.CutPrefix(path, "Parameters.")
		if name, _, _ = strings.Cut(name, "."); found && !regexp.MustCompile(`(!Ref |\$\{)`+name+`\b`).MatchString(text) {
			t.Errorf("the parameter %s is not used", name)
		}
	}
	for _, e := range routed() { // the command in the template builds these
		if _, err := os.Stat(filepath.Join("..", "..", "functions", e.Name, "cmd", e.Name, "main.go")); err != nil {
			t.Error(err)
		}
	}
}

// Parameters and resources share one namespace in CloudFormation, and the names of a function's
// resources begin with the function's name.
func TestCatalog_RejectsNamesOfTemplate(t *testing.T) {
	others := 0
	for path := range template(t) {
		kind, name, _ := strings.Cut(path, ".")
		name, _, _ = strings.Cut(name, ".")
		if kind != "Parameters" && kind != "Resources" || name == "" {
			continue
		}
		word := strings.ToLower(name[:1]) + name[1:]
		isFunction := slices.ContainsFunc(routed(), func(f endpoint.Function) bool { return f.Name == word })
		if isFunction || word != strings.ToLower(word) { // a function name is one word
			continue
		}
		others++
		e := endpoint.Endpoint{Spec: endpoint.Spec{Method: "GET", Path: "/api/hello", Summary: "Say hello."}}
		if err := catalog.Check([]endpoint.Function{{Name: word, Endpoints: []endpoint.Endpoint{e}}}); err == nil {
			t.Errorf("a function can have the name %s of %s in %s", word, name, kind)
		}
	}
	if others == 0 {
		t.Error("the template has no name that a function could have, want at least one")
	}
}

// template generates the template and returns its values by path. It parses only the subset of
// YAML in the template: block mappings with an indentation of two spaces, and lists of one
// mapping.
func template(t *testing.T) map[string]string {
	t.Helper()
	text, err := lambda.Template(catalog.Functions())
	if err != nil {
		t.Fatal(err)
	}
	tree := map[string]string{}
	var path []string
	for line := range strings.Lines(string(text)) {
		content := strings.TrimLeft(strings.TrimRight(line, "\n"), " ")
		if content == "" || content[0] == '#' {
			continue
		}
		depth := (len(line) - 1 - len(content)) / 2
		item, isItem := strings.CutPrefix(content, "- ")
		if depth > len(path) || strings.Contains(line, "\t") {
			t.Fatalf("the indentation of this line is not supported: %s", line)
		}
		path = path[:depth]
		if isItem && item[0] == '{' {
			if tree[strings.Join(path, ".")] != "" {
				t.Errorf("a list with more than one item is not supported: %s", line)
			}
			tree[strings.Join(path, ".")] = item
			continue
		}
		key, value, found := strings.Cut(item, ":")
		if !found || value != "" && value[0] != ' ' {
			t.Fatalf("got the line %s, want a key and a value", line)
		}
		value, _, _ = strings.Cut(strings.TrimSpace(value), " #")
		path = append(path, key)
		if _, duplicate := tree[strings.Join(path, ".")]; duplicate {
			t.Errorf("duplicate key: %s", strings.Join(path, "."))
		}
		tree[strings.Join(path, ".")] = value
	}
	return tree
}

// owner splits a path inside a part of a resource into the resource and the rest.
func owner(path, part string) (resource, rest string) {
	resource, rest, found := strings.Cut(strings.TrimPrefix(path, "Resources."), part)
	if !found {
		return "", ""
	}
	return resource, rest
}
