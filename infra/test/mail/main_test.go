package mail_test

import (
	"testing"

	"ticketing.com/auth/infra/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
