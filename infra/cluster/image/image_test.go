package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func program(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// contents returns the files of a tar archive.
func contents(t *testing.T, archive io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for all := tar.NewReader(archive); ; {
		header, err := all.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(all)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}

func TestWrite_IndexMatchesContent(t *testing.T) {
	first, err := Image{Name: "dev.local/first", Program: program(t, "one")}.Tagged()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Image{Name: "dev.local/second", Program: program(t, "two"), User: "0", BaseLayers: 2}.Tagged()
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := Write(&archive, []Image{first, second}); err != nil {
		t.Fatal(err)
	}
	files := contents(t, &archive)
	var index []entry
	if err := json.Unmarshal([]byte(files["manifest.json"]), &index); err != nil || len(index) != 2 {
		t.Fatalf("got index %s (%v), want two images", files["manifest.json"], err)
	}
	for i, want := range []struct {
		ref, program, user string
		layers             int
	}{
		{first.Ref(), "one", "65532:65532", 1}, {second.Ref(), "two", "0", 3},
	} {
		e := index[i]
		if e.RepoTags[0] != want.ref {
			t.Errorf("got name %s, want %s", e.RepoTags, want.ref)
		}
		var config struct {
			Config struct {
				User       string
				Entrypoint []string
			}
			Rootfs struct {
				DiffIDs []string `json:"diff_ids"`
			}
		}
		if err := json.Unmarshal([]byte(files[e.Config]), &config); err != nil {
			t.Fatal(err)
		}
		var digests []string
		for _, layer := range e.Layers {
			digests = append(digests, fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(files[layer]))))
		}
		if len(digests) != want.layers || !slices.Equal(config.Rootfs.DiffIDs, digests) {
			t.Errorf("got layers %s and the configuration's digests %s, want %d equal ones", digests, config.Rootfs.DiffIDs, want.layers)
		}
		if config.Config.User != want.user || config.Config.Entrypoint[0] != "/"+executable {
			t.Errorf("got user %s and entry point %s, want %s and /%s", config.Config.User, config.Config.Entrypoint, want.user, executable)
		}
		if got := contents(t, strings.NewReader(files[e.Layers[want.layers-1]])); got[executable] != want.program || len(got) != 2 {
			t.Errorf("got layer %q, want %s with content %q and one folder", got, executable, want.program)
		}
	}
}

func TestTagged_DependsOnContent(t *testing.T) {
	path := program(t, "one")
	first, err := Image{Name: "dev.local/x", Program: path}.Tagged()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Image{Name: "dev.local/x", Program: path}.Tagged()
	os.WriteFile(path, []byte("two"), 0o600)
	other, _ := Image{Name: "dev.local/x", Program: path}.Tagged()
	based, _ := Image{Name: "dev.local/x", Program: path, BaseLayers: 1}.Tagged()
	if first != again || first.Ref() == other.Ref() || other.Ref() == based.Ref() {
		t.Errorf("got %s, unchanged %s, changed %s, with a base layer %s; want only the first two equal", first.Ref(), again.Ref(), other.Ref(), based.Ref())
	}
}

func TestImage_MissingProgram(t *testing.T) {
	missing := Image{Name: "dev.local/x", Program: filepath.Join(t.TempDir(), "none"), Tag: "t"}
	if _, err := missing.Tagged(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v", err, os.ErrNotExist)
	}
	if err := Write(io.Discard, []Image{missing}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got error %v, want %v", err, os.ErrNotExist)
	}
}
