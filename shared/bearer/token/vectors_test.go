package token_test

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/bearer/token"
)

// The file has every token of these tests, with the verdict. Verifiers in other languages play it.
// Write it anew with: go test ./shared/bearer/token -update
const vectorFile = "../testdata/tokens.json"

var update = flag.Bool("update", false, "write "+vectorFile)

type vectors struct {
	Issuer   string         `json:"issuer"`
	Audience string         `json:"audience"`
	Now      int64          `json:"now"` // a NumericDate
	Keys     jsontext.Value `json:"jwks"`
	Tokens   []vector       `json:"tokens"`
}

type vector struct {
	Name     string `json:"name"`
	Token    string `json:"token"`
	Accepted bool   `json:"accepted"`
}

var (
	recorded = map[*token.Verifier]bool{} // the verifiers of everyKey
	tokens   = map[string]vector{}
)

// record notes the verdict on a token for the file. Longer tokens have no other reason to be
// refused than their length.
func record(t *testing.T, v *token.Verifier, raw string, accepted bool) {
	name := strings.ReplaceAll(strings.TrimPrefix(t.Name(), "TestVerify_"), "_", " ")
	if recorded[v] && len(raw) <= 2*token.MaxLength {
		tokens[raw] = vector{name, raw, accepted}
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *update && code == 0 {
		all := vectors{Issuer: "ticketing", Audience: "shop", Now: noon.Unix(), Keys: document(new(testing.T), false, key(1), key(2), ecKey(1))}
		for _, v := range tokens {
			all.Tokens = append(all.Tokens, v)
		}
		slices.SortFunc(all.Tokens, func(x, y vector) int { return strings.Compare(x.Name+x.Token, y.Name+y.Token) })
		document, err := json.Marshal(all, jsontext.WithIndent("\t"))
		if err == nil {
			err = os.WriteFile(vectorFile, append(document, '\n'), 0o644)
		}
		if err != nil {
			panic(err)
		}
	}
	os.Exit(code)
}

func TestVectors(t *testing.T) {
	if *update {
		t.Skip("the file is written after the tests")
	}
	document, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(document, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Tokens) < 300 {
		t.Errorf("got %d tokens, want 300 at least", len(all.Tokens))
	}
	v := everyKey(t)
	for _, c := range all.Tokens {
		if _, err := v.Verify(t.Context(), c.Token); (err == nil) != c.Accepted {
			t.Errorf("%s: got error %v, want accepted %t", c.Name, err, c.Accepted)
		}
	}
}
