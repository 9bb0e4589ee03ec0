// Package image writes container images without a container runtime. An image contains
// one static binary and an empty folder for temporary files, as ko builds it for a Go
// program. The archive has Docker's format. Its layers are not compressed: it stays on
// the same machine, and compression would take longer than it saves.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// An Image is one program with the name of its image.
type Image struct {
	Name       string // such as dev.local/signup
	Program    string // the path of the binary
	User       string // numeric, such as 65532:65532, the default
	BaseLayers int    // number of layers baseLayer the program's, as a base image has them
	Tag        string // set by Tagged
}

// Ref returns the name and the tag.
func (i Image) Ref() string { return i.Name + ":" + i.Tag }

// Tagged returns the image with a tag that is derived from its content. Different
// content therefore gives a different reference. The cluster needs that because it never
// pulls.
func (i Image) Tagged() (Image, error) {
	sum, err := digest(i.Program)
	of := sha256.Sum256(fmt.Append(nil, sum, i.User, i.BaseLayers))
	i.Tag = fmt.Sprintf("%x", of)[:12]
	return i, err
}

// Write writes an archive of the images for "ctr images import".
func Write(w io.Writer, images []Image) error {
	archive := tar.NewWriter(w)
	var index []entry
	for _, i := range images {
		e, err := i.write(archive)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
		index = append(index, e)
	}
	listed, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := writeFile(archive, "manifest.json", listed); err != nil {
		return err
	}
	return archive.Close()
}

// An entry is an image in the archive's index.
type entry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// write writes the layers and the configuration. It generates each layer twice, the
// first time for its digest, so that no image is held in memory.
func (i Image) write(archive *tar.Writer) (entry, error) {
	e := entry{RepoTags: []string{i.Ref()}}
	var digests []string
	for n := range i.BaseLayers + 1 {
		layer := i.layer
		if n < i.BaseLayers {
			layer = baseLayer(n)
		}
		sum := sha256.New()
		size := counter{w: sum}
		if err := layer(&size); err != nil {
			return entry{}, err
		}
		digest := fmt.Sprintf("%x", sum.Sum(nil))
		digests, e.Layers = append(digests, "sha256:"+digest), append(e.Layers, digest+".tar")
		if err := archive.WriteHeader(&tar.Header{Name: digest + ".tar", Mode: 0o644, Size: size.n}); err != nil {
			return entry{}, err
		}
		if err := layer(archive); err != nil {
			return entry{}, err
		}
	}
	user := i.User
	if user == "" {
		user = "65532:65532" // the user "nonroot" of distroless images
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": []string{"/" + executable}, "User": user, "WorkingDir": "/",
			"Env": []string{"PATH=/"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": digests},
	})
	if err != nil {
		return entry{}, err
	}
	e.Config = fmt.Sprintf("%x.json", sha256.Sum256(config))
	return e, writeFile(archive, e.Config, config)
}

// executable is the binary's path in the image.
const executable = "ko-app"

// baseLayer returns a function that writes base layer n: a small file, as a base image
// has.
func baseLayer(n int) func(io.Writer) error {
	return func(w io.Writer) error {
		layer := tar.NewWriter(w)
		name := fmt.Sprintf("base-%d", n)
		return errors.Join(writeFile(layer, name, []byte(name)), layer.Close())
	}
}

// layer writes the program's layer: the binary and a folder for temporary files.
func (i Image) layer(w io.Writer) error {
	layer := tar.NewWriter(w)
	if err := layer.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return err
	}
	file, err := os.Open(i.Program)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := layer.WriteHeader(&tar.Header{Name: executable, Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(layer, file); err != nil {
		return err
	}
	return layer.Close()
}

func writeFile(archive *tar.Writer, name string, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func digest(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return strings.Repeat("0", 64), err
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

// A counter counts the written bytes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
