// Package mail_test tests mails with processes: kills, faults of the mail server, and secrets. It is
// apart from package e2e because go test limits the time of each package.
package mail_test

import (
	"testing"

	"ticketing.com/auth/infra/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
