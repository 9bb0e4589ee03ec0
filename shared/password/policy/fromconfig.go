package policy

import (
	"errors"
	"io"
	"os"
	"strings"

	"ticketing.com/auth/shared/config"
)

// FromConfig returns the policy of PASSWORD_MIN_LENGTH and PASSWORD_BLOCKLIST_FILE. The list
// in that file replaces the built-in list.
func FromConfig(cfg *config.Config) Policy {
	return config.Part(cfg, "password policy", func() (p Policy) {
		p.minLength = cfg.Number("PASSWORD_MIN_LENGTH", MinLength, MinLength, 64)
		if path := cfg.Text("PASSWORD_BLOCKLIST_FILE", ""); path != "" {
			var err error
			if p.common, err = read(path); err != nil {
				cfg.Problem("PASSWORD_BLOCKLIST_FILE", err.Error())
			}
		}
		return p
	})
}

// maxFile is the largest blocklist file in bytes: about 800,000 passwords. Each start of a
// process reads the file, in 0.15 s of a core per MiB and eleven times its size of memory.
const maxFile = 8 << 20

// read returns the list in a file, which has one password per line, in UTF-8.
func read(path string) (blocklist, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", errors.New("names a file that cannot be read")
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return "", errors.New("names a file that cannot be read")
	case len(text) > maxFile:
		return "", errors.New("names a file larger than 8 MiB")
	}
	var lines []string
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
	list := blocklist(Pack(lines))
	if list == "" {
		return "", errors.New("names a file without passwords: it must have one per line, in UTF-8")
	}
	return list, nil
}
