package arch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The embedded database is a module outside the workspace, so that what it requires
// stays out of the functions; its tests are run from here, so that "go test work"
// is every test.
func TestTheEmbeddedDatabasePassesItsOwnTests(t *testing.T) {
	sources, err := filepath.Glob(filepath.Join("..", "mongod", "*"))
	if err != nil || len(sources) == 0 {
		t.Fatal("the embedded database is not where it was: ", err)
	}
	for _, path := range sources { // what was read, go test knows: it remembers no result that is older
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-tags=ferretdb_no_postgresql", "./...")
	cmd.Dir = filepath.Join("..", "mongod")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
