package scripts_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"ticketing.com/auth/infra/local/mailbox"
)

var code = regexp.MustCompile(`\b[0-9]{6}\b`)

// findMail finds a mail of a purpose.
func findMail(ts *testscript.TestScript, c *client, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: mail EMAIL PURPOSE COUNT")
	}
	mails, err := c.mails(ts)
	if err != nil {
		return err
	}
	slices.SortFunc(mails, func(x, y mailbox.Mail) int { return cmp.Compare(x.ID, y.ID) })
	link := regexp.MustCompile(`/confirm/` + regexp.QuoteMeta(args[1]) + `#(\S+)`)
	count := 0
	for _, m := range mails {
		if found := link.FindStringSubmatch(m.Text); found != nil && m.To == args[0] {
			if count++; fmt.Sprint(count) == args[2] {
				ts.Setenv("MAIL_TOKEN", found[1])
				ts.Setenv("MAIL_CODE", code.FindString(strings.Replace(m.Text, found[0], "", 1)))
				return nil
			}
		}
	}
	return fmt.Errorf("got %d mails to %s with a link for %s, want %s", count, args[0], args[1], args[2])
}

// mails returns the mails that the system has sent.
func (c *client) mails(ts *testscript.TestScript) (all []mailbox.Mail, err error) {
	if c.box != nil {
		return c.box.Mails(), nil
	}
	if is, _ := condition("cluster"); is {
		log, err := kubectlOutput(ts, "logs", "deployment/listener", "--tail=-1", since(c))
		for line := range strings.Lines(log) {
			var caught struct{ Mail *mailbox.Mail }
			if json.Unmarshal([]byte(line), &caught) == nil && caught.Mail != nil {
				all = append(all, *caught.Mail)
			}
		}
		return all, err
	}
	r, err := http.NewRequest(http.MethodGet, c.base+mailbox.Path+"?format=json", nil)
	if err != nil {
		return nil, err
	}
	_, body, err := do(r)
	var page struct{ Mails []mailbox.Mail }
	if err == nil {
		err = json.Unmarshal([]byte(body), &page)
	}
	return page.Mails, err
}
