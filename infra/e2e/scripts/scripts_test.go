package scripts_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/e2e"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/mongotest"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// The scripts are played against BASE_URL, or, if there is none, against the local
// runner. What only a cluster can do is played where KUBECONFIG names one that has
// the system.
func TestScripts(t *testing.T) {
	base := os.Getenv("BASE_URL")
	if base == "" {
		url, interrupt := e2e.Local(t, filepath.Join(t.TempDir(), "data"), "EVENTS=on", "THROTTLE=off")
		t.Cleanup(interrupt) // scripts are played at the same time, after this function
		base = url
	}
	play(t, base)
}

// One process that serves every route answers as the functions do.
func TestScriptsOnTheAllInOne(t *testing.T) {
	if os.Getenv("BASE_URL") != "" {
		t.Skip("BASE_URL names the system to play against")
	}
	uri, keys := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	if code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate"); code != 0 {
		t.Fatal(stderr)
	}
	p := e2e.Start(t, "allinone", "MONGODB_URI="+uri, "EVENTS=on", "THROTTLE=off",
		"SIGNING_KEYS_FILE="+filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS_FILE="+filepath.Join(keys, keyring.VerifyingFile))
	play(t, p.URL)
}

func play(t *testing.T, base string) {
	params := testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                verbs(),
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars,
				"KUBECONFIG="+os.Getenv("KUBECONFIG"),
				"ANN=ann-"+strings.ToLower(rand.Text())+"@example.com", // the database may remember other runs
				"BOB=bob-"+strings.ToLower(rand.Text())+"@example.com",
				"PASSWORD=correct-horse-battery-staple",
			)
			env.Values[caller{}] = &caller{base: base, host: os.Getenv("HOST_HEADER")}
			return nil
		},
	}
	if only := os.Getenv("SCRIPT"); only != "" {
		params.Dir, params.Files = "", []string{only}
	}
	testscript.Run(t, params)
}

// condition knows [cluster]: there is a Kubernetes to speak to, and kubectl.
func condition(name string) (bool, error) {
	switch name {
	case "cluster":
		_, err := exec.LookPath("kubectl")
		return os.Getenv("KUBECONFIG") != "" && err == nil, nil
	}
	return false, nil
}
