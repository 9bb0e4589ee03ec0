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

// routed are the functions that the template is about.
func routed() []endpoint.Endpoint {
	return slices.DeleteFunc(catalog.Functions(), func(e endpoint.Endpoint) bool { return e.Path == "" })
}

func TestEveryRouteLeadsToItsFunctionAndNoOtherIsOpen(t *testing.T) {
	want := []string{"any other path build/jwks"} // in the contract's words, from a function without a secret
	for _, e := range routed() {
		want = append(want, "ANY "+e.Path+" build/"+e.Name)
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
			route := regexp.MustCompile(`^\{ApiId: !Ref Api, Method: (\S+), Path: (\S+), PayloadFormatVersion: "2.0"\}$`).FindStringSubmatch(value)
			if route == nil {
				t.Fatalf("%s: %s", path, value)
			}
			got = append(got, route[1]+" "+route[2]+to)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if tree["Resources.Api.Properties.StageName"] != "$default" { // another would stand before every path
		t.Error("the API has another stage")
	}
}

// What is written here is the intention; the template is made from what the
// functions ask for.
func TestAFunctionHoldsTheSecretsOfItsRoleAndNoOther(t *testing.T) {
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
	want := map[string][]string{
		`!Sub "{{resolve:secretsmanager:${MongodbUriSecret}:SecretString}}"`:  {"Currentuser", "Refresh", "Signin", "Signout", "Signup"},
		`!Sub "{{resolve:secretsmanager:${SigningKeysSecret}:SecretString}}"`: {"Refresh", "Signin", "Signup"},
		`!Ref VerifyingKeys`: {"Currentuser", "Jwks", "Signout"},
	}
	if !maps.EqualFunc(holders, want, slices.Equal) {
		t.Errorf("got  %v\nwant %v", holders, want)
	}
}

func TestAFunctionMayWriteItsOwnLogAndNothingElse(t *testing.T) {
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
			id + ".Properties.Policies":               "", // SAM would add them to a role of its own
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
		t.Errorf("granted is %v\nwant %v", got, want)
	}
}

func TestAFunctionThatHashesHasAWholeCore(t *testing.T) {
	tree := template(t)
	for name := range tree {
		if strings.HasSuffix(name, ".HASH_TESTING") {
			t.Errorf("%s is set", name)
		}
	}
	for _, id := range []string{"Signup", "Signin", "Signout", "Currentuser", "Refresh", "Jwks"} {
		memory, limit, atOnce := "256", "230MiB", ""
		if id == "Signup" || id == "Signin" {
			memory, limit, atOnce = "1769", "1592MiB", `"1"`
		}
		properties := "Resources." + id + ".Properties."
		variables := properties + "Environment.Variables."
		if tree[properties+"MemorySize"] != memory || tree[variables+"GOMEMLIMIT"] != limit || tree[variables+"HASH_CONCURRENCY"] != atOnce {
			t.Errorf("%s: %s MB, %s, %s at once", id, tree[properties+"MemorySize"], tree[variables+"GOMEMLIMIT"], tree[variables+"HASH_CONCURRENCY"])
		}
	}
}

// Else Lambda would cut off what the function would have answered.
func TestNoFunctionTakesLongerThanItsTimeout(t *testing.T) {
	timeout, err := time.ParseDuration(template(t)["Globals.Function.Timeout"] + "s")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range routed() {
		if 2*max(e.Budget, 4500*time.Millisecond) > timeout {
			t.Errorf("%s has %s for a request, and Lambda grants %s", e.Name, e.Budget, timeout)
		}
	}
}

// The gateway says who called it; what a header adds to that is not looked at.
func TestNoProxyIsTrusted(t *testing.T) {
	for path := range template(t) {
		if strings.Contains(path, "TRUSTED_PROXIES") || strings.Contains(path, "TrustedProxies") {
			t.Error(path)
		}
	}
}

func TestNothingOfEventsIsSet(t *testing.T) {
	for path := range template(t) {
		if strings.Contains(strings.ToLower(path), "relay") {
			t.Error(path)
		}
		if _, setting := owner(path, ".Variables."); strings.HasPrefix(setting, "K_") || strings.HasPrefix(setting, "EVENT") {
			t.Error(path)
		}
	}
}

func TestWhatTheTemplateRefersToIsThere(t *testing.T) {
	tree := template(t)
	text := strings.Join(slices.Collect(maps.Values(tree)), "\n")
	for _, m := range regexp.MustCompile(`!(?:Ref|GetAtt) ([A-Za-z]+)|\$\{([A-Za-z]+)\}|!If \[([A-Za-z]+)`).FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2] + m[3]
		_, condition := tree["Conditions."+name]
		if name != "AWS" && !condition && tree["Parameters."+name+".Type"] == "" && tree["Resources."+name+".Type"] == "" {
			t.Errorf("%s refers to nothing", m[0])
		}
	}
	for path := range tree { // what nothing refers to is there for no reason
		name, found := strings.CutPrefix(path, "Parameters.")
		if name, _, _ = strings.Cut(name, "."); found && !regexp.MustCompile(`(!Ref |\$\{)`+name+`\b`).MatchString(text) {
			t.Errorf("nothing refers to the parameter %s", name)
		}
	}
	for _, e := range routed() { // what the command in the template builds
		if _, err := os.Stat(filepath.Join("..", "..", "functions", e.Name, "cmd", e.Name, "main.go")); err != nil {
			t.Error(err)
		}
	}
}

// CloudFormation knows parameters and resources by one name each, and a function's
// begins with its own.
func TestNoFunctionTakesTheNameOfSomethingElse(t *testing.T) {
	others := 0
	for path := range template(t) {
		kind, name, _ := strings.Cut(path, ".")
		name, _, _ = strings.Cut(name, ".")
		if kind != "Parameters" && kind != "Resources" || name == "" {
			continue
		}
		word := strings.ToLower(name[:1]) + name[1:]
		ofAFunction := slices.ContainsFunc(routed(), func(e endpoint.Endpoint) bool { return e.Name == word })
		if ofAFunction || word != strings.ToLower(word) { // of two words, which a function's is not
			continue
		}
		others++
		e := endpoint.Endpoint{Spec: endpoint.Spec{Name: word, Method: "GET", Path: "/api/hello", Success: 200, Summary: "Say hello."}}
		if err := catalog.Check([]endpoint.Endpoint{e}); err == nil {
			t.Errorf("a function may be called %s, and %s are: %s", word, kind, name)
		}
	}
	if others == 0 {
		t.Error("nothing has a name that a function could have")
	}
}

// template renders the template and reads it: values by path. It reads no YAML but
// what is in the template: mappings in blocks, their keys indented by two spaces
// each, and lists of one mapping, in which the first key stands above the others.
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
			t.Fatalf("a line is indented in a way of its own: %s", line)
		}
		path = path[:depth]
		if isItem && item[0] == '{' {
			if tree[strings.Join(path, ".")] != "" {
				t.Errorf("a list of more than one: %s", line)
			}
			tree[strings.Join(path, ".")] = item
			continue
		}
		key, value, found := strings.Cut(item, ":")
		if !found || value != "" && value[0] != ' ' {
			t.Fatalf("not a key and a value: %s", line)
		}
		value, _, _ = strings.Cut(strings.TrimSpace(value), " #")
		path = append(path, key)
		if _, twice := tree[strings.Join(path, ".")]; twice {
			t.Errorf("twice: %s", strings.Join(path, "."))
		}
		tree[strings.Join(path, ".")] = value
	}
	return tree
}

// owner splits a path that leads into a part of a resource.
func owner(path, part string) (resource, rest string) {
	resource, rest, found := strings.Cut(strings.TrimPrefix(path, "Resources."), part)
	if !found {
		return "", ""
	}
	return resource, rest
}
