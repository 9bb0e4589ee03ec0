package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"strings"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Service rejects a request that does not come from a registered service. The service presents its
// name and its secret with the Basic scheme (RFC 6749 section 2.3.1).
type Service struct {
	Name    string
	clients *clients
}

// Clients is the need of a function that only registered services may call.
var Clients = endpoint.Need{Secret: &endpoint.Secret{Setting: "INTROSPECTION_CLIENTS", Name: "introspection-clients", Key: "clients",
	Sample: func() string { return "tickets:not-a-secret-0000000000" }}}

// OpenToAll is the value of INTROSPECTION_CLIENTS with which every request is accepted.
const OpenToAll = "open"

// clients holds the digests of the secrets by name.
type clients struct {
	open    bool
	secrets map[string][sha256.Size]byte
}

// A clientLine is a name and a secret. The secret is random, so a fast hash is enough (NIST SP
// 800-63B section 3.1.2.2), and its alphabet needs no escapes in a URL or a header.
var clientLine = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,62}):([A-Za-z0-9_-]{16,256})$`)

// Access implements the endpoint's identifier.
func (*Service) Access() endpoint.Access { return endpoint.Service }

// ConfigurePart reads INTROSPECTION_CLIENTS: name:secret for each service, separated by white
// space.
func (s *Service) ConfigurePart(cfg *config.Config) {
	s.clients = config.Part(cfg, "introspection clients", func() *clients {
		name, text := cfg.Document("INTROSPECTION_CLIENTS")
		c := &clients{open: strings.TrimSpace(string(text)) == OpenToAll, secrets: map[string][sha256.Size]byte{}}
		if text == nil || c.open {
			return c
		}
		for line := range strings.FieldsSeq(string(text)) {
			parts := clientLine.FindStringSubmatch(line)
			if parts == nil {
				cfg.Problem(name, "must be name:secret for each service, with a secret of 16 to 256 letters, digits, - and _")
				return c
			}
			if _, twice := c.secrets[parts[1]]; twice {
				cfg.Problem(name, "has a name twice")
				return c
			}
			c.secrets[parts[1]] = sha256.Sum256([]byte(parts[2]))
		}
		if len(c.secrets) == 0 {
			cfg.Problem(name, "has no service")
		}
		return c
	})
}

// ReadPart implements endpoint.Part.
func (s *Service) ReadPart(_ context.Context, request *endpoint.Request) error {
	if s.clients.open {
		return nil
	}
	if len(request.Authorization) != 1 {
		return apierror.NoService(nil)
	}
	name, secret, ok := basic(request.Authorization[0])
	want, known := s.clients.secrets[name]
	got := sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !known || !ok {
		return apierror.NoService(errors.New("the name or the secret of the service is wrong"))
	}
	s.Name = name
	return nil
}

// basic returns the parts of Basic credentials. Both are form-encoded (RFC 6749 section 2.3.1).
func basic(header string) (name, secret string, ok bool) {
	scheme, encoded, _ := strings.Cut(header, " ")
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	if !strings.EqualFold(scheme, "Basic") || err != nil {
		return "", "", false
	}
	name, secret, ok = strings.Cut(string(decoded), ":")
	for _, part := range []*string{&name, &secret} {
		if *part, err = url.QueryUnescape(*part); err != nil {
			return "", "", false
		}
	}
	return name, secret, ok
}
