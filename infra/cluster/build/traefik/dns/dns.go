// Package dns takes the place of lego's table of DNS providers in what is built here,
// with no provider in it: nothing of a cluster on one machine gets its certificates by
// DNS, and the clients of 150 clouds double the time of the build.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v4/challenge"
)

// NewDNSChallengeProviderByName knows no provider.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("unrecognized DNS provider: %s", name)
}
