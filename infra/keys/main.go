// Command keys generates and rotates the keys that sign access tokens, and those of the tokens in
// mails.
//
//	go run ./infra/keys new|rotate|public|mail|secrets [flags]
//
// It writes the two files of SIGNING_KEYS_FILE and VERIFYING_KEYS_FILE. It prints which file to
// deploy and when to run the next step, but deploys nothing itself. Package keyring explains and
// enforces the steps of a rotation. For Kubernetes the command prints the Secrets that the
// manifests use.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/usage"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, time.Now)) }

const (
	call = "go run ./infra/keys"
	text = `usage: ` + call + ` new|rotate|public|mail|secrets [-dir DIR]

  new      generate the first key; existing keys are never overwritten
             -alg EdDSA     the algorithm: EdDSA (Ed25519) or ES256 (P-256)
  rotate   take the next step of a rotation: publish a new key, sign with it,
           withdraw the old one. A step that comes too early is rejected
             -ttl 15m   the longest ACCESS_TOKEN_TTL in use
             -force     take the step now; after a theft, run it three times
             -alg ALG   the algorithm of the new key, if it changes
  public   print the public keys
  mail     generate the first key of the tokens in mails, or take the next step
           of a rotation: add a new key, withdraw the old one after 8 days
             -force     withdraw the old key now, after a theft
  secrets  print the keys and the passwords of the database users as Kubernetes
           Secrets, for "kubectl apply -f -"; each run prints the same ones
             -mongodb URI   your own database, without user and password
             -smtp FILE     a file with the value of SMTP_URL; without it, mail
                            has no server

  -dir DIR   the folder of the keys (.data/keys)
`
)

// run runs the command. It returns the exit code: 0, or 2 after one line with the error.
func run(args []string, stdout, stderr io.Writer, now func() time.Time) int {
	help := usage.Command{Call: call, Text: text, Stdout: stdout, Stderr: stderr}
	if len(args) == 0 {
		return help.Error("no command is given")
	}
	command, args := args[0], args[1:]
	flags := new(flag.FlagSet)
	dir := flags.String("dir", filepath.FromSlash(".data/keys"), "")
	o := keyring.Options{Now: now().UTC(), Life: 15 * time.Minute}
	var do func() (string, error)
	switch command {
	case "new":
		flags.StringVar(&o.Algorithm, "alg", token.EdDSA, "")
		do = func() (string, error) {
			err := keyring.Create(*dir, o.Algorithm, o.Now)
			return created(*dir), err
		}
	case "rotate":
		flags.DurationVar(&o.Life, "ttl", o.Life, "")
		flags.BoolVar(&o.Force, "force", false, "")
		flags.StringVar(&o.Algorithm, "alg", "", "")
		do = func() (string, error) {
			step, err := keyring.Rotate(*dir, o)
			return rotated(step), err
		}
	case "public":
		do = func() (string, error) {
			set, err := keyring.Public(*dir)
			return string(set), err
		}
	case "mail":
		flags.BoolVar(&o.Force, "force", false, "")
		do = func() (string, error) { return mail(*dir, o) }
	case "secrets":
		mongodb, smtp := flags.String("mongodb", "", ""), flags.String("smtp", "", "")
		do = func() (string, error) {
			if f, ok := stdout.(*os.File); ok && terminal(f) {
				return "", errors.New("the output is secret and not for a terminal: send it to a file or a command, such as | kubectl apply -f -")
			}
			return secrets(*dir, *mongodb, *smtp)
		}
	default:
		if usage.IsHelp(command) {
			return help.Help()
		}
		return help.Error("unknown command")
	}
	help.Call += " " + command
	if code, end := help.Parse(flags, args, 0); end {
		return code
	}
	unknown := false
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "alg" && !slices.Contains([]string{token.EdDSA, token.ES256}, o.Algorithm) {
			unknown = true
		}
	})
	if unknown {
		return help.Error("-alg must be EdDSA or ES256")
	}
	if o.Life <= 0 {
		return help.Error("-ttl must be positive")
	}
	output, err := do()
	if err != nil {
		fmt.Fprintf(stderr, "keys %s: %v\n", command, err)
		return 2
	}
	io.WriteString(stdout, output)
	return 0
}

// mail generates the keys of the tokens in mails, or rotates them, and returns what to deploy.
func mail(dir string, o keyring.Options) (string, error) {
	path := filepath.Join(dir, keyring.MailFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path, err := keyring.EnsureMail(dir)
		return fmt.Sprintf("Wrote %s (secret: for mail and the functions that check its tokens).\n", path), err
	}
	s, err := keyring.RotateMail(dir, o.Now, o.Force)
	switch {
	case err != nil:
		return "", err
	case s.Kind == keyring.Promoted:
		return fmt.Sprintf(`Added a new key to %s. The old key still accepts the tokens of earlier mails.
Deploy the file first to the functions that check tokens, then to mail.
Run mail again from %s on, to withdraw the old key.
`, s.Path, s.Next.Format(time.RFC3339)), nil
	case s.Risk:
		return "Warning: the step was too early: links and codes of the last days are no longer valid.\n" + withdrawnMail(s.Path), nil
	}
	return withdrawnMail(s.Path), nil
}

func withdrawnMail(path string) string {
	return fmt.Sprintf("Withdrew the old key from %s.\nDeploy the file to mail and to the functions that check tokens.\nThe rotation is complete.\n", path)
}

func created(dir string) string {
	return fmt.Sprintf("Wrote %s (private: for signup, signin and refresh only).\nWrote %s (public: for the other functions).\n",
		filepath.Join(dir, keyring.SigningFile), filepath.Join(dir, keyring.VerifyingFile))
}

// rotated returns the message after a step: its result, the file to deploy and the time of the
// next step.
func rotated(s keyring.Step) string {
	keys := strings.Join(s.Keys, ", ")
	next := s.Next.Format(time.RFC3339)
	switch s.Kind {
	case keyring.Published:
		return fmt.Sprintf(`Published the new key %s. It does not sign yet.
Deploy %s now, to jwks and to every function that verifies tokens.
Run rotate again from %s on, to let the new key sign. That leaves %v minutes for the deployment and %v for caches of the old set: if the deployment takes longer, wait longer.
`, keys, keyring.VerifyingFile, next, keyring.Rollout.Minutes(), keyring.CacheLife.Minutes())
	case keyring.Promoted:
		return risk(s, "the step was too early: a verifier without the new key rejects its tokens until it fetches the key") + fmt.Sprintf(`Promoted the key %s: it signs from now on. The old private key is destroyed; its tokens remain valid.
Deploy %s now, to signup, signin and refresh.
Run rotate again from %s on, to withdraw the old key. That leaves %v minutes for the deployment and the rest for the last tokens of the old key: if the deployment takes longer, wait longer.
`, keys, keyring.SigningFile, next, keyring.Rollout.Minutes())
	default:
		return risk(s, "the step was too early: tokens that had not expired are rejected from now on, and their clients must refresh") + fmt.Sprintf(`Withdrew %s: its tokens are no longer valid.
Deploy %s now, to jwks and to every function that verifies tokens.
The rotation is complete.
`, keys, keyring.VerifyingFile)
	}
}

func risk(s keyring.Step, sentence string) string {
	if !s.Risk {
		return ""
	}
	return "Warning: " + sentence + ".\n"
}
