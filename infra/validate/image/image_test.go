package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/ko/pkg/build"
	"github.com/google/ko/pkg/commands/options"
	"github.com/sigstore/cosign/v3/pkg/oci"
)

const root = "../../.."

// mains returns the folders of the deployed commands.
func mains(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(root + "/functions/*/cmd/*")
	if err != nil || len(all) < 7 {
		t.Fatalf("got the commands %v and the error %v, want at least 7", all, err)
	}
	for i, m := range all {
		all[i] = filepath.ToSlash(strings.TrimPrefix(m, root+"/"))
	}
	return append(all, "infra/allinone", "infra/migrate")
}

// settings returns the settings in .ko.yaml, parsed by ko.
func settings(t *testing.T) *options.BuildOptions {
	t.Helper()
	o := &options.BuildOptions{WorkingDirectory: root, Trimpath: true}
	t.Setenv("KO_CONFIG_PATH", root)
	if err := o.LoadConfig(); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestBaseImage_IsPinnedMinimalAndNonRoot(t *testing.T) {
	o := settings(t)
	if !regexp.MustCompile(`/static-debian\d+:nonroot@sha256:[0-9a-f]{64}$`).MatchString(o.BaseImage) {
		t.Errorf("got the base image %s, want static-debian with a digest", o.BaseImage)
	}
	if !slices.Equal(o.DefaultPlatforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("got the platforms %v, want linux/amd64 and linux/arm64", o.DefaultPlatforms)
	}
}

// baseImage returns an empty base image for one platform, with a user.
func baseImage() (v1.Image, error) {
	return mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64",
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{User: "65532"},
	})
}

func builder(t *testing.T) build.Interface {
	t.Helper()
	t.Setenv("GOWORK", "") // the commands are in the workspace
	o := settings(t)
	base, err := baseImage()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(o.BaseImage)
	if err != nil {
		t.Fatal(err)
	}
	b, err := build.NewGo(t.Context(), root,
		build.WithBaseImages(func(context.Context, string) (name.Reference, build.Result, error) { return ref, base, nil }),
		build.WithPlatforms("linux/amd64"),
		build.WithTrimpath(o.Trimpath), build.WithDefaultFlags(o.DefaultFlags), build.WithDefaultLdflags(o.DefaultLdflags),
		build.WithSPDX("test"), build.WithJobs(2), build.WithConfig(o.BuildConfigs))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestImages_ReproducibleStaticBinaryWithSBOM(t *testing.T) {
	first, second := builder(t), builder(t)
	for _, main := range mains(t) {
		t.Run(path.Base(main), func(t *testing.T) {
			t.Parallel()
			image := buildImage(t, first, main)
			// The all-in-one has the code of all functions, so a second build of each function is not
			// necessary.
			if strings.HasPrefix(main, "infra/") && digest(t, image) != digest(t, buildImage(t, second, main)) {
				t.Error("two builds have different digests")
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			binary := "/ko-app/" + path.Base(main)
			if config.Config.User != "65532" || !slices.Equal(config.Config.Entrypoint, []string{binary}) {
				t.Errorf("got the entry point %v and the user %q, want the binary and 65532", config.Config.Entrypoint, config.Config.User)
			}
			if files := contents(t, image); !slices.Equal(files, []string{binary}) {
				t.Errorf("got the files %v, want only the binary", files)
			}
			sbom(t, image)
			size := int64(0)
			layers, err := image.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range layers {
				n, err := l.Size()
				if err != nil {
					t.Fatal(err)
				}
				size += n
			}
			megabytes := float64(size) / 1e6
			t.Logf("%4.1f MB, compressed, without the base", megabytes)
			if want := documentedSize(t, path.Base(main)); megabytes < 0.9*want || megabytes > 1.1*want {
				t.Errorf("got %.1f MB, want %.1f MB within 10 %% as in deploy-kubernetes.md", megabytes, want)
			}
		})
	}
}

// documentedSize returns the size of an image in deploy-kubernetes.md, in megabytes. It is the
// first number after the name of the image. Several images can share a number.
func documentedSize(t *testing.T, name string) float64 {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "infra", "docs", "deploy-kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, sizes, _ := strings.Cut(strings.ReplaceAll(string(page), "\n", " "), "Compressed, and without the base:")
	if name == "allinone" {
		name = `all\s+in\s+one`
	}
	m := regexp.MustCompile(`\b` + name + `\b\D*(\d+\.\d)`).FindStringSubmatch(sizes)
	if m == nil {
		t.Fatalf("deploy-kubernetes.md has no size for %s", name)
	}
	size, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func buildImage(t *testing.T, b build.Interface, main string) oci.SignedImage {
	t.Helper()
	importPath, err := b.QualifyImport("./" + main)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.IsSupportedReference(importPath); err != nil {
		t.Fatal(err)
	}
	result, err := b.Build(t.Context(), importPath)
	if err != nil {
		t.Fatal(err)
	}
	image, ok := result.(oci.SignedImage)
	if !ok {
		t.Fatalf("%s: got a %T, want an image with an SBOM", main, result)
	}
	return image
}

func digest(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// contents returns the files of an image.
func contents(t *testing.T, image v1.Image) (files []string) {
	t.Helper()
	all := mutate.Extract(image)
	defer all.Close()
	for r := tar.NewReader(all); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			files = append(files, "/"+strings.TrimPrefix(header.Name, "/"))
		}
	}
}

// sbom checks that an image has an SBOM, and that it contains a package of this repository.
func sbom(t *testing.T, image oci.SignedImage) {
	t.Helper()
	attached, err := image.Attachment("sbom")
	if err != nil {
		t.Fatalf("no SBOM: %v", err)
	}
	document, err := attached.Payload()
	if err != nil || !bytes.Contains(document, []byte(`"SPDX-2.3"`)) || !bytes.Contains(document, []byte("ticketing.com/auth/shared")) {
		t.Errorf("got the error %v and the SBOM %.200s, want SPDX 2.3 with ticketing.com/auth/shared", err, document)
	}
}
