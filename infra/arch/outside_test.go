package arch_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Some modules are outside the workspace, so that what they require stays out of the
// functions. Their tests are run from here, so that "go test work" is every test.
func TestTheModulesOutsideTheWorkspacePassTheirTests(t *testing.T) {
	for module, c := range map[string]struct {
		about []string // what the tests are about, by its folders
		args  []string
	}{
		"mongod": {[]string{"mongod"}, []string{"-tags=ferretdb_no_postgresql"}},
		// these two judge files outside their own module, of which the cache of go test
		// knows nothing: a result of yesterday's manifests would count for today's
		"knative/validate": {[]string{"knative"}, []string{"-count=1"}},
		"openapi/validate": {[]string{"openapi", "local"}, []string{"-count=1"}},
	} {
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			for _, folder := range c.about {
				readAll(t, filepath.Join("..", folder))
			}
			cmd := exec.Command("go", append(append([]string{"test"}, c.args...), "./...")...)
			cmd.Dir = filepath.Join("..", filepath.FromSlash(module))
			cmd.Env = append(os.Environ(), "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// readAll reads a folder, because go test remembers a result until what was read
// has changed.
func readAll(t *testing.T, folder string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%s is not where it was: %v", folder, err)
	}
}
